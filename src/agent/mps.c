/* GPUs that are shared by NVIDIA's Multi-Process Service: one service for each GPU that has
 * instances of mode MPS, started before the first of them and ended after the last. It outlives the
 * agent, as they do; an agent that comes back finds it by its folder. What takes long (its
 * program's answers) is done in the pool, one job at a time for each service. */
#include "devices/mps.h"
#include "agent/agent_priv.h"
#include "agent/gpu.h"

#include "core/log.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

enum mps_state { MPS_STARTING, MPS_UP, MPS_LIMITING, MPS_STOPPING };

struct mps_service {
    struct agent_mps *mps;
    char *gpu, *dir, *pipe;
    enum mps_state state;
    int64_t percent, memory_bytes; /* in force, or about to be */
    struct mps_job *job;           /* NULL: none under way */
    unsigned deaths;
    int64_t up_since_ns;
};

struct agent_mps {
    struct at_agent *agent;
    struct at_map *services;     /* GPU's id -> struct mps_service */
    bool swept;                  /* services of an earlier agent are known */
    int64_t found_ns, failed_ns; /* when it was looked for its program; when it did not start */
    char lacks[256];             /* why it does not work; "": it does */
    bool is_missing;             /* because there is no program */
};

struct mps_job {
    struct mps_service *service; /* NULL: the agent went away meanwhile */
    enum mps_state what;
    char *control, *dir, *gpu;
    int64_t percent, memory_bytes;
    enum at_rc rc;
    struct at_err err;
};

static struct agent_mps *mps_of(struct at_agent *a)
{
    if (a->mps == NULL) {
        a->mps = AT_NEW(struct agent_mps);
        a->mps->agent = a;
        a->mps->services = at_map_new();
    }
    return a->mps;
}

/* --- who uses a GPU in this way --- */

/* The most that one of them may have, which is what the service lets through. */
struct mps_users {
    size_t n;
    int64_t percent, memory_bytes;
};

static struct mps_users users_of(const struct at_agent *a, const char *gpu)
{
    struct mps_users u = {0};
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        const struct agent_instance *i = value;
        const char *own;
        int64_t milli, memory;
        if ((i->task == NULL && i->phase != PHASE_STARTING) || i->typed == NULL ||
            !agent_share_of_mps(i, &own, &milli, &memory) || strcmp(own, gpu) != 0) {
            continue;
        }
        int64_t percent = agent_mps_percent(milli);
        u.n++;
        u.percent = percent > u.percent ? percent : u.percent;
        u.memory_bytes = memory > u.memory_bytes ? memory : u.memory_bytes;
    }
    return u;
}

/* An instance that runs on it and is no client. */
static const struct agent_instance *other_on(const struct agent_instance *than, const char *gpu)
{
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(than->agent->instances, &it, &uid, &value);) {
        const struct agent_instance *i = value;
        for (size_t k = 0;
             i != than && i->task != NULL && i->typed != NULL && k < i->typed->status.gpus.n; k++) {
            bool client = i->share != NULL && agent_share_mode(i) == AGENT_GPU_MPS;
            if (!client && at_streq(i->typed->status.gpus.items[k].id, gpu)) {
                return i;
            }
        }
    }
    return NULL;
}

/* --- jobs --- */

static void service_free(struct mps_service *s)
{
    at_free(s->gpu);
    at_free(s->dir);
    at_free(s->pipe);
    at_free(s);
}

static void job_free(struct mps_job *job)
{
    at_free(job->control);
    at_free(job->dir);
    at_free(job->gpu);
    at_free(job);
}

static void job_work(void *ctx)
{
    struct mps_job *job = ctx;
    struct at_mps_service mps = {.control = job->control,
                                 .dir = job->dir,
                                 .gpu = job->gpu,
                                 .percent = job->percent,
                                 .memory_bytes = job->memory_bytes};
    job->rc = job->what == MPS_STOPPING   ? at_mps_stop(&mps, &job->err)
              : job->what == MPS_LIMITING ? at_mps_limit(&mps, &job->err)
                                          : at_mps_start(&mps, &job->err);
}

/* Those that waited for the service, by their uids: what happens to one may end another. */
static void resume(struct at_agent *a, const char *gpu, enum at_rc rc, const struct at_err *why)
{
    size_t n = 0;
    char **uids = at_alloc((at_map_count(a->instances) + 1) * sizeof *uids);
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        const struct agent_instance *i = value;
        for (size_t k = 0; i->mps_waits && k < i->typed->status.gpus.n; k++) {
            if (at_streq(i->typed->status.gpus.items[k].id, gpu)) {
                uids[n++] = at_strdup(uid);
                break;
            }
        }
    }
    for (size_t k = 0; k < n; k++) {
        struct agent_instance *i = at_map_get(a->instances, uids[k]);
        if (i != NULL && i->mps_waits) {
            i->mps_waits = false;
            if (i->phase == PHASE_STARTING && rc == AT_OK) {
                agent_launch_start(i);
            } else if (i->phase == PHASE_STARTING) {
                agent_instance_failed_start(i, "GPUSharingUnavailable", why);
            }
        }
        at_free(uids[k]);
    }
    at_free(uids);
}

static void take_failure(struct mps_service *s, const struct at_err *err)
{
    struct agent_mps *m = s->mps;
    at_log_kv(AT_LOG_ERROR, "mps.failed", (struct at_log_kv[]){{"gpu", s->gpu}, {0}}, "%s",
              err->msg);
    snprintf(m->lacks, sizeof m->lacks, "%s", err->msg);
    m->is_missing = err->rc == AT_NOT_FOUND;
    m->failed_ns = at_loop_now_ns(m->agent->loop);
    agent_gpu_modes_tell(m->agent);
}

static void job_done(void *ctx)
{
    struct mps_job *job = ctx;
    struct mps_service *s = job->service;
    if (s == NULL) {
        job_free(job);
        return;
    }
    struct at_agent *a = s->mps->agent;
    enum at_rc rc = job->rc;
    struct at_err err = job->err;
    AT_CLEANUP(at_cleanup_free) char *gpu = at_strdup(s->gpu);
    s->job = NULL;
    if (job->what == MPS_STOPPING || rc != AT_OK) {
        if (rc != AT_OK) {
            take_failure(s, &err);
        } else {
            at_log_kv(AT_LOG_INFO, "mps.stopped", (struct at_log_kv[]){{"gpu", gpu}, {0}},
                      "nobody uses it any more");
        }
        at_map_remove(s->mps->services, gpu);
        service_free(s);
        rc = job->what == MPS_STOPPING ? AT_OK : rc; /* a new one is made then, or says why not */
    } else {
        s->state = MPS_UP;
        s->up_since_ns = at_loop_now_ns(a->loop);
        if (job->what == MPS_STARTING) {
            at_log_kv(AT_LOG_INFO, "mps.started", (struct at_log_kv[]){{"gpu", gpu}, {0}},
                      "%d %% and %lld MiB for a client at most", (int)s->percent,
                      (long long)(s->memory_bytes >> 20));
        }
    }
    job_free(job);
    resume(a, gpu, rc, &err);
}

/* err: AT_NOT_FOUND no program; AT_EXHAUSTED the pool is full. */
static enum at_rc begin(struct mps_service *s, enum mps_state what, struct at_err *err)
{
    struct at_agent *a = s->mps->agent;
    char *control = NULL;
    enum at_rc rc = at_mps_find(a->mps_control, &control, err);
    if (rc != AT_OK && what != MPS_STOPPING) {
        return rc;
    }
    struct mps_job *job = AT_NEW(struct mps_job);
    job->service = s;
    job->what = what;
    job->control = control != NULL ? control : at_strdup("/nonexistent"); /* to be ended by force */
    job->dir = at_strdup(s->dir);
    job->gpu = at_strdup(s->gpu);
    job->percent = s->percent;
    job->memory_bytes = s->memory_bytes;
    if (at_pool_submit(a->pool, a->loop, job_work, job_done, job) != AT_OK) {
        job_free(job);
        return at_err_set(err, AT_EXHAUSTED, "too much is under way");
    }
    s->job = job;
    s->state = what;
    return AT_OK;
}

static struct mps_service *service_new(struct agent_mps *m, const char *gpu)
{
    struct mps_service *s = AT_NEW(struct mps_service);
    char hex[AT_SHA256_HEX_BYTES];
    at_sha256_hex(gpu, strlen(gpu), hex);
    s->mps = m;
    s->gpu = at_strdup(gpu);
    s->dir = at_asprintf("%s/mps/%.8s", m->agent->state_dir, hex);
    s->pipe = at_asprintf("%s/" AT_MPS_PIPE_NAME, s->dir);
    at_map_put(m->services, gpu, s);
    return s;
}

/* --- starting --- */

/* One user for all clients of a GPU: NVIDIA's service takes those of another one only when the
 * first have ended. */
static int64_t user_of(const struct agent_instance *i)
{
    return i->typed->spec.user > 0 ? i->typed->spec.user : -1;
}

static enum at_rc check_neighbours(const struct agent_instance *i, const char *gpu,
                                   struct at_err *err)
{
    const struct agent_instance *other = other_on(i, gpu);
    if (other != NULL) {
        return at_err_set(err, AT_CONFLICT, "%s/%s still uses GPU %s in another way than by MPS",
                          other->ns, other->name, gpu);
    }
    const char *uid, *own;
    void *value;
    int64_t milli, memory;
    for (size_t it = 0; at_map_next(i->agent->instances, &it, &uid, &value);) {
        const struct agent_instance *o = value;
        if (o != i && o->task != NULL && o->typed != NULL &&
            agent_share_of_mps(o, &own, &milli, &memory) && strcmp(own, gpu) == 0 &&
            user_of(o) != user_of(i)) {
            return at_err_set(err, AT_CONFLICT,
                              "MPS serves one user at a time, and %s/%s on GPU %s runs as another "
                              "one: give both the same spec.user",
                              o->ns, o->name, gpu);
        }
    }
    return AT_OK;
}

/* An instance that is no client: the service that keeps others out must be gone. */
static enum at_rc admit_other(struct agent_instance *i, struct at_err *err)
{
    for (size_t k = 0; k < i->typed->status.gpus.n; k++) {
        const char *gpu = i->typed->status.gpus.items[k].id;
        struct mps_service *s = gpu != NULL ? at_map_get(i->agent->mps->services, gpu) : NULL;
        if (s == NULL) {
            continue;
        }
        if (users_of(i->agent, gpu).n > 0) {
            return at_err_set(err, AT_CONFLICT, "GPU %s is still shared by MPS", gpu);
        }
        if (s->job == NULL) {
            enum at_rc rc = begin(s, MPS_STOPPING, err);
            if (rc != AT_OK) {
                return rc;
            }
        }
        i->mps_waits = true;
        return AT_AGAIN;
    }
    return AT_OK;
}

enum at_rc agent_mps_admit(struct agent_instance *i, struct at_err *err)
{
    const char *gpu;
    int64_t milli, memory;
    if (!agent_share_of_mps(i, &gpu, &milli, &memory)) {
        return i->agent->mps != NULL ? admit_other(i, err) : AT_OK;
    }
    if (i->driver != NULL && !at_streq(i->driver->ops->name, "process")) {
        return at_err_set(
            err, AT_UNSUPPORTED,
            "images are no clients of MPS yet: run it as a process, or on a node that "
            "shares its GPUs in another way");
    }
    struct agent_mps *m = mps_of(i->agent);
    enum at_rc rc = check_neighbours(i, gpu, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct mps_service *s = at_map_get(m->services, gpu);
    struct mps_users users = users_of(i->agent, gpu);
    bool is_new = s == NULL, lives = !is_new && at_mps_is_alive(s->dir);
    if (lives && s->state == MPS_UP && s->percent == users.percent &&
        s->memory_bytes == users.memory_bytes) {
        return agent_share_set_mps(i, s->pipe, err);
    }
    s = is_new ? service_new(m, gpu) : s;
    if (s->job == NULL) {
        s->percent = users.percent;
        s->memory_bytes = users.memory_bytes;
        rc = begin(s, lives ? MPS_LIMITING : MPS_STARTING, err);
        if (rc != AT_OK) {
            take_failure(s, err);
        }
    }
    if (rc != AT_OK && is_new) {
        at_map_remove(m->services, gpu);
        service_free(s);
    }
    i->mps_waits = rc == AT_OK;
    return rc == AT_OK ? AT_AGAIN : rc;
}

const char *agent_mps_pipe(const struct agent_instance *i)
{
    const char *gpu;
    int64_t milli, memory;
    const struct agent_mps *m = i->agent->mps;
    if (m == NULL || !agent_share_of_mps(i, &gpu, &milli, &memory)) {
        return NULL;
    }
    const struct mps_service *s = at_map_get(m->services, gpu);
    return s != NULL ? s->pipe : NULL;
}

/* --- looking after them --- */

/* Services that an earlier agent left; what is wrong with one shows the next look. */
static void sweep(struct agent_mps *m)
{
    AT_CLEANUP(at_cleanup_free) char *dir = at_asprintf("%s/mps", m->agent->state_dir);
    char **names = NULL;
    size_t n = 0;
    m->swept = true;
    if (at_dir_list(dir, &names, &n, NULL) != AT_OK) {
        return;
    }
    for (size_t k = 0; k < n; k++) {
        AT_CLEANUP(at_cleanup_free) char *one = at_asprintf("%s/%s", dir, names[k]);
        AT_CLEANUP(at_cleanup_free) char *gpu = at_mps_gpu_of(one);
        if (gpu != NULL && at_map_get(m->services, gpu) == NULL) {
            struct mps_service *s = service_new(m, gpu);
            s->state = MPS_UP;
            s->up_since_ns = at_loop_now_ns(m->agent->loop);
        }
        at_free(names[k]);
    }
    at_free(names);
}

static void look_after(struct mps_service *s)
{
    struct at_agent *a = s->mps->agent;
    struct at_err err = {0};
    struct mps_users users = users_of(a, s->gpu);
    int64_t now = at_loop_now_ns(a->loop);
    enum at_rc rc = AT_OK;
    if (s->job != NULL) {
        return;
    }
    bool limits = s->percent != users.percent || s->memory_bytes != users.memory_bytes;
    if (users.n == 0) {
        rc = begin(s, MPS_STOPPING, &err);
    } else if (!at_mps_is_alive(s->dir)) {
        bool soon = now - s->up_since_ns < AGENT_HEALTHY_NS;
        s->deaths = soon ? s->deaths + 1 : 1;
        if (s->deaths > AGENT_MPS_DEATHS_MAX && now - s->up_since_ns < AGENT_MPS_AGAIN_NS) {
            return;
        }
        at_log_kv(AT_LOG_WARN, "mps.died", (struct at_log_kv[]){{"gpu", s->gpu}, {0}},
                  "NVIDIA's service ended by itself, and is started again");
        s->percent = users.percent;
        s->memory_bytes = users.memory_bytes;
        rc = begin(s, MPS_STARTING, &err);
    } else if (limits) {
        s->percent = users.percent;
        s->memory_bytes = users.memory_bytes;
        rc = begin(s, MPS_LIMITING, &err);
    }
    if (rc != AT_OK) {
        take_failure(s, &err);
    }
}

void agent_mps_tick(struct at_agent *a)
{
    if (!a->synced) {
        return; /* who uses what is not known yet */
    }
    struct agent_mps *m = mps_of(a);
    if (!m->swept) {
        sweep(m);
    }
    const char *gpu;
    void *value;
    for (size_t it = 0; at_map_next(m->services, &it, &gpu, &value);) {
        look_after(value);
    }
    agent_gpu_modes_tell(a);
}

/* --- what is told --- */

/* Is NVIDIA's program there? Looked for seldom; a start that failed is forgotten after a while, so
 * that it is tried again. */
static void look_for_program(struct agent_mps *m)
{
    int64_t now = at_loop_now_ns(m->agent->loop);
    struct at_err err = {0};
    char *control = NULL;
    if (m->found_ns != 0 && now - m->found_ns < AGENT_MPS_FIND_NS) {
        return;
    }
    m->found_ns = now;
    if (at_mps_find(m->agent->mps_control, &control, &err) != AT_OK) {
        snprintf(m->lacks, sizeof m->lacks, "%s", err.msg);
        m->is_missing = true;
    } else if (m->is_missing || (m->failed_ns != 0 && now - m->failed_ns > AGENT_MPS_AGAIN_NS)) {
        m->is_missing = false;
        m->lacks[0] = '\0';
        m->failed_ns = 0;
    }
    at_free(control);
}

json_t *agent_mps_mode(struct at_agent *a)
{
    if (!at_streq(a->gpu_sharing, "MPS")) {
        return NULL;
    }
    struct agent_mps *m = mps_of(a);
    bool any = false;
    for (size_t k = 0; k < json_array_size(a->gpus); k++) {
        any = any || at_share_is_enforceable(at_json_str_at(json_array_get(a->gpus, k), "id", ""));
    }
    look_for_program(m);
    const char *message = any ? m->lacks : "there is no NVIDIA GPU";
    const char *reason = message[0] == '\0' ? "Ready"
                         : !any             ? "NoGPU"
                         : m->is_missing    ? "NoProgram"
                                            : "StartFailed";
    return json_pack("{s:s, s:b, s:s, s:s}", "name", "MPS", "ready", message[0] == '\0', "reason",
                     reason, "message", message);
}

/* The agent ends, and took its instances with it: nobody would do it later. */
static void end_now(const struct at_agent *a, const struct mps_service *s)
{
    AT_CLEANUP(at_cleanup_free) char *control = NULL;
    struct at_err err = {0};
    enum at_rc rc = at_mps_find(a->mps_control, &control, &err);
    struct at_mps_service mps = {.control = control, .dir = s->dir, .gpu = s->gpu};
    rc = rc == AT_OK ? at_mps_stop(&mps, &err) : rc;
    if (rc != AT_OK) {
        at_log(AT_LOG_WARN, "mps.stop", "%s", err.msg);
    }
}

void agent_mps_done(struct at_agent *a)
{
    const char *gpu;
    void *value;
    for (size_t it = 0; a->mps != NULL && at_map_next(a->mps->services, &it, &gpu, &value);) {
        struct mps_service *s = value;
        if (s->job != NULL) {
            s->job->service = NULL;
        } else if (a->stop_instances && users_of(a, gpu).n == 0) {
            end_now(a, s);
        }
        service_free(s);
    }
    if (a->mps != NULL) {
        at_map_free(a->mps->services);
        at_free(a->mps);
        a->mps = NULL;
    }
}
