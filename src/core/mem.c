#include "core/mem.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *p)
{
    if (p == NULL) {
        fputs("atoll: out of memory\n", stderr);
        abort();
    }
    return p;
}

void *at_alloc(size_t bytes)
{
    return checked(calloc(1, bytes != 0 ? bytes : 1));
}

void *at_realloc(void *old, size_t bytes)
{
    return checked(realloc(old, bytes != 0 ? bytes : 1));
}

char *at_strdup(const char *s)
{
    return s != NULL ? at_strndup(s, strlen(s)) : NULL;
}

char *at_strndup(const char *s, size_t len)
{
    char *copy = checked(malloc(len + 1));
    if (len != 0) {
        memcpy(copy, s, len);
    }
    copy[len] = '\0';
    return copy;
}

char *at_asprintf(const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int written = vasprintf(&text, fmt, args);
    va_end(args);
    return checked(written >= 0 ? text : NULL);
}

void at_free(void *p)
{
    free(p);
}

void at_mem_give_back(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
