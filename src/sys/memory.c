#include "sys/memory.h"

#include <stdint.h>
#include <sys/mman.h>

#define HUGE_BYTES ((uintptr_t)2 << 20)

void at_memory_large(void *p, size_t len)
{
    if (p == NULL || len < AT_SYS_LARGE_BYTES_MIN) {
        return;
    }
    uintptr_t from = ((uintptr_t)p + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1);
    uintptr_t to = ((uintptr_t)p + len) & ~(HUGE_BYTES - 1);
    if (from < to) {
        (void)madvise((void *)from, to - from, MADV_HUGEPAGE); /* only advice */
    }
}
