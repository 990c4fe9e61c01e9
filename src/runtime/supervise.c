#include "runtime/supervise.h"

#include "core/digest.h"
#include "core/mem.h"
#include "core/units.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

void at_supervise_note(struct at_buf *buf, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    enum at_rc rc = at_buf_append_str(buf, text);
    (void)rc;
}

void at_supervise_note_limits(struct at_buf *buf, const struct at_cgroup_limits *limits)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    const char *sep = ", limits ";
    if (limits->cpu_milli > 0) {
        at_supervise_note(buf, "%scpu %s", sep, at_quantity_format_milli(limits->cpu_milli, text));
        sep = ", ";
    }
    if (limits->memory_bytes > 0) {
        at_supervise_note(buf, "%smemory %s", sep,
                          at_quantity_format_bytes(limits->memory_bytes, text));
        sep = ", ";
    }
    if (limits->pids > 0) {
        at_supervise_note(buf, "%spids %lld", sep, (long long)limits->pids);
    }
}

struct at_cgroup_limits at_supervise_kept(const struct at_supervised *s,
                                          const struct at_cgroup_limits *limits)
{
    if (s->cgroup == NULL) {
        return (struct at_cgroup_limits){0};
    }
    struct at_cgroup_limits kept = *limits;
    const char *lack = at_cgroup_lack(s->cgroup) != NULL ? at_cgroup_lack(s->cgroup) : "";
    kept.cpu_milli = strstr(lack, "cpu") == NULL ? kept.cpu_milli : 0;
    kept.memory_bytes = strstr(lack, "memory") == NULL ? kept.memory_bytes : 0;
    kept.pids = strstr(lack, "pids") == NULL ? kept.pids : 0;
    return kept;
}

char *at_supervise_mark(const char *id)
{
    return at_asprintf("ATOLL_TASK=%s", id);
}

int64_t at_supervise_uid(const char *id)
{
    unsigned char digest[AT_SHA256_BYTES];
    at_sha256(id, strlen(id), digest);
    uint32_t h;
    memcpy(&h, digest, sizeof h);
    return AT_RUNTIME_UID_BASE + h % AT_RUNTIME_UID_COUNT;
}

struct at_cgroup_limits at_supervise_limits(const struct at_runtime_spec *spec)
{
    struct at_cgroup_limits limits = spec->limits;
    if (limits.pids == 0) {
        limits.pids = AT_RUNTIME_PIDS_DEFAULT;
    }
    return limits;
}

void at_supervise_cgroup(struct at_supervised *s, const char *node, const char *id,
                         const struct at_cgroup_limits *limits, struct at_buf *lacks)
{
    AT_CLEANUP(at_cleanup_free) char *name = at_asprintf("atoll/%s/%s", node, id);
    struct at_err err;
    if (at_cgroup_open(name, limits, &s->cgroup, &err) != AT_OK) {
        s->cgroup = NULL;
        at_supervise_note(lacks, ", limits (%s)", err.msg);
    } else if (at_cgroup_lack(s->cgroup) != NULL) {
        at_supervise_note(lacks, ", limits of %s", at_cgroup_lack(s->cgroup));
    }
}

static void on_pidfd(void *ctx, int fd, unsigned events)
{
    struct at_supervised *s = ctx;
    (void)fd;
    (void)events;
    int exit_code = -1;
    int signal_number = -1;
    if (at_process_reap(&s->process, &exit_code, &signal_number) == AT_AGAIN) {
        return;
    }
    /* Members of its process group that the control group, if there is one, might not hold. */
    at_process_signal_group(&s->process, SIGKILL);
    at_supervise_forget(s);
    s->on_exit(s->owner, exit_code, signal_number);
}

void at_supervise_watch(struct at_supervised *s, struct at_loop *loop,
                        at_supervised_exit_fn *on_exit, void *owner)
{
    assert(s->process.pid > 0);
    s->loop = loop;
    s->on_exit = on_exit;
    s->owner = owner;
    s->watch = at_loop_watch(loop, s->process.pidfd, AT_LOOP_READ, on_pidfd, s);
    assert(s->watch != 0);
}

void at_supervise_forget(struct at_supervised *s)
{
    if (s->process.pid > 0 && s->process.pidfd >= 0) {
        at_loop_unwatch(s->loop, s->watch);
        at_process_close(&s->process);
    }
    s->process.pid = 0;
    s->watch = 0;
}

void at_supervise_kill(struct at_supervised *s)
{
    if (s->process.pid > 0) {
        at_process_signal(&s->process, SIGKILL);
        at_process_signal_group(&s->process, SIGKILL);
    }
    if (s->cgroup != NULL) {
        at_cgroup_kill(s->cgroup);
    } else if (s->mark != NULL) {
        at_process_kill_marked(s->mark);
    }
}

enum at_rc at_supervise_usage(const struct at_supervised *s, struct at_cgroup_usage *ret)
{
    if (s->cgroup != NULL) {
        return at_cgroup_read(s->cgroup, ret);
    }
    *ret = (struct at_cgroup_usage){0};
    return at_process_usage(s->process.pid, &ret->memory_bytes, &ret->cpu_ns);
}

void at_supervise_remove(struct at_supervised *s)
{
    if (s->cgroup != NULL) {
        /* One that does not go now is swept when the agent starts next. */
        enum at_rc rc = at_cgroup_remove(s->cgroup, NULL);
        (void)rc;
        at_cgroup_free(s->cgroup);
        s->cgroup = NULL;
    }
    at_free(s->mark);
    s->mark = NULL;
}

void at_supervise_sweep(const char *node, const char *id)
{
    struct at_supervised s = {0};
    struct at_buf lacks = {0};
    at_supervise_cgroup(&s, node, id, &(struct at_cgroup_limits){0}, &lacks);
    at_buf_done(&lacks);
    s.mark = at_supervise_mark(id);
    at_supervise_kill(&s);
    at_supervise_remove(&s);
}

json_t *at_supervise_describe(const struct at_supervised *s, const char *driver, const char *node,
                              const char *id)
{
    json_t *record =
        json_pack("{s:s, s:s, s:s, s:I, s:I}", "driver", driver, "id", id, "node", node, "pid",
                  (json_int_t)s->process.pid, "startTicks", (json_int_t)s->start_ticks);
    assert(record != NULL);
    return record;
}

enum at_rc at_supervise_adopt(struct at_supervised *s, const json_t *record, struct at_err *err)
{
    const char *node = at_json_str_at(record, "node", NULL);
    const char *id = at_json_str_at(record, "id", NULL);
    pid_t pid = (pid_t)at_json_int_at(record, "pid", 0);
    s->start_ticks = (uint64_t)at_json_int_at(record, "startTicks", 0);
    if (node == NULL || id == NULL) {
        return at_err_set(err, AT_NOT_FOUND, "the record names no task");
    }
    enum at_rc rc = at_process_adopt(pid, s->start_ticks, &s->process, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_buf lacks = {0};
    at_supervise_cgroup(s, node, id, &(struct at_cgroup_limits){0}, &lacks);
    at_buf_done(&lacks);
    s->mark = at_supervise_mark(id);
    return AT_OK;
}
