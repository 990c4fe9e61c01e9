/* A file that is written as memory: what is stored is in the file at once for every other process
 * and outlives this one however it ends; at_mapped_sync makes it outlive the machine. */
#ifndef AT_SYS_MAPPED_H
#define AT_SYS_MAPPED_H

#include "core/err.h"

#include <stddef.h>

struct at_mapped {
    unsigned char *data;
    size_t len;
    int fd;
};

/* A new file of len zero bytes for which the disk has room. out: *ret, to be closed.
 * err: AT_CONFLICT it is there already | AT_IO no room, and the like. */
enum at_rc at_mapped_new(const char *path, size_t len, struct at_mapped *ret,
                         struct at_err *err) AT_WARN_UNUSED;
/* Wait until what data[from..to) holds now is on the disk. Any thread. err: AT_IO. */
enum at_rc at_mapped_sync(const struct at_mapped *mapped, size_t from, size_t to,
                          struct at_err *err) AT_WARN_UNUSED;
void at_mapped_close(struct at_mapped *mapped); /* the file stays; accepts one that is closed */

#endif
