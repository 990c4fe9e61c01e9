/* Size and kind of this machine. */
#ifndef AT_SYS_MACHINE_H
#define AT_SYS_MACHINE_H

#include "core/buf.h"
#include "core/err.h"

struct at_machine {
    int cpus;             /* that this process may run on */
    int64_t memory_bytes; /* MemTotal */
    char arch[32];        /* "x86_64", "aarch64" */
    char kernel[96];      /* release */
    bool root;            /* effective user is 0 */
};

void at_machine_read(struct at_machine *ret);
/* Size and free space (for ordinary users) of the file system under path. */
enum at_rc at_machine_disk(const char *path, int64_t *ret_total_bytes, int64_t *ret_free_bytes,
                           struct at_err *err) AT_WARN_UNUSED;
/* What tells the loopback that this process sees from that of every other machine, boot and network
 * namespace; nobody elsewhere can know it. Appended to ret. */
enum at_rc at_machine_loopback(struct at_buf *ret) AT_WARN_UNUSED;

#endif
