/* Parts of GPUs that the Node's spec wants, made by MIG whenever nothing runs on a GPU. What there
 * is, is looked at again and again, so that an agent that was killed half-way goes on from there.
 */
#include "devices/mig.h"
#include "agent/agent_priv.h"
#include "agent/gpu.h"

#include "core/log.h"

#include <stdio.h>
#include <string.h>

struct mig_job {
    struct at_agent *agent; /* NULL: it went away meanwhile */
    json_t *parts;          /* that the wants point into */
    struct at_mig_want wants[AGENT_MIG_GPUS_MAX];
    size_t n_wants;
    char *busy[AGENT_MIG_BUSY_MAX];
    size_t n_busy;
    struct at_mig_result result;
};

static void job_free(struct mig_job *job)
{
    for (size_t k = 0; k < job->n_busy; k++) {
        at_free(job->busy[k]);
    }
    json_decref(job->parts);
    at_free(job);
}

static void job_work(void *ctx)
{
    struct mig_job *job = ctx;
    at_mig_converge(NULL, job->wants, job->n_wants, (const char *const *)job->busy, job->n_busy,
                    &job->result);
}

static void job_done(void *ctx)
{
    struct mig_job *job = ctx;
    struct at_agent *a = job->agent;
    if (a == NULL) {
        job_free(job);
        return;
    }
    const struct at_mig_result *r = &job->result;
    bool news = (int)r->state != a->mig_state || strcmp(r->message, a->mig_message) != 0;
    if (news || r->changed) {
        at_log(r->state == AT_MIG_REFUSED ? AT_LOG_ERROR : AT_LOG_INFO, "mig.parts", "%s",
               r->state == AT_MIG_AS_WANTED ? "all GPUs are divided as wanted" : r->message);
    }
    a->mig_job = NULL;
    a->mig_state = (int)r->state;
    a->mig_known = true;
    snprintf(a->mig_message, sizeof a->mig_message, "%s", r->message);
    a->mig_next_ns = at_loop_now_ns(a->loop) + (r->state == AT_MIG_BUSY      ? AGENT_MIG_BUSY_NS
                                                : r->state == AT_MIG_REFUSED ? AGENT_MIG_AGAIN_NS
                                                                             : AGENT_MIG_LOOK_NS);
    if (r->changed) {
        agent_node_tell(a);
    } else {
        agent_gpu_modes_tell(a);
    }
    job_free(job);
}

/* Strings of parts are borrowed by job, which holds it. */
static void take_wants(struct mig_job *job)
{
    size_t k, p;
    json_t *one, *profile;
    json_array_foreach(job->parts, k, one)
    {
        if (job->n_wants == AGENT_MIG_GPUS_MAX) {
            return;
        }
        struct at_mig_want *want = &job->wants[job->n_wants++];
        want->gpu = at_json_str_at(one, "gpu", "");
        json_array_foreach(json_object_get(one, "profiles"), p, profile)
        {
            if (want->n < AT_MIG_PARTS_MAX && json_is_string(profile)) {
                want->profiles[want->n++] = json_string_value(profile);
            }
        }
    }
}

/* GPUs that instances have, be it that they only begin or are about to end. False: too many. */
static bool take_busy(struct at_agent *a, struct mig_job *job)
{
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        const struct agent_instance *i = value;
        bool over = i->phase == PHASE_ENDED || i->phase == PHASE_REMOVED;
        for (size_t k = 0; !over && i->typed != NULL && k < i->typed->status.gpus.n; k++) {
            const char *id = i->typed->status.gpus.items[k].id;
            if (id != NULL && job->n_busy == AGENT_MIG_BUSY_MAX) {
                return false;
            }
            if (id != NULL) {
                job->busy[job->n_busy++] = at_strdup(id);
            }
        }
    }
    return true;
}

void agent_mig_tick(struct at_agent *a)
{
    bool due = at_loop_now_ns(a->loop) >= a->mig_next_ns;
    if (!a->synced || a->gpus == NULL || a->mig_job != NULL || !due ||
        json_array_size(a->gpu_parts) == 0) {
        return;
    }
    struct mig_job *job = AT_NEW(struct mig_job);
    job->agent = a;
    job->parts = json_deep_copy(a->gpu_parts);
    take_wants(job);
    if (!take_busy(a, job) || at_pool_submit(a->pool, a->loop, job_work, job_done, job) != AT_OK) {
        job_free(job);
        return;
    }
    a->mig_job = job;
}

void agent_mig_want(struct at_agent *a, const json_t *parts)
{
    if (a->gpu_parts != NULL && parts != NULL && json_equal(a->gpu_parts, parts)) {
        return;
    }
    json_decref(a->gpu_parts);
    a->gpu_parts = json_deep_copy(parts);
    a->mig_next_ns = 0;
    a->mig_known = false;
    if (json_array_size(parts) > 0) {
        agent_shares_watch(a);
    }
}

json_t *agent_mig_mode(const struct at_agent *a)
{
    static const char *const REASONS[] = {"Ready", "Busy", "NeedsReset", "Refused"};
    if (json_array_size(a->gpu_parts) == 0 || !a->mig_known) {
        return NULL;
    }
    return json_pack("{s:s, s:b, s:s, s:s}", "name", "MIG", "ready",
                     a->mig_state == AT_MIG_AS_WANTED, "reason", REASONS[a->mig_state], "message",
                     a->mig_message);
}

void agent_mig_done(struct at_agent *a)
{
    if (a->mig_job != NULL) {
        a->mig_job->agent = NULL;
    }
    json_decref(a->gpu_parts);
    a->gpu_parts = NULL;
}
