/* What both drivers need: a cgroup and a first process, watched on the loop. Private to the folder.
 */
#ifndef AT_RUNTIME_SUPERVISE_H
#define AT_RUNTIME_SUPERVISE_H

#include "core/buf.h"
#include "runtime/driver.h"
#include "runtime/limits.h"

struct at_supervised;
/* The process ended; the watch is gone and the process reaped. -1/-1: it was adopted. */
typedef void at_supervised_exit_fn(void *owner, int exit_code, int signal_number);

struct at_supervised {
    struct at_loop *loop;
    struct at_process process; /* pid 0: none */
    uint64_t start_ticks;
    at_watch_id watch;
    struct at_cgroup *cgroup; /* NULL: the machine has none, or not for us */
    char *mark; /* environment entry by which members are found without a group; may be NULL */
    at_supervised_exit_fn *on_exit;
    void *owner;
};

/* Open the group atoll/<node>/<id>; a lack is appended to lacks as ", limits (why)". */
void at_supervise_cgroup(struct at_supervised *s, const char *node, const char *id,
                         const struct at_cgroup_limits *limits, struct at_buf *lacks);
/* Watch s->process. */
void at_supervise_watch(struct at_supervised *s, struct at_loop *loop,
                        at_supervised_exit_fn *on_exit, void *owner);
/* SIGKILL to everything in the group, and to the process's own process group. */
void at_supervise_kill(struct at_supervised *s);
void at_supervise_forget(struct at_supervised *s); /* stop watching; nothing is killed */
enum at_rc at_supervise_usage(const struct at_supervised *s,
                              struct at_cgroup_usage *ret) AT_WARN_UNUSED;
/* "ATOLL_TASK=<id>"; own: caller at_free. */
char *at_supervise_mark(const char *id);
/* Remove the group (after at_supervise_kill or the end) and free it. */
void at_supervise_remove(struct at_supervised *s);
/* Kill and remove the group of a task that nobody holds any more. */
void at_supervise_sweep(const char *node, const char *id);

/* {"driver","id","node","pid","startTicks"}; own: caller. */
json_t *at_supervise_describe(const struct at_supervised *s, const char *driver, const char *node,
                              const char *id);
/* The reverse: fills process, start_ticks and cgroup. err: AT_NOT_FOUND it is gone. */
enum at_rc at_supervise_adopt(struct at_supervised *s, const json_t *record,
                              struct at_err *err) AT_WARN_UNUSED;

/* Append, never failing: texts here are short; what does not fit is dropped. */
void at_supervise_note(struct at_buf *buf, const char *fmt, ...) AT_PRINTF(2, 3);
/* ", limits cpu 500m, memory 64Mi, pids 4096", those of 0 left out; nothing when all are 0. */
void at_supervise_note_limits(struct at_buf *buf, const struct at_cgroup_limits *limits);
/* limits without those that s's group does not keep. */
struct at_cgroup_limits at_supervise_kept(const struct at_supervised *s,
                                          const struct at_cgroup_limits *limits);
/* Private user id for an instance. */
int64_t at_supervise_uid(const char *id);
struct at_cgroup_limits at_supervise_limits(const struct at_runtime_spec *spec);

#endif
