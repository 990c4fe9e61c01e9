/* Allocation. Small allocations (a struct, a name, a list cell) never return NULL: a process that
 * cannot get a few bytes is ended at once and its restart converges (docs/ARCHITECTURE.md,
 * "Memory"). Whatever has a size that comes from outside goes into an at_buf or an at_arena, which
 * have caps and return AT_TOO_LARGE or AT_NOMEM. */
#ifndef AT_CORE_MEM_H
#define AT_CORE_MEM_H

#include <stddef.h>

void *at_alloc(size_t bytes);              /* zeroed; aborts when memory is gone */
void *at_realloc(void *old, size_t bytes); /* as realloc(3); aborts when memory is gone */
char *at_strdup(const char *s);            /* NULL stays NULL */
char *at_strndup(const char *s, size_t len);
char *at_asprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void at_free(void *p); /* accepts NULL */
/* What is free but kept goes back to the system, as far as whole pages of it are free. cost: 60 ms
 * with 150,000 scattered blocks. */
void at_mem_give_back(void);

/* For locals that free themselves: AT_CLEANUP(at_cleanup_free) char *name = at_strdup("x"); */
#define AT_CLEANUP(fn) __attribute__((cleanup(fn)))
static inline void at_cleanup_free(void *p)
{
    at_free(*(void **)p);
}

#define AT_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define AT_NEW(type) ((type *)at_alloc(sizeof(type)))

#endif
