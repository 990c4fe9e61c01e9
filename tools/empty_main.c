/* Links a whole layer against its allowed layers only: an undefined symbol here is a forbidden
 * dependency. */
int main(void)
{
    return 0;
}
