/* A rig for the controllers' tests: simulated clock, memory store, the real state and controllers,
 * and pretend agents that do what agents have agreed to do. */
#ifndef AT_CONTROLLERS_RIG_TEST_H
#define AT_CONTROLLERS_RIG_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "controllers/controllers_priv.h"
#include "sim/sim.h"

#define RIG_NODES_MAX 8

struct rig {
    struct at_sim *sim;
    struct at_loop *loop;
    struct at_store *store;
    struct at_state *state;
    struct at_metrics *metrics;
    struct at_controllers *c;
    char nodes[RIG_NODES_MAX][32]; /* with an agent that lives */
    size_t n_nodes;
    bool never_ready; /* new instances start, but do not become ready */
    const char *never_ready_image;
    int64_t job_failures_left; /* instances of jobs fail as long as this is not 0 */
    bool job_hangs;
    void (*check)(struct rig *r); /* after each turn */
    int64_t min_ready, max_alive; /* seen by rig_watch_bounds */
    struct at_map *started;       /* uid of each instance that an agent has started */
};

static inline void rig_start_controllers(struct rig *r)
{
    struct at_controllers_options o = {0};
    r->c = at_controllers_new(r->loop, r->state, r->metrics, &o);
}

static inline void rig_init_on(struct rig *r, uint64_t seed, const char *store, const char *path)
{
    memset(r, 0, sizeof(*r));
    r->sim = at_sim_new(seed);
    r->loop = at_loop_new(at_sim_sys(r->sim));
    struct at_err err = {0};
    assert_int_equal(at_store_open(store, path, r->loop, &r->store, &err), AT_OK);
    assert_int_equal(at_state_new(r->loop, r->store, NULL, NULL, &r->state, &err), AT_OK);
    r->metrics = at_metrics_new();
    r->started = at_map_new();
    rig_start_controllers(r);
}

static inline void rig_init(struct rig *r, uint64_t seed)
{
    rig_init_on(r, seed, "memory", NULL);
}

static inline void rig_done(struct rig *r)
{
    at_controllers_free(r->c);
    at_state_free(r->state);
    at_store_close(r->store);
    at_metrics_free(r->metrics);
    at_map_free(r->started);
    at_loop_free(r->loop);
    at_sim_free(r->sim);
}

struct rig_write {
    bool answered;
    enum at_rc rc;
    char msg[AT_ERR_MSG_BYTES_MAX];
};
static inline void rig_written(void *ctx, enum at_rc rc, int64_t rev, const struct at_err *err)
{
    struct rig_write *w = ctx;
    (void)rev;
    w->answered = true;
    w->rc = rc;
    snprintf(w->msg, sizeof(w->msg), "%s", err != NULL ? err->msg : "");
}
static inline void rig_beat(struct rig *r)
{
    for (size_t k = 0; k < r->n_nodes; k++) {
        at_state_heartbeat(r->state, r->nodes[k], at_loop_now_ns(r->loop));
    }
}
/* One turn while a write is on its way: simulated time passes, so hearts must beat. */
static inline void rig_wait_turn(struct rig *r)
{
    rig_beat(r);
    assert_true(at_loop_turn(r->loop, at_sim_now_ns(r->sim) + AT_NS_PER_MS));
}
/* What a test writes is there before it goes on. */
static inline void rig_wait(struct rig *r, struct rig_write *w)
{
    while (!w->answered) {
        rig_wait_turn(r);
    }
    if (w->rc != AT_OK) {
        fail_msg("write refused: %s", w->msg);
    }
}

static inline json_t *rig_json(const char *text)
{
    json_t *value = NULL;
    struct at_err err = {0};
    if (at_json_parse(text, strlen(text), &value, &err) != AT_OK) {
        fail_msg("%s in %s", err.msg, text);
    }
    return value;
}

static inline void rig_create(struct rig *r, const struct at_model_kind *kind, const char *text)
{
    struct rig_write w = {0};
    at_state_create(r->state, kind, rig_json(text), rig_written, &w);
    rig_wait(r, &w);
}

static inline bool rig_apply_patch(void *ctx, json_t *object)
{
    json_decref(at_json_merge_patch(json_incref(object), ctx));
    return true;
}
static inline void rig_patch(struct rig *r, const struct at_model_kind *kind, const char *ns,
                             const char *name, const char *text)
{
    json_t *patch = rig_json(text);
    struct rig_write w = {0};
    do { /* others write too */
        w.answered = false;
        at_state_update(r->state, kind, ns, name, rig_apply_patch, patch, rig_written, &w);
        while (!w.answered) {
            rig_wait_turn(r);
        }
    } while (w.rc == AT_CONFLICT);
    rig_wait(r, &w);
    json_decref(patch);
}
static inline void rig_delete(struct rig *r, const struct at_model_kind *kind, const char *ns,
                              const char *name)
{
    struct rig_write w = {0};
    at_state_delete(r->state, kind, ns, name, NULL, rig_written, &w);
    rig_wait(r, &w);
}

static inline void rig_node(struct rig *r, const char *name, const char *site, const char *cpu)
{
    char text[512];
    snprintf(
        text, sizeof(text),
        "{\"metadata\":{\"name\":\"%s\"},\"spec\":{\"site\":\"%s\"},\"status\":{\"allocatable\":"
        "{\"cpu\":\"%s\",\"memory\":\"8Gi\"},\"drivers\":[{\"name\":\"process\",\"ready\":true},"
        "{\"name\":\"oci\",\"ready\":true}]}}",
        name, site, cpu);
    rig_create(r, &AT_KIND_NODE, text);
    snprintf(r->nodes[r->n_nodes++], sizeof(r->nodes[0]), "%s", name);
}
/* One node with one GPU of 16 GiB, at a site of its own. */
static inline void rig_gpu_node(struct rig *r)
{
    rig_create(r, &AT_KIND_NAMESPACE, "{\"metadata\":{\"name\":\"default\"}}");
    rig_create(
        r, &AT_KIND_SITE,
        "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"class\":\"edge\",\"jurisdiction\":\"EU\"}}");
    rig_node(r, "n", "s", "8");
    rig_patch(r, &AT_KIND_NODE, NULL, "n",
              "{\"status\":{\"allocatable\":{\"gpu\":\"1\"},\"gpus\":[{\"id\":\"GPU-1\",\"model\":"
              "\"L4\",\"memory\":\"16Gi\"}]}}");
}
static inline void rig_three_sites(struct rig *r)
{
    static const char *const NAMES[] = {"cloud", "edge", "onprem"};
    for (int k = 0; k < 3; k++) {
        char text[256];
        char node[32];
        snprintf(
            text, sizeof(text),
            "{\"metadata\":{\"name\":\"%s\"},\"spec\":{\"class\":\"%s\",\"jurisdiction\":\"EU\"}}",
            NAMES[k], k == 0 ? "public" : NAMES[k]);
        rig_create(r, &AT_KIND_SITE, text);
        snprintf(node, sizeof(node), "%s-1", NAMES[k]);
        rig_node(r, node, NAMES[k], "4");
    }
}
/* kill -9 of the agent and all that it runs */
static inline void rig_kill_node(struct rig *r, const char *name)
{
    for (size_t k = 0; k < r->n_nodes; k++) {
        if (at_streq(r->nodes[k], name)) {
            memmove(r->nodes[k], r->nodes[--r->n_nodes], sizeof(r->nodes[0]));
            return;
        }
    }
    fail_msg("no node %s", name);
}

static inline void rig_deployment(struct rig *r, const char *name, int replicas, const char *image)
{
    char text[512];
    snprintf(text, sizeof(text),
             "{\"metadata\":{\"name\":\"%s\",\"namespace\":\"default\"},\"spec\":{\"replicas\":%d,"
             "\"template\":{\"spec\":{\"image\":\"%s\",\"resources\":{\"cpu\":\"1\"}}}}}",
             name, replicas, image);
    rig_create(r, &AT_KIND_DEPLOYMENT, text);
}
static inline void rig_job(struct rig *r, const char *name, const char *more)
{
    char text[512];
    snprintf(text, sizeof(text),
             "{\"metadata\":{\"name\":\"%s\",\"namespace\":\"default\"},\"spec\":{%s\"template\":{"
             "\"spec\":{\"command\":[\"true\"],\"resources\":{\"cpu\":\"100m\"}}}}}",
             name, more);
    rig_create(r, &AT_KIND_JOB, text);
}

/* --- pretend agents --- */

static inline bool rig_agent_lives(const struct rig *r, const char *node)
{
    for (size_t k = 0; k < r->n_nodes; k++) {
        if (at_streq(r->nodes[k], node)) {
            return true;
        }
    }
    return false;
}

/* What agents write may meet a conflict: they do it again the next time round. */
static inline void rig_agent_start(struct rig *r, const struct at_instance *i)
{
    char text[256];
    char time[AT_UNITS_TEXT_BYTES_MAX];
    static char runs, succeeds, fails;
    char *fate = at_map_get(r->started, i->meta.uid);
    if (fate == NULL) { /* decided once */
        bool of_job = at_model_map_get(&i->meta.labels, CTL_LABEL_JOB) != NULL;
        bool failing = of_job && !r->job_hangs && r->job_failures_left > 0;
        r->job_failures_left -= failing;
        fate = !of_job || r->job_hangs ? &runs : failing ? &fails : &succeeds;
        (void)at_map_put(r->started, i->meta.uid, fate);
    }
    bool ready = !r->never_ready && at_model_map_get(&i->meta.labels, CTL_LABEL_JOB) == NULL &&
                 (r->never_ready_image == NULL || !at_streq(i->spec.image, r->never_ready_image));
    if (fate == &runs) {
        snprintf(text, sizeof(text), "{\"status\":{\"phase\":\"Running\",\"ready\":%s}}",
                 ready ? "true" : "false");
    } else {
        snprintf(text, sizeof(text), "{\"status\":{\"phase\":\"%s\",\"finishedAt\":\"%s\"}}",
                 fate == &fails ? "Failed" : "Succeeded",
                 at_time_format(at_sys_wall_ns(at_sim_sys(r->sim)), time));
    }
    json_t *patch = rig_json(text);
    at_state_update(r->state, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name, rig_apply_patch, patch,
                    NULL, NULL);
    json_decref(patch);
}

static inline bool rig_drop_finalizer(void *ctx, json_t *object)
{
    (void)ctx;
    at_object_drop_finalizer(object, CTL_FINALIZER_AGENT);
    return true;
}

static inline void rig_agents(struct rig *r)
{
    rig_beat(r);
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_instance *i = snap->instances[k];
        if (i->spec.node_name == NULL || !rig_agent_lives(r, i->spec.node_name)) {
            continue;
        }
        if (i->meta.deletion_wall_ns != 0) {
            at_state_update(r->state, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name,
                            rig_drop_finalizer, NULL, NULL, NULL);
        } else if (at_streq(i->status.phase, "Pending")) {
            rig_agent_start(r, i);
        }
    }
    at_snapshot_unref(snap);
}

#endif
