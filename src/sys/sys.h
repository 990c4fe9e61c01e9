/* The operating-system seam: time and randomness come through this table, so that the simulator can
 * replace them. The other OS calls (files, sockets, processes, cgroups) are plain functions in this
 * folder's other headers. */
#ifndef AT_SYS_SYS_H
#define AT_SYS_SYS_H

#include "core/err.h"

struct at_sys {
    void *ctx;
    int64_t (*mono_ns)(void *ctx); /* monotonic, never goes back */
    int64_t (*wall_ns)(void *ctx); /* ns since 1970 UTC */
    void (*random)(void *ctx, void *out,
                   size_t len); /* cryptographic in the real table; cannot fail */
    /* Wait until an event of epfd or deadline_mono_ns (INT64_MAX: for ever). The simulator advances
     * its clock instead. */
    int (*poll)(void *ctx, int epfd, void *epoll_events, int n_events_max,
                int64_t deadline_mono_ns);
};

const struct at_sys *at_sys_real(void);

static inline int64_t at_sys_mono_ns(const struct at_sys *sys)
{
    return sys->mono_ns(sys->ctx);
}
static inline int64_t at_sys_wall_ns(const struct at_sys *sys)
{
    return sys->wall_ns(sys->ctx);
}
static inline void at_sys_random(const struct at_sys *sys, void *out, size_t len)
{
    sys->random(sys->ctx, out, len);
}

const char *at_sys_getenv(const char *name); /* borrowed, NULL when unset */
/* Set a variable of this process, for a library that reads its switches there only. Before threads
 * are made: the C library's environment has no lock. */
void at_sys_setenv(const char *name, const char *value);
/* The whole environment, NULL-terminated, for a child that inherits it. Borrowed. */
const char *const *at_sys_environ(void);
bool at_sys_is_root(void);         /* effective user 0 */
const char *at_sys_hostname(void); /* borrowed, never NULL */
/* Absolute path of the running program, for starting itself in another role. own: caller at_free.
 */
char *at_sys_self_exe(void);

#endif
