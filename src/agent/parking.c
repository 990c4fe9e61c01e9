/* Parking: what an instance holds of GPUs is put into the machine's memory while nobody asks for
 * it, and brought back. The controller says where it is wanted (status.park), by what gateways
 * report; here it is done, by a process of our own per step (`atoll gpu-park`), so that a driver
 * that hangs or falls does not take the agent along. The step that is under way is written down
 * before it begins: an agent that was killed finishes it. */
#include "agent/agent_priv.h"
#include "agent/gpu.h"

#include "core/log.h"
#include "devices/park.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum state { RESIDENT, DRAINED, PARKING, PARKED, WAITING, RESUMING, REFUSED, STATES };
static const char *const NAMES[STATES] = {"Resident", "Drained",  "Parking", "Parked",
                                          "Waiting",  "Resuming", "Refused"};

struct agent_parking {
    enum state state;
    int64_t since_wall_ns, began_ns; /* of the state; of the step that is under way */
    int64_t used_bytes;              /* of GPUs, when their driver was asked last */
    int64_t memory_bytes;            /* that was put away */
    pid_t pids[AGENT_PARK_PIDS_MAX]; /* processes that hold some */
    size_t n_pids;
    int64_t parks, resumes, park_ms, resume_ms;
    char message[320];
    at_timer_id timer;
    struct at_process process; /* that does the step; pid 0: none */
    at_watch_id watch;
    int said_fd; /* what it says; -1: none */
};

static struct agent_parking *parking_of(struct agent_instance *i)
{
    if (i->parking == NULL) {
        i->parking = AT_NEW(struct agent_parking);
        i->parking->said_fd = -1;
    }
    return i->parking;
}

bool agent_parks(const struct agent_instance *i)
{
    const struct at_gpu_sharing *how = i->typed != NULL ? i->typed->spec.gpu_sharing : NULL;
    return how != NULL && how->park_after_ns > 0;
}

bool agent_parked(const struct agent_instance *i)
{
    return i->parking != NULL && (i->parking->state == PARKED || i->parking->state == WAITING);
}

bool agent_parking_away(const struct agent_instance *i)
{
    return i->parking != NULL && i->parking->state != RESIDENT && i->parking->state != REFUSED;
}

static enum state wanted(const struct agent_instance *i)
{
    const struct at_instance_park *p = i->typed != NULL ? i->typed->status.park : NULL;
    return p == NULL || !agent_parks(i)   ? RESIDENT
           : at_streq(p->want, "Drained") ? DRAINED
           : at_streq(p->want, "Parked")  ? PARKED
                                          : RESIDENT;
}

static void step(struct agent_instance *i);

static void give_up(struct agent_instance *i);

static void on_timer(void *ctx)
{
    struct agent_instance *i = ctx;
    i->parking->timer = 0;
    if (i->parking->process.pid > 0) {
        give_up(i);
    } else {
        step(i);
    }
}

static void look_again(struct agent_instance *i, int64_t after_ns)
{
    struct agent_parking *p = i->parking;
    at_loop_timer_cancel(i->agent->loop, p->timer);
    p->timer = at_loop_timer(i->agent->loop, after_ns, on_timer, i);
}

static void set_state(struct agent_instance *i, enum state to, const char *message)
{
    struct agent_parking *p = i->parking;
    at_log_kv(AT_LOG_DEBUG, "parking.state",
              (struct at_log_kv[]){{"instance", i->name}, {"uid", i->uid}, {0}}, "%s -> %s %s",
              NAMES[p->state], NAMES[to], message);
    bool news = p->state != to || strcmp(p->message, message) != 0;
    if (p->state != to) {
        p->since_wall_ns = at_sys_wall_ns(at_loop_sys(i->agent->loop));
    }
    p->state = to;
    snprintf(p->message, sizeof p->message, "%s", message);
    if (news) {
        agent_report(i);
    }
}

/* --- the step --- */

static void step_forget(struct agent_instance *i)
{
    struct agent_parking *p = i->parking;
    if (p->process.pid > 0) {
        at_loop_unwatch(i->agent->loop, p->watch);
        at_process_close(&p->process);
    }
    p->process.pid = 0;
    p->watch = 0;
    at_fd_close(p->said_fd);
    p->said_fd = -1;
}

/* They may run still. */
static void probes_again(struct agent_instance *i)
{
    agent_probes_stop(i);
    agent_probes_start(i);
}

static void come_back(struct agent_instance *i, const char *message)
{
    set_state(i, RESIDENT, message);
    probes_again(i);
}

static int64_t took_ms(const struct agent_instance *i)
{
    int64_t ms = (at_loop_now_ns(i->agent->loop) - i->parking->began_ns) / AT_NS_PER_MS;
    return ms > 0 ? ms : 1;
}

static void parked(struct agent_instance *i, int end, const char *said)
{
    struct agent_parking *p = i->parking;
    if (end == AT_GPU_PARK_DONE || end == AT_GPU_PARK_NOTHING) {
        p->parks++;
        p->park_ms = took_ms(i);
        p->memory_bytes = end == AT_GPU_PARK_DONE ? p->memory_bytes : 0;
        set_state(i, PARKED, "");
        return;
    }
    set_state(i, end == AT_GPU_PARK_BUSY ? RESIDENT : REFUSED, said);
    probes_again(i);
}

static void resumed(struct agent_instance *i, int end, const char *said)
{
    struct agent_parking *p = i->parking;
    if (end == AT_GPU_PARK_DONE || end == AT_GPU_PARK_NOTHING) {
        p->resumes++;
        p->resume_ms = took_ms(i);
        come_back(i, "");
        return;
    }
    set_state(i, WAITING, said);
    look_again(i, AGENT_PARK_AGAIN_NS);
}

static void write_down(struct agent_instance *i)
{
    struct at_err err = {0};
    if (agent_record_write(i, &err) != AT_OK) {
        at_log(AT_LOG_ERROR, "record.write", "%s", err.msg);
    }
}

/* Nobody knows how its process is: it ends, and starts anew. */
static void broken(struct agent_instance *i, const char *said)
{
    snprintf(i->message, sizeof i->message, "%s", said);
    i->park_broken = i->park_never = true;
    set_state(i, i->parking->state, said);
    i->driver->ops->signal(i->task, SIGKILL);
}

/* The driver hangs: the step's process with it, perhaps for ever. */
static void give_up(struct agent_instance *i)
{
    at_process_signal(&i->parking->process, SIGKILL);
    broken(i, "the GPU's driver did not answer in time");
}

static void on_step_end(void *ctx, int fd, unsigned events)
{
    (void)fd;
    (void)events;
    struct agent_instance *i = ctx;
    struct agent_parking *p = i->parking;
    int end = -1, signal_number = 0;
    char said[256] = "";
    size_t n = 0;
    if (at_process_reap(&p->process, &end, &signal_number) == AT_AGAIN) {
        return;
    }
    if (at_fd_read(p->said_fd, said, sizeof said - 1, &n) != AT_OK) {
        n = 0;
    }
    said[n] = '\0';
    said[strcspn(said, "\n")] = '\0';
    step_forget(i);
    at_loop_timer_cancel(i->agent->loop, p->timer);
    p->timer = 0;
    bool park = p->state == PARKING;
    at_log_kv(end == 0 ? AT_LOG_INFO : AT_LOG_WARN, park ? "parking.parked" : "parking.resumed",
              (struct at_log_kv[]){{"instance", i->name}, {0}}, "status %d after %lld ms%s%s", end,
              (long long)took_ms(i), said[0] != '\0' ? ": " : "", said);
    bool known =
        end == AT_GPU_PARK_DONE || (end >= AT_GPU_PARK_NOTHING && end < AT_GPU_PARK_BROKEN);
    if (!known) {
        if (!i->park_broken) {
            broken(i, said);
        }
        return;
    }
    (park ? parked : resumed)(i, end, said);
    write_down(i);
    step(i);
}

static bool step_start(struct agent_instance *i, const char *what, struct at_err *err)
{
    struct agent_parking *p = i->parking;
    AT_CLEANUP(at_cleanup_free) char *dir = at_asprintf("%s/gpu", i->agent->state_dir);
    AT_CLEANUP(at_cleanup_free) char *lock = at_asprintf("%s/%s.park", dir, i->uid);
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    const char *argv[AGENT_PARK_PIDS_MAX + 6] = {i->agent->self_exe, "gpu-park", what, lock};
    size_t n = 4;
    argv[n++] = at_arena_printf(arena, "%d", i->pid);
    for (size_t k = 0; k < p->n_pids; k++) {
        if (p->pids[k] != i->pid) {
            argv[n++] = at_arena_printf(arena, "%d", (int)p->pids[k]);
        }
    }
    int pipe[2];
    if (at_dir_make(dir, 0711, err) != AT_OK || at_fd_pipe(pipe, err) != AT_OK) {
        return false;
    }
    struct at_process_options options = {.argv = argv,
                                         .envp = at_sys_environ(),
                                         .stdin_fd = -1,
                                         .stdout_fd = pipe[1],
                                         .stderr_fd = -1,
                                         .uid = -1,
                                         .gid = -1,
                                         .new_session = true};
    unsigned lack;
    enum at_rc rc = at_process_start(&options, false, &p->process, &lack, err);
    at_fd_close(pipe[1]);
    if (rc != AT_OK) {
        at_fd_close(pipe[0]);
        p->process.pid = 0;
        return false;
    }
    at_fd_set_nonblocking(pipe[0]);
    p->said_fd = pipe[0];
    p->began_ns = at_loop_now_ns(i->agent->loop);
    p->watch = at_loop_watch(i->agent->loop, p->process.pidfd, AT_LOOP_READ, on_step_end, i);
    return true;
}

/* The state says what is done from here on, and stands on the disk before it is begun. */
static void begin(struct agent_instance *i, enum state state)
{
    struct at_err err = {0};
    assert(i->parking->process.pid == 0);
    agent_probes_stop(i);
    set_state(i, state, "");
    write_down(i);
    if (step_start(i, state == PARKING ? "park" : "unpark", &err)) {
        look_again(i, AGENT_PARK_STEP_NS_MAX);
        return;
    }
    at_log(AT_LOG_ERROR, "parking.start", "%s", err.msg);
    if (state == PARKING) {
        set_state(i, REFUSED, err.msg);
        probes_again(i);
    } else {
        set_state(i, WAITING, err.msg);
        look_again(i, AGENT_PARK_AGAIN_NS);
    }
    write_down(i);
}

/* --- what may be done --- */

/* -1: nobody tells. */
static int64_t machine_memory_left(void)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    static const char KEY[] = "MemAvailable:";
    const char *at =
        at_file_read("/proc/meminfo", 65536, &text, NULL) == AT_OK ? strstr(text.data, KEY) : NULL;
    return at != NULL ? strtoll(at + sizeof KEY - 1, NULL, 10) * 1024 : -1;
}

/* What is parked lies in the memory of its process, and counts there. */
static bool has_host_memory(struct agent_instance *i, char *why, size_t why_size)
{
    struct at_cgroup_usage usage = {0};
    int64_t rss = 0, cpu, need = i->parking->used_bytes;
    const struct at_resources *r = i->typed->spec.resources;
    int64_t limit = r != NULL ? r->memory_bytes : 0;
    int64_t left = machine_memory_left();
    if (at_process_usage(i->pid, &rss, &cpu) == AT_OK && limit > 0) {
        /* A group counts cached files too, which go when the memory is needed. */
        bool counted = i->driver->ops->usage(i->task, &usage) == AT_OK && usage.memory_bytes < rss;
        int64_t own = limit - (counted ? usage.memory_bytes : rss);
        left = left < 0 || own < left ? own : left;
    }
    if (left < 0 || need <= left) {
        return true;
    }
    char needs[AT_UNITS_TEXT_BYTES_MAX], has[AT_UNITS_TEXT_BYTES_MAX];
    left = left > 0 ? left >> 20 << 20 : 0;
    snprintf(why, why_size,
             "parking needs %s of the machine's memory, and its resources.memory or the machine "
             "leave %s",
             at_quantity_format_bytes(need, needs), at_quantity_format_bytes(left, has));
    return false;
}

static void drain(struct agent_instance *i)
{
    set_state(i, DRAINED, "");
    agent_instance_readiness(i, false);
    look_again(i, AGENT_DRAIN_NS);
}

static void park_or_not(struct agent_instance *i)
{
    struct agent_parking *p = i->parking;
    char why[256];
    int64_t drained = at_sys_wall_ns(at_loop_sys(i->agent->loop)) - p->since_wall_ns;
    if (drained >= 0 && drained < AGENT_DRAIN_NS) {
        look_again(i, AGENT_DRAIN_NS - drained); /* routes go first */
    } else if (!has_host_memory(i, why, sizeof why)) {
        set_state(i, REFUSED, why);
        probes_again(i);
    } else {
        p->memory_bytes = p->used_bytes;
        begin(i, PARKING);
    }
}

static void resume_or_wait(struct agent_instance *i)
{
    char why[256];
    if (agent_gpu_room(i, true, why, sizeof why)) {
        begin(i, RESUMING);
        return;
    }
    set_state(i, WAITING, why);
    look_again(i, AGENT_PARK_AGAIN_NS);
}

static void step(struct agent_instance *i)
{
    struct agent_parking *p = i->parking;
    enum state want = wanted(i);
    if (i->phase != PHASE_RUNNING || i->task == NULL || p->process.pid > 0) {
        return;
    }
    switch (p->state) {
    case RESIDENT:
        if (want != RESIDENT && i->park_never) {
            set_state(i, REFUSED, "it did not outlive being parked before");
        } else if (want != RESIDENT && i->ready) { /* not before it has begun to serve */
            drain(i);
        }
        break;
    case DRAINED:
        if (want == RESIDENT) {
            come_back(i, "");
        } else if (want == PARKED) {
            park_or_not(i);
        }
        break;
    case PARKED:
        if (want != PARKED) {
            resume_or_wait(i);
        }
        break;
    case WAITING:
        if (want == PARKED) {
            set_state(i, PARKED, "");
        } else if (p->timer == 0) {
            resume_or_wait(i);
        }
        break;
    case PARKING: /* an earlier agent's step: finished */
    case RESUMING:
        begin(i, p->state);
        break;
    default: /* refused: as long as this process lives */
        break;
    }
}

/* --- what the rest of the agent tells and asks --- */

void agent_parking_apply(struct agent_instance *i)
{
    if (i->parking != NULL || wanted(i) != RESIDENT) {
        (void)parking_of(i);
        step(i);
    }
}

void agent_parking_used(struct agent_instance *i, const struct at_gpu_use *uses, size_t n)
{
    if (!agent_parks(i) || agent_parked(i)) {
        return;
    }
    struct agent_parking *p = parking_of(i);
    if (p->state != RESIDENT && p->state != DRAINED) {
        return; /* it is on its way */
    }
    p->used_bytes = 0;
    p->n_pids = 0;
    for (size_t k = 0; k < n; k++) {
        bool own = uses[k].pid == i->pid || at_process_in_cgroup(uses[k].pid, i->uid);
        p->used_bytes += own ? uses[k].memory_bytes : 0;
        if (own && p->n_pids < AGENT_PARK_PIDS_MAX) {
            p->pids[p->n_pids++] = uses[k].pid;
        }
    }
}

/* A step whose instance has ended: it ends soon, having nobody left to do anything to. */
struct leftover {
    struct at_loop *loop;
    struct at_process process;
    at_watch_id watch;
};

static void on_leftover_end(void *ctx, int fd, unsigned events)
{
    (void)fd;
    (void)events;
    struct leftover *l = ctx;
    int code, signal_number;
    if (at_process_reap(&l->process, &code, &signal_number) != AT_AGAIN) {
        at_loop_unwatch(l->loop, l->watch);
        at_process_close(&l->process);
        at_free(l);
    }
}

static void step_leave(struct agent_instance *i)
{
    struct agent_parking *p = i->parking;
    if (p->process.pid <= 0 || i->agent->stopping) {
        return;
    }
    struct leftover *l = AT_NEW(struct leftover);
    *l = (struct leftover){.loop = i->agent->loop, .process = p->process};
    at_loop_unwatch(i->agent->loop, p->watch);
    l->watch = at_loop_watch(l->loop, l->process.pidfd, AT_LOOP_READ, on_leftover_end, l);
    p->process.pid = 0;
}

void agent_parking_ended(struct agent_instance *i)
{
    if (i->parking != NULL) {
        step_leave(i);
        step_forget(i);
        at_loop_timer_cancel(i->agent->loop, i->parking->timer);
        at_free(i->parking);
        i->parking = NULL;
    }
}

json_t *agent_parking_json(const struct agent_instance *i)
{
    const struct agent_parking *p = i->parking;
    char memory[AT_UNITS_TEXT_BYTES_MAX], since[AT_UNITS_TEXT_BYTES_MAX];
    if (p == NULL || !agent_parks(i)) {
        return json_null();
    }
    json_t *json =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "state", NAMES[p->state], "memory",
                  at_quantity_format_bytes(p->memory_bytes, memory), "parks", (json_int_t)p->parks,
                  "resumes", (json_int_t)p->resumes, "parkMilliseconds", (json_int_t)p->park_ms,
                  "resumeMilliseconds", (json_int_t)p->resume_ms);
    json_object_set_new(json, "message",
                        p->message[0] != '\0' ? json_string(p->message) : json_null());
    json_object_set_new(json, "since",
                        p->since_wall_ns != 0
                            ? json_string(at_time_format_micro(p->since_wall_ns, since))
                            : json_null());
    return json;
}

void agent_parking_record(const struct agent_instance *i, json_t *record)
{
    const struct agent_parking *p = i->parking;
    if (p == NULL || i->task == NULL) {
        return;
    }
    json_t *pids = json_array();
    for (size_t k = 0; k < p->n_pids; k++) {
        json_array_append_new(pids, json_integer(p->pids[k]));
    }
    json_object_set_new(record, "parking",
                        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:o}", "state", NAMES[p->state],
                                  "memory", (json_int_t)p->memory_bytes, "parks",
                                  (json_int_t)p->parks, "resumes", (json_int_t)p->resumes, "parkMs",
                                  (json_int_t)p->park_ms, "resumeMs", (json_int_t)p->resume_ms,
                                  "pids", pids));
}

/* One that waited is parked; one that was drained serves until it is told again. */
static enum state state_named(const char *name)
{
    for (int k = 0; k < STATES; k++) {
        if (strcmp(NAMES[k], name) == 0) {
            return k == WAITING ? PARKED : k == DRAINED ? RESIDENT : (enum state)k;
        }
    }
    return RESIDENT;
}

void agent_parking_load(struct agent_instance *i, const json_t *record)
{
    const json_t *json = json_object_get(record, "parking");
    if (json == NULL) {
        return;
    }
    struct agent_parking *p = parking_of(i);
    p->state = state_named(at_json_str_at(json, "state", ""));
    p->memory_bytes = p->used_bytes = at_json_int_at(json, "memory", 0);
    p->parks = at_json_int_at(json, "parks", 0);
    p->resumes = at_json_int_at(json, "resumes", 0);
    p->park_ms = at_json_int_at(json, "parkMs", 0);
    p->resume_ms = at_json_int_at(json, "resumeMs", 0);
    p->since_wall_ns = at_sys_wall_ns(at_loop_sys(i->agent->loop));
    const json_t *pids = json_object_get(json, "pids");
    for (size_t k = 0; k < json_array_size(pids) && k < AGENT_PARK_PIDS_MAX; k++) {
        p->pids[p->n_pids++] = (pid_t)json_integer_value(json_array_get(pids, k));
    }
}

void agent_parking_remove(const struct agent_instance *i)
{
    AT_CLEANUP(at_cleanup_free)
    char *lock = at_asprintf("%s/gpu/%s.park", i->agent->state_dir, i->uid);
    struct at_err err = {0};
    if (at_file_remove(lock, &err) != AT_OK) {
        at_log(AT_LOG_WARN, "parking.remove", "%s", err.msg);
    }
}
