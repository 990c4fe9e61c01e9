#include "agent/agent_priv.h"
#include "agent/gpu.h"

#include "core/log.h"
#include "sys/file.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char *const PHASE_NAMES[PHASE_COUNT] = {
    [PHASE_IDLE] = "idle",         [PHASE_FETCHING] = "fetching", [PHASE_SECRETS] = "secrets",
    [PHASE_STARTING] = "starting", [PHASE_RUNNING] = "running",   [PHASE_DRAINING] = "draining",
    [PHASE_STOPPING] = "stopping", [PHASE_BACKOFF] = "backoff",   [PHASE_ENDED] = "ended",
    [PHASE_REMOVED] = "removed",
};

#define BIT(phase) (1u << (phase))
static const unsigned MOVES[PHASE_COUNT] = {
    [PHASE_IDLE] = BIT(PHASE_FETCHING) | BIT(PHASE_SECRETS) | BIT(PHASE_RUNNING) |
                   BIT(PHASE_ENDED) | BIT(PHASE_REMOVED),
    [PHASE_FETCHING] = BIT(PHASE_SECRETS) | BIT(PHASE_BACKOFF) | BIT(PHASE_IDLE),
    [PHASE_SECRETS] = BIT(PHASE_STARTING) | BIT(PHASE_BACKOFF) | BIT(PHASE_IDLE),
    [PHASE_STARTING] = BIT(PHASE_RUNNING) | BIT(PHASE_BACKOFF) | BIT(PHASE_IDLE),
    [PHASE_RUNNING] =
        BIT(PHASE_DRAINING) | BIT(PHASE_STOPPING) | BIT(PHASE_BACKOFF) | BIT(PHASE_ENDED),
    [PHASE_DRAINING] = BIT(PHASE_STOPPING) | BIT(PHASE_IDLE),
    [PHASE_STOPPING] = BIT(PHASE_IDLE) | BIT(PHASE_BACKOFF),
    [PHASE_BACKOFF] = BIT(PHASE_IDLE),
    [PHASE_ENDED] = BIT(PHASE_REMOVED),
    [PHASE_REMOVED] = 0,
};

static void step(struct agent_instance *i);

static void set_phase(struct agent_instance *i, enum agent_phase to)
{
    assert((MOVES[i->phase] & BIT(to)) != 0);
    at_log_kv(AT_LOG_DEBUG, "instance.phase",
              (struct at_log_kv[]){{"instance", i->name}, {"uid", i->uid}, {0}}, "%s -> %s",
              PHASE_NAMES[i->phase], PHASE_NAMES[to]);
    i->phase = to;
    at_loop_timer_cancel(i->agent->loop, i->timer);
    i->timer = 0;
}

static void tell(struct agent_instance *i, const char *phase, const char *reason,
                 const char *message)
{
    i->status_phase = phase;
    snprintf(i->reason, sizeof i->reason, "%s", reason);
    /* message may be i->message itself. */
    size_t len = strnlen(message, sizeof i->message - 1);
    memmove(i->message, message, len);
    i->message[len] = '\0';
    if (!i->agent->stopping) {
        agent_report(i);
    }
}

static int64_t wall_now(const struct agent_instance *i)
{
    return at_sys_wall_ns(at_loop_sys(i->agent->loop));
}

/* --- making, finding, freeing --- */

static struct agent_instance *instance_new(struct at_agent *a, const char *uid, const char *ns,
                                           const char *name)
{
    struct agent_instance *i = AT_NEW(struct agent_instance);
    i->agent = a;
    i->uid = at_strdup(uid);
    i->ns = at_strdup(ns);
    i->name = at_strdup(name);
    i->dir = at_asprintf("%s/instances/%s", a->state_dir, uid);
    i->log_path = at_asprintf("%s/logs/%s.log", a->state_dir, uid);
    i->record_path = at_asprintf("%s/records/%s.json", a->state_dir, uid);
    i->phase = PHASE_IDLE;
    i->status_phase = "Pending";
    at_map_put(a->instances, uid, i);
    return i;
}

struct agent_instance *agent_instance_find(struct at_agent *a, const char *ns, const char *name)
{
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        struct agent_instance *i = value;
        if (at_streq(i->name, name) && at_streq(i->ns, ns)) {
            return i;
        }
    }
    return NULL;
}

void agent_instance_free(struct agent_instance *i)
{
    struct at_agent *a = i->agent;
    at_map_remove(a->instances, i->uid);
    at_loop_timer_cancel(a->loop, i->timer);
    agent_probes_stop(i);
    agent_model_done(i);
    at_client_cancel(a->client, i->secret_call);
    agent_report_done(i);
    agent_parking_ended(i);
    agent_share_free(i);
    json_decref(i->secrets);
    json_decref(i->object);
    at_arena_free(i->arena);
    char *texts[] = {i->uid,         i->ns,        i->name,     i->dir,           i->log_path,
                     i->record_path, i->isolation, i->endpoint, i->local_endpoint};
    for (size_t n = 0; n < AT_ARRAY_LEN(texts); n++) {
        at_free(texts[n]);
    }
    at_free(i);
}

/* Its object is gone: so is what was kept for it, its log. */
void agent_instance_forget(struct agent_instance *i)
{
    AT_CLEANUP(at_cleanup_free) char *old = at_asprintf("%s.1", i->log_path);
    struct at_err err = {0};
    if (at_file_remove(i->log_path, &err) != AT_OK || at_file_remove(old, &err) != AT_OK) {
        at_log(AT_LOG_WARN, "instance.remove", "%s", err.msg);
    }
    agent_log_time_remove(i->log_path);
    agent_instance_free(i);
}

/* Everything of it is gone from this machine: its record, files, and our claim on the object. */
static void remove_now(struct agent_instance *i)
{
    struct at_agent *a = i->agent;
    struct at_err err = {0};
    set_phase(i, PHASE_REMOVED);
    if (at_tree_remove(i->dir, &err) != AT_OK) {
        at_log(AT_LOG_WARN, "instance.remove", "%s", err.msg);
    }
    agent_record_remove(i);
    agent_share_remove(i);
    agent_parking_remove(i);
    if (a->stopping) {
        agent_instance_free(i);
        agent_check_stopped(a);
    } else if (i->object == NULL) {
        agent_instance_forget(i);
    } else {
        agent_report_finalizer(i);
    }
}

/* --- starting --- */

bool agent_instance_model(struct agent_instance *i, enum at_rc rc, const struct at_err *err)
{
    if (i->phase != PHASE_FETCHING) {
        return false;
    }
    if (!i->wanted || i->agent->stopping) {
        set_phase(i, PHASE_IDLE);
        step(i);
        return false;
    }
    if (rc != AT_OK) {
        const char *reason = rc == AT_NOT_FOUND   ? "ModelNotFound"
                             : rc == AT_CORRUPT   ? "ModelDigestMismatch"
                             : rc == AT_FORBIDDEN ? "ModelRefused"
                                                  : "ModelFetchFailed";
        agent_instance_failed_start(i, reason, err);
        return false;
    }
    set_phase(i, PHASE_SECRETS);
    return true;
}

static void end(struct agent_instance *i, bool succeeded, const char *reason, const char *message);

static void begin(struct agent_instance *i)
{
    const struct at_workload *w = &i->typed->spec;
    char why[256];
    if (!agent_admit(i, why, sizeof why)) {
        end(i, false, "NodeOvercommitted", why);
        return;
    }
    if (agent_gpus_lost(i, why, sizeof why)) {
        end(i, false, "GPULost", why);
        return;
    }
    i->driver = agent_driver_for(i->agent, w);
    if (w->model != NULL && w->model->uri != NULL) {
        set_phase(i, PHASE_FETCHING);
        tell(i, "Starting",
             i->failures >= AGENT_CRASH_LOOP_RESTARTS ? "CrashLoopBackOff" : "FetchingModel",
             i->failures > 0 ? i->message : "");
        agent_model_get(i);
        return;
    }
    set_phase(i, PHASE_SECRETS);
    tell(i, "Starting", i->failures >= AGENT_CRASH_LOOP_RESTARTS ? "CrashLoopBackOff" : "",
         i->failures > 0 ? i->message : "");
    agent_launch(i);
}

bool agent_instance_set_starting(struct agent_instance *i)
{
    if (!i->wanted || i->agent->stopping) {
        set_phase(i, PHASE_IDLE);
        step(i);
        return false;
    }
    set_phase(i, PHASE_STARTING);
    return true;
}

static void backoff_over(void *ctx)
{
    struct agent_instance *i = ctx;
    i->timer = 0;
    set_phase(i, PHASE_IDLE);
    step(i);
}

static void backoff(struct agent_instance *i)
{
    unsigned doublings = i->failures < 16 ? i->failures : 16;
    int64_t wait = AGENT_BACKOFF_MIN_NS << (doublings > 0 ? doublings - 1 : 0);
    wait = wait < AGENT_BACKOFF_MAX_NS ? wait : AGENT_BACKOFF_MAX_NS;
    set_phase(i, PHASE_BACKOFF);
    i->timer = at_loop_timer(i->agent->loop, wait, backoff_over, i);
}

/* May be started again after a failure? A Never instance that could not even start has failed for
 * good. */
static bool restartable(const struct agent_instance *i, bool succeeded)
{
    const char *policy = i->typed->spec.restart_policy;
    if (at_streq(policy, "Never")) {
        return false;
    }
    return !(succeeded && at_streq(policy, "OnFailure"));
}

static void end(struct agent_instance *i, bool succeeded, const char *reason, const char *message)
{
    set_phase(i, PHASE_ENDED);
    i->finished_wall_ns = wall_now(i);
    i->ready = false;
    i->pid = 0;
    agent_record_remove(i);
    tell(i, succeeded ? "Succeeded" : "Failed", reason, message);
    step(i);
}

void agent_instance_failed_start(struct agent_instance *i, const char *reason,
                                 const struct at_err *err)
{
    at_log_kv(AT_LOG_WARN, "instance.start_failed",
              (struct at_log_kv[]){{"instance", i->name}, {"reason", reason}, {0}}, "%s", err->msg);
    agent_record_remove(i);
    if (!i->wanted || i->agent->stopping) {
        set_phase(i, PHASE_IDLE);
        step(i);
        return;
    }
    i->failures++;
    if (!restartable(i, false) && i->phase == PHASE_STARTING) {
        set_phase(i, PHASE_IDLE);
        end(i, false, reason, err->msg);
        return;
    }
    backoff(i);
    tell(i, "Starting", reason, err->msg);
}

void agent_instance_started(struct agent_instance *i, struct at_runtime_task *task, int pid,
                            const char *isolation)
{
    i->task = task;
    i->pid = pid;
    i->gpu_exceeded = i->gpu_lost = i->park_broken = false;
    at_free(i->isolation);
    i->isolation = at_strdup(isolation);
    set_phase(i, PHASE_RUNNING);
    i->started_wall_ns = wall_now(i);
    i->running_since_ns = at_loop_now_ns(i->agent->loop);
    struct at_err err = {0};
    if (agent_record_write(i, &err) != AT_OK) {
        at_log(AT_LOG_ERROR, "record.write", "%s", err.msg);
    }
    tell(i, "Running", "", "");
    if (!i->wanted || i->agent->stopping) {
        step(i);
        return;
    }
    agent_probes_start(i);
}

/* --- readiness and health --- */

void agent_instance_readiness(struct agent_instance *i, bool passed)
{
    if (i->phase != PHASE_RUNNING || passed == i->ready || (passed && agent_parking_away(i))) {
        return;
    }
    i->ready = passed;
    if (passed) {
        i->ready_wall_ns = wall_now(i);
    }
    bool away = agent_parking_away(i);
    tell(i, "Running",
         passed ? ""
         : away ? "Parked"
                : "NotReady",
         passed ? ""
         : away ? "its model leaves the GPU for the machine's memory until somebody asks"
                : "the readiness probe fails");
    if (passed) {
        agent_parking_apply(i);
    }
}

void agent_instance_unhealthy(struct agent_instance *i, const char *why)
{
    if (i->phase != PHASE_RUNNING) {
        return;
    }
    i->restart = true;
    tell(i, "Running", "Unhealthy", why);
    step(i);
}

/* --- stopping and ending --- */

static void grace_over(void *ctx)
{
    struct agent_instance *i = ctx;
    i->timer = 0;
    i->driver->ops->signal(i->task, SIGKILL);
}

static void drain_over(void *ctx)
{
    struct agent_instance *i = ctx;
    i->timer = 0;
    set_phase(i, PHASE_STOPPING);
    int64_t grace = i->typed != NULL ? i->typed->spec.termination_grace_period_ns : 0;
    if (i->agent->stopping && grace > AGENT_STOP_GRACE_MAX_NS) {
        grace = AGENT_STOP_GRACE_MAX_NS;
    }
    i->driver->ops->signal(i->task, grace > 0 ? SIGTERM : SIGKILL);
    i->timer = at_loop_timer(i->agent->loop, grace, grace_over, i);
}

static void stop_running(struct agent_instance *i)
{
    bool served = i->ready && i->endpoint != NULL;
    agent_probes_stop(i);
    i->ready = false;
    set_phase(i, PHASE_DRAINING);
    tell(i, "Running", i->restart ? "Unhealthy" : "Stopping", i->restart ? i->message : "");
    if (served && !i->agent->stopping) {
        i->timer = at_loop_timer(i->agent->loop, AGENT_DRAIN_NS, drain_over, i);
    } else {
        drain_over(i);
    }
}

/* What the runner and the shell mean by these exit codes; NULL: nothing special. */
static const char *exit_reason(const struct agent_instance *i, int exit_code)
{
    if (i->park_broken) {
        return "ParkingFailed";
    }
    if (i->out_of_memory || i->gpu_exceeded) {
        return i->gpu_exceeded ? "GPUMemoryExceeded" : "OOMKilled";
    }
    bool runner =
        i->typed != NULL && i->typed->spec.runner != NULL && i->typed->spec.runner[0] != '\0';
    if (runner && exit_code == 65) {
        return "ModelInvalid";
    }
    if (runner && exit_code == 69) {
        return "RunnerUnavailable";
    }
    if (runner && exit_code == 75) {
        return "NotEnoughMemory";
    }
    return NULL;
}

static void exited_by_itself(struct agent_instance *i, int exit_code, int signal_number)
{
    bool succeeded = exit_code == 0 && signal_number <= 0;
    char last[256] = "";
    char message[400];
    agent_log_last_line(i->log_path, last, sizeof last);
    if (i->gpu_exceeded) {
        snprintf(message, sizeof message, "held more memory of its GPU than its share%s%s",
                 last[0] ? ": " : "", last);
    } else if (i->park_broken) {
        snprintf(message, sizeof message, "the GPU's driver could not go on with it: %s",
                 i->message);
    } else if (i->out_of_memory) {
        char limit[AT_UNITS_TEXT_BYTES_MAX];
        const struct at_resources *r = i->typed->spec.resources;
        at_quantity_format_bytes(r != NULL ? r->memory_bytes : 0, limit);
        snprintf(message, sizeof message, "ran out of memory, its limit is %s", limit);
    } else if (exit_code < 0) {
        snprintf(message, sizeof message, "ended while the agent was away, exit status unknown%s%s",
                 last[0] ? ": " : "", last);
    } else if (signal_number > 0) {
        snprintf(message, sizeof message, "killed by signal %d%s%s", signal_number,
                 last[0] ? ": " : "", last);
    } else {
        snprintf(message, sizeof message, "exited with %d%s%s", exit_code, last[0] ? ": " : "",
                 last);
    }
    if (at_loop_now_ns(i->agent->loop) - i->running_since_ns >= AGENT_HEALTHY_NS) {
        i->failures = 0;
    }
    i->failures++;
    i->pid = 0;
    i->ready = false;
    const char *special = exit_reason(i, exit_code);
    if (i->gpu_lost) { /* not to be mended here: its owner makes another one */
        (void)agent_gpus_lost(i, message, sizeof message);
        end(i, false, "GPULost", message);
        return;
    }
    if (!restartable(i, succeeded)) {
        end(i, succeeded, succeeded ? "Completed" : special != NULL ? special : "Error", message);
        return;
    }
    i->restarts++;
    agent_record_remove(i);
    backoff(i);
    const char *reason = special != NULL                            ? special
                         : i->failures >= AGENT_CRASH_LOOP_RESTARTS ? "CrashLoopBackOff"
                                                                    : "Restarting";
    tell(i, "Starting", reason, message);
}

void agent_instance_exited(void *ctx, int exit_code, int signal_number)
{
    struct agent_instance *i = ctx;
    enum agent_phase was = i->phase;
    assert(was == PHASE_RUNNING || was == PHASE_DRAINING || was == PHASE_STOPPING ||
           was == PHASE_IDLE);
    agent_probes_stop(i);
    i->admitted = i->admitted && !agent_parked(i); /* its place may be another's by now */
    agent_parking_ended(i);
    struct at_cgroup_usage usage = {0};
    i->out_of_memory = signal_number == SIGKILL &&
                       i->driver->ops->usage(i->task, &usage) == AT_OK && usage.oom_kills > 0;
    i->driver->ops->release(i->task);
    i->task = NULL;
    i->exit_code = signal_number > 0 ? 128 + signal_number : exit_code;
    if (i->orphan) { /* adopted, and over before the server could say what it wants of it */
        set_phase(i, PHASE_STOPPING);
        set_phase(i, PHASE_IDLE);
        i->pid = 0;
        step(i);
        return;
    }
    if (was == PHASE_RUNNING && i->wanted && !i->agent->stopping) {
        exited_by_itself(i, exit_code, signal_number);
        return;
    }
    if (was == PHASE_RUNNING) {
        set_phase(i, PHASE_STOPPING);
    }
    if (i->restart && i->wanted && !i->agent->stopping) {
        i->restart = false;
        i->restarts++;
        i->failures++;
        i->pid = 0;
        if (was == PHASE_DRAINING) {
            set_phase(i, PHASE_IDLE);
            step(i);
            return;
        }
        backoff(i);
        tell(i, "Starting", "Unhealthy", i->message);
        return;
    }
    set_phase(i, PHASE_IDLE);
    step(i);
}

/* The one place that decides what comes next. */
static void step(struct agent_instance *i)
{
    bool stop = !i->wanted || i->agent->stopping;
    switch (i->phase) {
    case PHASE_IDLE:
        if (stop) {
            remove_now(i);
        } else if (!i->orphan) {
            begin(i);
        }
        break;
    case PHASE_RUNNING:
        if (stop || i->restart) {
            stop_running(i);
        }
        break;
    case PHASE_FETCHING: /* a model may be long in coming */
        if (stop) {
            agent_model_forget(i);
            set_phase(i, PHASE_IDLE);
            step(i);
        }
        break;
    case PHASE_BACKOFF:
        if (stop) {
            set_phase(i, PHASE_IDLE);
            step(i);
        }
        break;
    case PHASE_ENDED:
        if (stop) {
            remove_now(i);
        }
        break;
    case PHASE_DRAINING:
        if (i->agent->stopping && i->timer != 0) {
            at_loop_timer_cancel(i->agent->loop, i->timer);
            drain_over(i);
        }
        break;
    default: /* an answer is awaited: its callback comes back here */
        break;
    }
}

/* --- what is asked of us --- */

static bool object_take(struct agent_instance *i, json_t *object)
{
    struct at_arena *arena = at_arena_new(0);
    struct at_instance *typed = at_arena_alloc(arena, sizeof *typed);
    struct at_err err = {0};
    json_t *copy = json_deep_copy(object);
    /* A stored object has its defaults already; one from an older server may lack new ones. */
    if (typed == NULL || at_model_default(&AT_KIND_INSTANCE, copy, &err) != AT_OK ||
        at_model_decode(&AT_KIND_INSTANCE, copy, arena, typed, &err) != AT_OK) {
        at_log(AT_LOG_ERROR, "instance.unreadable", "%s: %s: %s", i->name, err.field, err.msg);
        json_decref(copy);
        at_arena_free(arena);
        return false;
    }
    json_decref(i->object);
    at_arena_free(i->arena);
    i->object = copy;
    i->arena = arena;
    i->typed = typed;
    return true;
}

/* First sight of an object: what it says of an earlier life is kept. */
static void history_take(struct agent_instance *i)
{
    const struct at_instance_status *s = &i->typed->status;
    if (i->task == NULL) {
        i->restarts = s->restarts;
    }
    bool ended = at_streq(s->phase, "Succeeded") || at_streq(s->phase, "Failed");
    if (ended && i->phase == PHASE_IDLE) {
        i->status_phase = at_streq(s->phase, "Succeeded") ? "Succeeded" : "Failed";
        i->exit_code = s->exit_code;
        i->started_wall_ns = s->started_at_wall_ns;
        i->finished_wall_ns = s->finished_at_wall_ns;
        snprintf(i->reason, sizeof i->reason, "%s", s->reason != NULL ? s->reason : "");
        snprintf(i->message, sizeof i->message, "%s", s->message != NULL ? s->message : "");
        set_phase(i, PHASE_ENDED);
        return;
    }
    /* It ran when this agent was last alive, which the server need not have heard, and does not any
     * more: a Never instance may not run twice. */
    if ((i->lost || at_streq(s->phase, "Running")) && i->phase == PHASE_IDLE &&
        at_streq(i->typed->spec.restart_policy, "Never") && i->wanted) {
        i->exit_code = -1;
        end(i, false, "Lost", "ended while the agent was away, exit status unknown");
    }
}

void agent_instance_apply(struct at_agent *a, json_t *object, bool deleted)
{
    const char *uid = at_json_str_at(object, "metadata.uid", "");
    struct agent_instance *i = at_map_get(a->instances, uid);
    bool first = i == NULL || i->orphan;
    if (a->stopping) {
        return;
    }
    if (deleted) {
        if (i == NULL) {
            return;
        }
        i->wanted = false;
        json_decref(i->object); /* nobody to report to any more */
        i->object = NULL;
        i->orphan = false;
        if (i->phase == PHASE_REMOVED) {
            agent_instance_forget(i);
        } else {
            step(i);
        }
        return;
    }
    if (i == NULL) {
        i = instance_new(a, uid, at_json_str_at(object, "metadata.namespace", ""),
                         at_json_str_at(object, "metadata.name", ""));
    }
    if (!object_take(i, object)) {
        return;
    }
    i->orphan = false;
    i->wanted = i->typed->meta.deletion_wall_ns == 0 && i->phase != PHASE_REMOVED;
    agent_model_prefetch(i);
    struct at_err err = {0};
    /* A share that changed holds for what runs already. */
    if (i->task != NULL && agent_share_apply(i, &err) != AT_OK) {
        at_log(AT_LOG_ERROR, "share.change", "%s/%s: %s", i->ns, i->name, err.msg);
    }
    if (i->task != NULL && !first && i->typed->status.network != NULL) {
        agent_report(i); /* policies may have changed what can be said of it */
    }
    if (first) {
        history_take(i);
        if (i->phase == PHASE_RUNNING) { /* adopted */
            tell(i, "Running", "", "");
            if (i->wanted && !agent_parking_away(i)) {
                agent_probes_start(i);
            }
        }
    }
    if (i->task != NULL && i->wanted) {
        agent_parking_apply(i);
    }
    step(i);
}

/* --- over restarts of the agent --- */

static void adopt(struct at_agent *a, const json_t *record)
{
    const char *uid = at_json_str_at(record, "uid", NULL);
    const char *driver = at_json_str_at(record, "driver", "");
    const json_t *task = json_object_get(record, "task");
    struct agent_instance *i = instance_new(a, uid, at_json_str_at(record, "namespace", ""),
                                            at_json_str_at(record, "name", ""));
    i->orphan = true;
    i->wanted = true; /* until the first list says otherwise */
    for (size_t n = 0; n < a->n_drivers; n++) {
        if (a->drivers[n].rt != NULL && at_streq(a->drivers[n].ops->name, driver)) {
            i->driver = &a->drivers[n];
        }
    }
    struct at_err err = {0};
    if (i->driver == NULL) {
        return;
    }
    if (task == NULL || i->driver->ops->adopt(i->driver->rt, task, agent_instance_exited, i,
                                              &i->task, &i->pid, &err) != AT_OK) {
        i->task = NULL;
        i->lost = true;
        i->driver->ops->sweep(i->driver->rt, a->name, uid);
        agent_record_remove(i);
        return;
    }
    i->endpoint = at_strdup(at_json_str_at(record, "endpoint", NULL));
    i->local_endpoint = at_strdup(at_json_str_at(record, "localEndpoint", NULL));
    i->port = (int)at_json_int_at(record, "port", 0);
    i->isolation = at_strdup(at_json_str_at(record, "isolation", NULL));
    agent_model_load(i, record);
    agent_parking_load(i, record);
    i->restarts = at_json_int_at(record, "restarts", 0);
    i->started_wall_ns = at_json_int_at(record, "startedWallNs", 0);
    i->running_since_ns = at_loop_now_ns(a->loop);
    i->status_phase = "Running";
    set_phase(i, PHASE_RUNNING);
    at_log(AT_LOG_INFO, "instance.adopted", "%s/%s, process %d", i->ns, i->name, i->pid);
}

void agent_instances_load(struct at_agent *a)
{
    if (a->loaded) {
        return;
    }
    a->loaded = true;
    AT_CLEANUP(at_cleanup_free) char *groups = at_asprintf("atoll/%s", a->name);
    at_cgroup_sweep(groups);
    AT_CLEANUP(at_cleanup_free) char *dir = at_asprintf("%s/records", a->state_dir);
    char **names = NULL;
    size_t n = 0;
    struct at_err err = {0};
    if (at_dir_list(dir, &names, &n, &err) != AT_OK) {
        at_log(AT_LOG_ERROR, "record.list", "%s", err.msg);
        return;
    }
    for (size_t k = 0; k < n; k++) {
        AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", dir, names[k]);
        size_t len = strlen(names[k]);
        if (len < 5 || strcmp(names[k] + len - 5, ".json") != 0) {
            /* Left by an agent that was killed while writing: the same task a second time. */
            if (at_file_remove(path, &err) != AT_OK) {
                at_log(AT_LOG_WARN, "record.remove", "%s", err.msg);
            }
            at_free(names[k]);
            continue;
        }
        AT_CLEANUP(at_cleanup_json) json_t *record = agent_record_read(path);
        if (record != NULL && at_json_str_at(record, "uid", NULL) != NULL) {
            adopt(a, record);
        }
        at_free(names[k]);
    }
    at_free(names);
}

/* A copy of the instances, as steps may remove them from the map. own: caller at_free. */
static struct agent_instance **instances_all(struct at_agent *a, size_t *ret_n)
{
    size_t n = 0;
    struct agent_instance **all =
        at_alloc((at_map_count(a->instances) + 1) * sizeof(struct agent_instance *));
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        all[n++] = value;
    }
    *ret_n = n;
    return all;
}

void agent_instances_synced(struct at_agent *a)
{
    size_t n = 0;
    struct agent_instance **all = instances_all(a, &n);
    a->synced = true;
    for (size_t k = 0; k < n; k++) {
        if (all[k]->orphan) {
            at_log(AT_LOG_INFO, "instance.orphan", "%s/%s is no longer wanted", all[k]->ns,
                   all[k]->name);
            all[k]->orphan = false;
            all[k]->wanted = false;
            step(all[k]);
        }
    }
    at_free(all);
}

void agent_instances_stop(struct at_agent *a)
{
    size_t n = 0;
    struct agent_instance **all = instances_all(a, &n);
    for (size_t k = 0; k < n; k++) {
        struct agent_instance *i = all[k];
        if (i->phase == PHASE_REMOVED) {
            agent_instance_free(i);
        } else {
            step(i);
        }
    }
    at_free(all);
}
