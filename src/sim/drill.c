#include "sim/drill.h"

#include "controllers/controllers.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "sim/sim.h"

#include <stdio.h>
#include <string.h>

#define SITES 5
#define LOST_SITE (SITES - 1)
#define BEAT_NS (500 * AT_NS_PER_MS)
#define LOOK_NS (50 * AT_NS_PER_MS)
#define GIVE_UP_NS (600 * AT_NS_PER_S)
#define WRITES_OUTSTANDING 256
#define PINNED_EVERY 10

struct drill {
    const struct at_drill_options *o;
    struct at_sim *sim;
    struct at_loop *loop;
    struct at_store *store;
    struct at_state *state;
    struct at_metrics *metrics;
    struct at_controllers *controllers;
    size_t outstanding;
    bool lost;
    int64_t next_beat_ns;
    enum at_rc rc;
    struct at_err *err;
};

static void written(void *ctx, enum at_rc rc, int64_t rev, const struct at_err *err)
{
    struct drill *d = ctx;
    (void)rev;
    d->outstanding--;
    if (rc != AT_OK && d->rc == AT_OK) {
        d->rc = at_err_set(d->err, rc, "%s", err != NULL ? err->msg : "a write failed");
    }
}

static uint32_t site_of(uint32_t node)
{
    return node % SITES;
}

static void beat(struct drill *d)
{
    char name[32];
    if (at_sim_now_ns(d->sim) < d->next_beat_ns) {
        return;
    }
    d->next_beat_ns = at_sim_now_ns(d->sim) + BEAT_NS;
    for (uint32_t i = 0; i < d->o->nodes; i++) {
        if (!d->lost || site_of(i) != LOST_SITE) {
            snprintf(name, sizeof name, "node-%05u", i);
            at_state_heartbeat(d->state, name, at_loop_now_ns(d->loop));
        }
    }
}

static void turn(struct drill *d)
{
    beat(d);
    int64_t until_ns = at_sim_now_ns(d->sim) + LOOK_NS;
    (void)at_loop_turn(d->loop, until_ns < d->next_beat_ns ? until_ns : d->next_beat_ns);
}

static void create(struct drill *d, const struct at_model_kind *kind, json_t *object_take)
{
    d->outstanding++;
    at_state_create(d->state, kind, object_take, written, d);
    while (d->outstanding >= WRITES_OUTSTANDING) {
        turn(d);
    }
}

static void create_site(struct drill *d, uint32_t site)
{
    char name[32];
    snprintf(name, sizeof name, "site-%u", site);
    create(d, &AT_KIND_SITE,
           json_pack("{s:{s:s},s:{s:s,s:s}}", "metadata", "name", name, "spec", "class", "edge",
                     "jurisdiction", "EU"));
}

static void create_node(struct drill *d, uint32_t node)
{
    char name[32], site[32];
    snprintf(name, sizeof name, "node-%05u", node);
    snprintf(site, sizeof site, "site-%u", site_of(node));
    create(d, &AT_KIND_NODE,
           json_pack("{s:{s:s},s:{s:s},s:{s:{s:s,s:s},s:[{s:s,s:b}]}}", "metadata", "name", name,
                     "spec", "site", site, "status", "allocatable", "cpu", "8", "memory", "32Gi",
                     "drivers", "name", "process", "ready", 1));
}

static void create_deployment(struct drill *d, uint32_t i)
{
    char name[32], site[32];
    bool pinned = i % PINNED_EVERY == PINNED_EVERY - 1;
    snprintf(name, sizeof name, "app-%u", i);
    snprintf(site, sizeof site, "site-%u", LOST_SITE);
    json_t *spec = json_pack("{s:[s],s:{s:s,s:s},s:{s:s}}", "command", "serve", "resources", "cpu",
                             "1", "memory", "1Gi", "placement", "spreadBy", "node");
    if (pinned) {
        at_json_set_at(spec, "placement.sites", json_pack("[s]", site));
    }
    create(d, &AT_KIND_DEPLOYMENT,
           json_pack("{s:{s:s,s:s},s:{s:I,s:{s:o}}}", "metadata", "name", name, "namespace",
                     "default", "spec", "replicas", (json_int_t)d->o->replicas, "template", "spec",
                     spec));
}

struct look {
    size_t bound, of_lost, over;
};

static bool has_ended(const struct at_instance *i)
{
    return at_streq(i->status.phase, "Failed") || at_streq(i->status.phase, "Succeeded") ||
           i->meta.deletion_wall_ns != 0;
}

static uint32_t number_of(const char *node)
{
    unsigned n = 0;
    return node != NULL && sscanf(node, "node-%u", &n) == 1 ? n : UINT32_MAX;
}

/* Every instance asks for one core: nodes have eight. */
static struct look look(struct drill *d)
{
    struct look l = {0};
    const struct at_snapshot *snap = at_state_snapshot(d->state);
    AT_CLEANUP(at_cleanup_free) int64_t *cpu = at_alloc((d->o->nodes + 1) * sizeof *cpu);
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_instance *i = snap->instances[k];
        uint32_t node = number_of(i->spec.node_name);
        if (has_ended(i) || node >= d->o->nodes) {
            continue;
        }
        cpu[node] += i->spec.resources->cpu_milli;
        l.over += cpu[node] > 8000 && cpu[node] - i->spec.resources->cpu_milli <= 8000;
        bool dead = d->lost && site_of(node) == LOST_SITE;
        l.bound += !dead;
        l.of_lost += site_of(node) == LOST_SITE;
    }
    at_snapshot_unref(snap);
    return l;
}

/* Until so many are bound to nodes that live. */
static void run_until(struct drill *d, size_t bound, struct look *ret)
{
    int64_t begin_ns = at_sim_now_ns(d->sim), next_look_ns = begin_ns;
    while (d->rc == AT_OK) {
        if (at_sim_now_ns(d->sim) >= next_look_ns) {
            next_look_ns = at_sim_now_ns(d->sim) + LOOK_NS;
            *ret = look(d);
            if (ret->bound >= bound) {
                return;
            }
        }
        if (at_sim_now_ns(d->sim) - begin_ns > GIVE_UP_NS) {
            d->rc = at_err_set(d->err, AT_TIMEOUT, "%zu of %zu are bound after ten minutes",
                               ret->bound, bound);
        }
        turn(d);
    }
}

static double real_s(const struct drill *d, int64_t since_ns)
{
    return (double)(at_sys_mono_ns(d->o->real) - since_ns) / (double)AT_NS_PER_S;
}

static enum at_rc begin(struct drill *d)
{
    struct at_controllers_options options = {0};
    d->sim = at_sim_new(d->o->seed);
    d->loop = at_loop_new(at_sim_sys(d->sim));
    d->metrics = at_metrics_new();
    enum at_rc rc = at_store_open("memory", NULL, d->loop, &d->store, d->err);
    if (rc == AT_OK) {
        rc = at_state_new(d->loop, d->store, NULL, NULL, &d->state, d->err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    d->controllers = at_controllers_new(d->loop, d->state, d->metrics, &options);
    for (uint32_t i = 0; i < SITES; i++) {
        create_site(d, i);
    }
    for (uint32_t i = 0; i < d->o->nodes; i++) {
        create_node(d, i);
    }
    for (uint32_t i = 0; i < d->o->deployments; i++) {
        create_deployment(d, i);
    }
    while (d->outstanding > 0) {
        turn(d);
    }
    return d->rc;
}

static void done(struct drill *d)
{
    if (d->state != NULL) {
        at_controllers_free(d->controllers);
        at_state_free(d->state);
    }
    if (d->store != NULL) {
        at_store_close(d->store);
    }
    at_metrics_free(d->metrics);
    at_loop_free(d->loop);
    at_sim_free(d->sim);
}

static void lose(struct drill *d, const struct look *before, struct at_drill_result *out)
{
    struct look after = {0};
    size_t pinned = (size_t)(d->o->deployments / PINNED_EVERY) * d->o->replicas;
    int64_t real_ns = at_sys_mono_ns(d->o->real), sim_ns = at_sim_now_ns(d->sim);
    out->lost = before->of_lost;
    out->stuck = pinned;
    d->lost = true;
    run_until(d, out->instances - pinned, &after);
    out->bound_again = out->lost - pinned;
    out->wait_s = (double)(at_sim_now_ns(d->sim) - sim_ns) / (double)AT_NS_PER_S;
    out->compute_s = real_s(d, real_ns);
    out->over_committed = look(d).over;
}

enum at_rc at_drill_run(const struct at_drill_options *o, struct at_drill_result *ret,
                        struct at_err *err)
{
    struct drill d = {.o = o, .err = err};
    struct at_drill_result out = {.instances = (size_t)o->deployments * o->replicas};
    if (o->nodes < SITES || o->nodes > AT_DRILL_NODES_MAX || out.instances == 0 ||
        out.instances > (size_t)o->nodes * 6) {
        return at_err_set(err, AT_INVALID,
                          "a drill needs 5 to %d nodes and 6 instances each at most",
                          AT_DRILL_NODES_MAX);
    }
    int64_t real_ns = at_sys_mono_ns(o->real);
    struct look before = {0};
    d.rc = begin(&d);
    if (d.rc == AT_OK) {
        run_until(&d, out.instances, &before);
        out.set_up_s = real_s(&d, real_ns);
    }
    if (d.rc == AT_OK) {
        lose(&d, &before, &out);
    }
    if (d.rc == AT_OK) {
        *ret = out;
    }
    done(&d);
    return d.rc;
}
