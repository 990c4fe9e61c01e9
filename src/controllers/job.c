/* Job: instances until enough have succeeded; failures are tried again with a growing delay. The
 * ended instances are kept, they are the count; status never counts backwards. */
#include "controllers/controllers_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MIN_NS AT_NS_PER_S
#define RETRY_MAX_NS (300 * AT_NS_PER_S)

struct job_pass {
    struct ctl_pass *p;
    const struct at_job *job;
    const struct at_instance **active;
    int64_t n_active, succeeded, failed;
    int64_t last_failure_wall_ns;
    int64_t start_wall_ns, completion_wall_ns, retry_wall_ns;
    const char *complete, *failure; /* reason when it is finished now */
    const char *message;
};

static bool condition_true(const struct at_job *job, const char *type)
{
    for (size_t k = 0; k < job->status.conditions.n; k++) {
        const struct at_condition *c = &job->status.conditions.items[k];
        if (at_streq(c->type, type) && at_streq(c->status, "True")) {
            return true;
        }
    }
    return false;
}

static int by_least_done(const void *a, const void *b)
{
    return ctl_by_least_done(*(const struct at_instance *const *)a,
                             *(const struct at_instance *const *)b);
}

static void count(struct job_pass *j)
{
    struct ctl_owned owned = ctl_owned_by(j->p, j->job->meta.uid);
    j->active = at_arena_alloc(j->p->arena, sizeof(*j->active) * (owned.n + 1));
    assert(j->active != NULL);
    for (size_t k = 0; k < owned.n; k++) {
        const struct at_instance *i = owned.items[k];
        if (ctl_is(i->status.phase, "Succeeded")) {
            j->succeeded++;
        } else if (ctl_lost(i)) {
            continue; /* the node's failure, not the job's */
        } else if (ctl_is(i->status.phase, "Failed")) {
            int64_t at = i->status.finished_at_wall_ns;
            j->failed++;
            j->last_failure_wall_ns = at > j->last_failure_wall_ns ? at : j->last_failure_wall_ns;
        } else if (i->meta.deletion_wall_ns == 0) {
            j->active[j->n_active++] = i;
        }
    }
    if (j->job->status.succeeded > j->succeeded) {
        j->succeeded = j->job->status.succeeded;
    }
    if (j->job->status.failed > j->failed) {
        j->failed = j->job->status.failed;
    }
    qsort(j->active, (size_t)j->n_active, sizeof(*j->active), by_least_done);
}

/* Those that succeeded need nobody beside them any more. */
static void join_gang(const struct job_pass *j, json_t *copy)
{
    int64_t left = j->job->spec.completions - j->succeeded;
    int64_t size = j->job->spec.gang_size < left ? j->job->spec.gang_size : left;
    if (size > 1) {
        at_json_set_at(copy, "spec.gang.name", json_string(j->job->meta.name));
        at_json_set_at(copy, "spec.gang.size", json_integer(size));
    }
}

static void start_copies(struct job_pass *j, int64_t n)
{
    json_t *object = at_state_object(j->p->c->state, &AT_KIND_JOB, j->p->ns, j->p->name);
    const json_t *template_json = at_json_at(object, "spec.template"); /* never restarts: rules.c */
    n = n < CTL_CREATES_PER_PASS ? n : CTL_CREATES_PER_PASS;
    if (template_json != NULL) {
        const char *hash = ctl_template_hash(j->p, template_json);
        for (int64_t k = 0; k < n; k++) {
            json_t *copy = ctl_make_instance(j->p, &AT_KIND_JOB, &j->job->meta, template_json,
                                             CTL_LABEL_JOB, hash);
            join_gang(j, copy);
            ctl_create(j->p, &AT_KIND_INSTANCE, copy);
            j->n_active += j->p->c->writes_left != 0;
        }
    }
    json_decref(object);
}

static void stop_copies(struct job_pass *j, int64_t n)
{
    for (int64_t k = 0; k < n; k++) {
        ctl_delete(j->p, &AT_KIND_INSTANCE, &j->active[k]->meta);
    }
    j->n_active -= n;
}

/* How long until from + span. Once it was looked at it comes by the clock that nobody steps, and it
 * is never farther away than span. */
static int64_t left_until(const struct job_pass *j, enum ctl_moment moment, int64_t from_wall_ns,
                          int64_t span_ns)
{
    struct ctl_until *until = &j->p->item->until[moment];
    if (until->wall_ns != from_wall_ns + span_ns) {
        int64_t left = from_wall_ns + span_ns - j->p->wall_ns;
        until->wall_ns = from_wall_ns + span_ns;
        until->mono_ns = j->p->now_ns + (left < span_ns ? left : span_ns);
    }
    return until->mono_ns - j->p->now_ns;
}

/* When may the next copy start? 0: now. */
static int64_t retry_at(const struct job_pass *j)
{
    if (j->failed == 0 || j->last_failure_wall_ns == 0) {
        return 0;
    }
    int64_t shift = j->failed < 10 ? j->failed - 1 : 9;
    int64_t delay = RETRY_MIN_NS << shift;
    delay = delay < RETRY_MAX_NS ? delay : RETRY_MAX_NS;
    int64_t left = left_until(j, CTL_MOMENT_RETRY, j->last_failure_wall_ns, delay);
    return left > 0 ? j->last_failure_wall_ns + delay : 0;
}

static void check_deadline(struct job_pass *j)
{
    const struct at_job *job = j->job;
    if (job->spec.active_deadline_ns <= 0 || j->start_wall_ns == 0) {
        return;
    }
    int64_t left =
        left_until(j, CTL_MOMENT_DEADLINE, j->start_wall_ns, job->spec.active_deadline_ns);
    if (left > 0) {
        ctl_after(j->p, left);
        return;
    }
    j->failure = "DeadlineExceeded";
    j->message = "it ran longer than activeDeadline";
}

static void advance(struct job_pass *j)
{
    const struct at_job *job = j->job;
    if (j->succeeded >= job->spec.completions) {
        j->complete = "Completed";
        j->message = at_arena_printf(j->p->arena, "%lld of %lld succeeded", (long long)j->succeeded,
                                     (long long)job->spec.completions);
        stop_copies(j, j->n_active);
        return;
    }
    if (j->failed > job->spec.backoff_limit) {
        j->failure = "BackoffLimitExceeded";
        j->message = at_arena_printf(j->p->arena, "%lld copies failed, %lld allowed",
                                     (long long)j->failed, (long long)job->spec.backoff_limit);
    } else {
        check_deadline(j);
    }
    if (j->failure != NULL) {
        stop_copies(j, j->n_active);
        return;
    }
    int64_t want = job->spec.completions - j->succeeded;
    want = want < job->spec.parallelism ? want : job->spec.parallelism;
    want = job->spec.suspend ? 0 : want;
    if (want < j->n_active) {
        stop_copies(j, j->n_active - want);
    } else if (want > j->n_active) {
        j->retry_wall_ns = retry_at(j);
        if (j->retry_wall_ns != 0) {
            ctl_after(j->p, j->p->item->until[CTL_MOMENT_RETRY].mono_ns - j->p->now_ns);
        } else {
            start_copies(j, want - j->n_active);
        }
    }
}

static void set_time(json_t *status, const char *field, int64_t wall_ns)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    if (wall_ns != 0) {
        json_object_set_new(status, field, json_string(at_time_format(wall_ns, text)));
    } else {
        json_object_del(status, field);
    }
}

static bool set_status(void *ctx, json_t *object)
{
    struct job_pass *j = ctx;
    json_t *status = json_object_get(object, "status");
    if (!json_is_object(status)) {
        status = json_object();
        json_object_set_new(object, "status", status);
    }
    json_object_set_new(status, "active", json_integer(j->n_active));
    json_object_set_new(status, "succeeded", json_integer(j->succeeded));
    json_object_set_new(status, "failed", json_integer(j->failed));
    set_time(status, "startTime", j->start_wall_ns);
    set_time(status, "nextRetryTime", j->retry_wall_ns);
    if (j->complete != NULL) {
        set_time(status, "completionTime", j->completion_wall_ns);
        at_condition_set(object, "Complete", true, j->complete, j->message, j->p->wall_ns);
    }
    if (j->failure != NULL) {
        at_condition_set(object, "Failed", true, j->failure, j->message, j->p->wall_ns);
    }
    if (j->complete == NULL && j->failure == NULL) {
        at_condition_set(object, "Suspended", j->job->spec.suspend,
                         j->job->spec.suspend ? "Suspended" : "Running", "", j->p->wall_ns);
    }
    return true;
}

static int64_t finished_wall_ns(const struct at_job *job)
{
    for (size_t k = 0; k < job->status.conditions.n; k++) {
        const struct at_condition *c = &job->status.conditions.items[k];
        if ((at_streq(c->type, "Complete") || at_streq(c->type, "Failed")) &&
            at_streq(c->status, "True")) {
            return c->last_transition_time_wall_ns;
        }
    }
    return 0;
}

/* It is over: nothing of it may run, and after its time it goes away. */
static void finished(struct job_pass *j)
{
    stop_copies(j, j->n_active);
    if (j->job->status.active != 0) { /* written when there was still something to stop */
        ctl_patch(j->p, &AT_KIND_JOB, j->job->meta.ns, j->job->meta.name,
                  json_pack("{s:{s:i}}", "status", "active", 0));
    }
    if (j->job->spec.ttl_after_finished_ns <= 0) {
        return;
    }
    int64_t left =
        left_until(j, CTL_MOMENT_TTL, finished_wall_ns(j->job), j->job->spec.ttl_after_finished_ns);
    if (left > 0) {
        ctl_after(j->p, left);
    } else {
        ctl_delete(j->p, &AT_KIND_JOB, &j->job->meta);
    }
}

void ctl_job(struct ctl_pass *p)
{
    const struct at_job *job = at_snapshot_job(p->snap, p->ns, p->name);
    if (job == NULL) {
        return;
    }
    if (job->meta.deletion_wall_ns != 0) {
        ctl_finish_owner(p, &AT_KIND_JOB, &job->meta);
        return;
    }
    struct job_pass j = {.p = p, .job = job, .start_wall_ns = job->status.start_time_wall_ns};
    count(&j);
    if (condition_true(job, "Complete") || condition_true(job, "Failed")) {
        finished(&j);
        return;
    }
    if (j.start_wall_ns == 0 && !job->spec.suspend) {
        j.start_wall_ns = p->wall_ns;
    }
    j.completion_wall_ns = p->wall_ns;
    advance(&j);
    if (j.complete != NULL || j.failure != NULL) {
        at_state_event(p->c->state, &AT_KIND_JOB, &job->meta, j.failure != NULL,
                       j.failure != NULL ? j.failure : j.complete, "%s", j.message);
    }
    ctl_update(p, &AT_KIND_JOB, job->meta.ns, job->meta.name, set_status, &j);
}
