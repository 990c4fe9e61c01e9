/* The GPUs of this machine: which have failed, and how they are shared. A GPU that fails is told to
 * the scheduler in the Node's status, and what runs on it ends: nothing else could come of it. */
#include "agent/agent_priv.h"
#include "agent/gpu.h"

#include "core/log.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char *const MODES[] = {"Share", "TimeSlices", "MPS", "Exclusive"};

const char *agent_gpu_mode_name(enum agent_gpu_mode mode)
{
    return MODES[mode];
}

enum agent_gpu_mode agent_gpu_mode_named(const char *name, enum agent_gpu_mode otherwise)
{
    for (size_t k = 0; k < AT_ARRAY_LEN(MODES); k++) {
        if (strcmp(name, MODES[k]) == 0) {
            return (enum agent_gpu_mode)k;
        }
    }
    return otherwise;
}

/* MIG is a kind of device, not a way to share one: parts of it are shared as whole ones are. */
enum agent_gpu_mode agent_gpu_mode(const struct agent_instance *i)
{
    const struct at_gpu_sharing *how = i->typed->spec.gpu_sharing;
    const char *of_node = i->agent->gpu_sharing != NULL ? i->agent->gpu_sharing : "";
    const char *own = how != NULL && how->mode != NULL ? how->mode : "";
    const char *mode = own[0] != '\0' && strcmp(own, "MIG") != 0 ? own : of_node;
    return agent_gpu_mode_named(mode, AGENT_GPU_SHARE);
}

static const char *fault_of(const struct at_gpu_fault *faults, size_t n, const char *id)
{
    for (size_t k = 0; k < n; k++) {
        if (at_streq(faults[k].id, id)) {
            return faults[k].why;
        }
    }
    return NULL;
}

/* Put in what is known now; true: that is another word than before. */
static bool note(json_t *gpus, const struct at_gpu_fault *faults, size_t n)
{
    size_t k;
    json_t *gpu;
    bool changed = false;
    json_array_foreach(gpus, k, gpu)
    {
        const char *id = at_json_str_at(gpu, "id", "");
        const char *was = at_json_str_at(gpu, "fault", NULL), *now = fault_of(faults, n, id);
        if (was == now || (was != NULL && now != NULL && strcmp(was, now) == 0)) {
            continue;
        }
        changed = true;
        if (now != NULL) {
            json_object_set_new(gpu, "fault", json_string(now));
            at_log_kv(AT_LOG_ERROR, "gpu.failed", (struct at_log_kv[]){{"gpu", id}, {0}}, "%s",
                      now);
        } else {
            json_object_del(gpu, "fault");
            at_log_kv(AT_LOG_INFO, "gpu.back", (struct at_log_kv[]){{"gpu", id}, {0}},
                      "its driver answers for it again");
        }
    }
    return changed;
}

static void on_told(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)ctx;
    (void)status;
    (void)body;
    if (rc != AT_OK) {
        at_log(AT_LOG_WARN, "gpu.untold", "which GPUs have failed: %s", err->msg);
    }
}

static void send(struct at_agent *a)
{
    if (a->client == NULL) {
        return; /* not joined yet: the whole status follows */
    }
    json_t *patch = json_pack("{s:{s:O}}", "status", "gpus", a->gpus);
    at_client_patch(a->client, &AT_KIND_NODE, NULL, a->name, "status", patch, on_told, a);
    json_decref(patch);
}

static const json_t *gpu_of(const struct at_agent *a, const char *id);

/* Not found by the last inventory: taken out, or a part that MIG does not make any more. */
static bool is_gone(const struct agent_instance *i, char *why, size_t why_size)
{
    for (size_t n = 0; i->agent->gpus != NULL && n < i->typed->status.gpus.n; n++) {
        const char *id = i->typed->status.gpus.items[n].id;
        if (at_share_is_enforceable(id) && gpu_of(i->agent, id) == NULL) {
            snprintf(why, why_size, "its GPU %s is not on this machine any more", id);
            return true;
        }
    }
    return false;
}

bool agent_gpus_lost(const struct agent_instance *i, char *why, size_t why_size)
{
    if (is_gone(i, why, why_size)) {
        return true;
    }
    size_t k;
    json_t *gpu;
    json_array_foreach(i->agent->gpus, k, gpu)
    {
        const char *fault = at_json_str_at(gpu, "fault", NULL), *id = at_json_str_at(gpu, "id", "");
        for (size_t n = 0; fault != NULL && n < i->typed->status.gpus.n; n++) {
            if (at_streq(i->typed->status.gpus.items[n].id, id)) {
                snprintf(why, why_size, "its GPU %s has failed: %s", id, fault);
                return true;
            }
        }
    }
    return false;
}

static void end_what_runs_there(struct at_agent *a)
{
    const char *uid;
    void *value;
    char why[256];
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        struct agent_instance *i = value;
        if (i->task != NULL && i->typed != NULL && !i->gpu_lost &&
            agent_gpus_lost(i, why, sizeof why)) {
            at_log_kv(AT_LOG_WARN, "gpu.lost", (struct at_log_kv[]){{"instance", i->name}, {0}},
                      "%s", why);
            i->gpu_lost = true;
            i->driver->ops->signal(i->task, SIGKILL);
        }
    }
}

void agent_gpus_failed(struct at_agent *a, const struct at_gpu_fault *faults, size_t n)
{
    if (a->gpus != NULL && note(a->gpus, faults, n)) {
        send(a);
    }
    end_what_runs_there(a);
}

void agent_gpus_learn(struct at_agent *a, json_t *status)
{
    json_t *now = json_object_get(status, "gpus");
    size_t k;
    json_t *gpu;
    bool enforceable = false;
    json_array_foreach(now, k, gpu)
    {
        const char *id = at_json_str_at(gpu, "id", "");
        enforceable = enforceable || at_share_is_enforceable(id);
        for (size_t n = 0; n < json_array_size(a->gpus); n++) {
            const json_t *before = json_array_get(a->gpus, n);
            json_t *fault = json_object_get(before, "fault");
            if (fault != NULL && strcmp(at_json_str_at(before, "id", ""), id) == 0) {
                json_object_set(gpu, "fault", fault);
            }
        }
    }
    json_decref(a->gpus);
    a->gpus = json_deep_copy(now);
    if (enforceable) {
        agent_shares_watch(a);
    }
}

static const json_t *gpu_of(const struct at_agent *a, const char *id)
{
    for (size_t k = 0; id != NULL && k < json_array_size(a->gpus); k++) {
        if (at_streq(at_json_str_at(json_array_get(a->gpus, k), "id", ""), id)) {
            return json_array_get(a->gpus, k);
        }
    }
    return NULL;
}

const char *agent_gpu_vendor(const struct at_agent *a, const char *id)
{
    return at_json_str_at(gpu_of(a, id), "vendor", "");
}

void agent_gpu_view_make(const struct agent_instance *i, struct agent_gpu_view *ret)
{
    const char *own[AGENT_BINDS_MAX];
    size_t n = 0;
    *ret = (struct agent_gpu_view){0};
    for (size_t k = 0; k < i->typed->status.gpus.n && n < AGENT_BINDS_MAX; k++) {
        const char *id = i->typed->status.gpus.items[k].id;
        const char *whole = at_json_str_at(gpu_of(i->agent, id), "parent", id);
        if (at_share_is_enforceable(whole)) {
            own[n++] = whole;
        }
    }
    const struct at_process_bind *b = agent_share_binds(i);
    for (; b != NULL && b->source != NULL && ret->n < AGENT_BINDS_MAX; b++) {
        ret->binds[ret->n++] = *b;
    }
    char *hidden[AT_GPU_FILES_MAX];
    size_t n_hidden = at_gpu_files_of_others(AT_GPU_PROC_DIR, "/dev", own, n, hidden);
    for (size_t k = 0; k < n_hidden; k++) {
        if (ret->n == AGENT_BINDS_MAX) {
            at_free(hidden[k]);
            continue;
        }
        ret->hidden[ret->n_hidden++] = hidden[k];
        ret->binds[ret->n++] = (struct at_process_bind){.source = "/dev/null", .target = hidden[k]};
    }
}

void agent_gpu_view_done(struct agent_gpu_view *view)
{
    for (size_t k = 0; k < view->n_hidden; k++) {
        at_free(view->hidden[k]);
    }
}

/* --- how the ways to share them fare --- */

json_t *agent_gpu_modes(struct at_agent *a)
{
    json_t *list = json_array();
    json_t *mps = agent_mps_mode(a);
    if (mps != NULL) {
        json_array_append_new(list, mps);
    }
    json_t *mig = agent_mig_mode(a);
    if (mig != NULL) {
        json_array_append_new(list, mig);
    }
    return list;
}

void agent_gpu_modes_tell(struct at_agent *a)
{
    AT_CLEANUP(at_cleanup_json) json_t *now = agent_gpu_modes(a);
    bool news = a->gpu_modes == NULL ? json_array_size(now) > 0 : !json_equal(now, a->gpu_modes);
    if (a->client == NULL || a->gpus == NULL || !news) {
        return; /* the whole status follows, or nothing is new */
    }
    json_decref(a->gpu_modes);
    a->gpu_modes = json_incref(now);
    json_t *patch = json_pack("{s:{s:O}}", "status", "gpuModes", now);
    at_client_patch(a->client, &AT_KIND_NODE, NULL, a->name, "status", patch, on_told, a);
    json_decref(patch);
}

void agent_gpus_want(struct at_agent *a, const char *sharing, const json_t *parts)
{
    agent_mig_want(a, parts);
    if (!at_streq(a->gpu_sharing != NULL ? a->gpu_sharing : "", sharing)) {
        at_free(a->gpu_sharing);
        a->gpu_sharing = at_strdup(sharing);
    }
    agent_gpu_modes_tell(a);
}

void agent_gpus_done(struct at_agent *a)
{
    agent_mig_done(a);
    json_decref(a->gpu_modes);
    a->gpu_modes = NULL;
    json_decref(a->gpus);
    a->gpus = NULL;
    at_free(a->gpu_sharing);
    a->gpu_sharing = NULL;
}
