/* Preloaded: once the file named by ATOLL_TEST_TRIGGER is there, C++ finds no memory any more, as
 * its `operator new` says it. */
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

void *_Znwm(unsigned long bytes);

void *_Znwm(unsigned long bytes)
{
    static int thrown; /* what is thrown may need some memory itself */
    const char *trigger = getenv("ATOLL_TEST_TRIGGER");
    if (!thrown && trigger != NULL && access(trigger, F_OK) == 0) {
        const char *what = getenv("ATOLL_TEST_THROWS");
        void *runtime = dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
        void (*fail)(const char *) = NULL;
        thrown = 1;
        *(void **)&fail = dlsym(runtime, what != NULL ? what : "_ZSt17__throw_bad_allocv");
        fail("told to"); /* those without an argument do not look at it */
    }
    return malloc(bytes != 0 ? bytes : 1);
}
