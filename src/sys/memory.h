/* Advice to the kernel about memory that was allocated as usual. */
#ifndef AT_SYS_MEMORY_H
#define AT_SYS_MEMORY_H

#include <stddef.h>

/* The len bytes from p are about to be written for the first time, all of them: in pages of 2 MiB
 * that takes hundreds of times fewer page faults. Nothing happens to less than
 * AT_SYS_LARGE_BYTES_MIN, nor where the kernel has no such pages. */
#define AT_SYS_LARGE_BYTES_MIN ((size_t)4 << 20)
void at_memory_large(void *p, size_t len);

#endif
