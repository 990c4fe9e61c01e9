/* Nodes: heartbeats become the Ready condition; what ran on a lost node is given up; counts. */
#include "controllers/controllers_priv.h"
#include "scheduler/scheduler.h"

#include <stdio.h>
#include <string.h>

#define NEVER_SEEN_NS (10 * AT_NS_PER_S) /* a node that never beat is not ready after this */

static const struct at_condition *ready_condition(const struct at_node *node)
{
    for (size_t k = 0; k < node->status.conditions.n; k++) {
        if (at_streq(node->status.conditions.items[k].type, "Ready")) {
            return &node->status.conditions.items[k];
        }
    }
    return NULL;
}

bool ctl_node_ready(const struct at_node *node)
{
    const struct at_condition *c = ready_condition(node);
    return c != NULL && at_streq(c->status, "True");
}

bool ctl_node_lost(const struct at_node *node)
{
    const struct at_condition *c = ready_condition(node);
    return c != NULL && at_streq(c->status, "False");
}

enum health { HEALTH_UNKNOWN, HEALTH_ALIVE, HEALTH_SILENT };

/* A node whose agent never beat. */
struct unheard {
    int64_t
        since_ns;  /* when it was seen here first: its creation is by a clock that may be stepped */
    uint64_t look; /* the newest that still saw it so */
    char uid[40];
};

static int64_t unheard_for(struct at_controllers *c, const struct at_node *node, int64_t now_ns)
{
    struct unheard *u = at_map_get(c->unheard, node->meta.name);
    if (u == NULL) {
        u = AT_NEW(struct unheard);
        at_map_put(c->unheard, node->meta.name, u);
    }
    const char *uid = node->meta.uid != NULL ? node->meta.uid : "";
    if (u->since_ns == 0 || strncmp(u->uid, uid, sizeof u->uid - 1) != 0) {
        u->since_ns = now_ns;
        snprintf(u->uid, sizeof u->uid, "%s", uid);
    }
    u->look = c->health_looks;
    return now_ns - u->since_ns;
}

static void unheard_forget(struct at_controllers *c, bool all)
{
    const char *name;
    void *value;
    for (size_t it = 0; at_map_next(c->unheard, &it, &name, &value);) {
        struct unheard *u = value;
        if (all || u->look != c->health_looks) {
            at_map_remove(c->unheard, name);
            at_free(u);
        }
    }
}

void ctl_health_done(struct at_controllers *c)
{
    unheard_forget(c, true);
    at_map_free(c->unheard);
}

static enum health health_of(struct at_controllers *c, const struct at_node *node, int64_t now_ns)
{
    int64_t last = at_state_heartbeat_last(c->state, node->meta.name);
    if (last != 0) {
        /* A node that beats at another server is silent only as far as that server was heard. When
         * the other server is silent itself, the node's agent gets time to find a third one. */
        int64_t heard_ns = at_state_heartbeat_heard(c->state, node->meta.name, now_ns);
        bool relay_lost = now_ns - heard_ns > AT_CONTROLLERS_RELAY_LOST_NS;
        if ((relay_lost ? now_ns : heard_ns) - last <= c->node_timeout_ns) {
            return HEALTH_ALIVE;
        }
        /* What was before these controllers began (another server led) says nothing yet. */
        bool early = last < c->started_ns && now_ns - c->started_ns < c->start_grace_ns;
        return early ? HEALTH_UNKNOWN : HEALTH_SILENT;
    }
    if (ready_condition(node) == NULL) { /* new: its agent is about to beat for the first time */
        return unheard_for(c, node, now_ns) < NEVER_SEEN_NS ? HEALTH_UNKNOWN : HEALTH_SILENT;
    }
    /* Beats are not stored: after our own start, silence says nothing yet. */
    return now_ns - c->started_ns < c->start_grace_ns ? HEALTH_UNKNOWN : HEALTH_SILENT;
}

/* --- losing --- */

struct loss {
    const char *message;
    int64_t wall_ns;
};

static bool lose(void *ctx, json_t *object)
{
    const struct loss *l = ctx;
    at_object_drop_finalizer(object, CTL_FINALIZER_AGENT);
    const char *phase = at_json_str_at(object, "status.phase", "");
    if (at_streq(phase, "Succeeded") || at_streq(phase, "Failed")) {
        return true;
    }
    char time[AT_UNITS_TEXT_BYTES_MAX];
    at_json_set_at(object, "status.phase", json_string("Failed"));
    at_json_set_at(object, "status.reason", json_string(CTL_REASON_NODE_LOST));
    at_json_set_at(object, "status.message", json_string(l->message));
    at_json_set_at(object, "status.ready", json_false());
    at_json_set_at(object, "status.finishedAt", json_string(at_time_format(l->wall_ns, time)));
    return true;
}

void ctl_lose(struct ctl_pass *p, const struct at_instance *i, const char *message)
{
    if (ctl_ended(i) && !at_meta_has_finalizer(&i->meta, CTL_FINALIZER_AGENT)) {
        return;
    }
    struct loss l = {message, p->wall_ns};
    ctl_update(p, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name, lose, &l);
    if (!ctl_ended(i) && p->c->writes_left != 0) {
        at_state_event(p->c->state, &AT_KIND_INSTANCE, &i->meta, true, CTL_REASON_NODE_LOST, "%s",
                       message);
    }
}

static void lose_all_on(struct ctl_pass *p, const struct at_node *node)
{
    const char *message =
        at_arena_printf(p->arena, "node %s sends no heartbeat any more", node->meta.name);
    size_t n;
    const struct at_instance **on =
        ctl_index_list(ctl_index_node(p->c->index, node->meta.name), p->snap, p->arena, &n);
    for (size_t k = 0; k < n; k++) {
        ctl_lose(p, on[k], message);
    }
}

/* --- the condition --- */

struct verdict {
    bool ready;
    const char *reason, *message;
    int64_t wall_ns, beat_wall_ns;
};

static bool set_ready(void *ctx, json_t *object)
{
    const struct verdict *v = ctx;
    if (v->beat_wall_ns != 0) {
        char time[AT_UNITS_TEXT_BYTES_MAX];
        at_json_set_at(object, "status.lastHeartbeat",
                       json_string(at_time_format_micro(v->beat_wall_ns, time)));
    }
    at_condition_set(object, "Ready", v->ready, v->reason, v->message, v->wall_ns);
    return true;
}

static void judge(struct ctl_pass *p, const struct at_node *node, bool alive)
{
    int64_t last = at_state_heartbeat_last(p->c->state, node->meta.name);
    struct verdict v = {
        .ready = alive,
        .reason = alive       ? "HeartbeatReceived"
                  : last != 0 ? "HeartbeatLost"
                              : "HeartbeatNever",
        .wall_ns = p->wall_ns,
        .beat_wall_ns = last != 0 ? p->wall_ns - (p->now_ns - last) : 0,
    };
    if (ready_condition(node) != NULL && !alive) {
        v.reason = "HeartbeatLost";
    }
    char age[AT_UNITS_TEXT_BYTES_MAX] = "this server's start";
    if (last != 0) {
        at_duration_format((p->now_ns - last) / AT_NS_PER_MS * AT_NS_PER_MS, age);
    }
    v.message = alive ? "its agent sends heartbeats"
                      : at_arena_printf(p->arena, "no heartbeat for %s", age);
    ctl_update(p, &AT_KIND_NODE, NULL, node->meta.name, set_ready, &v);
    if (p->c->writes_left != 0) {
        at_state_event(p->c->state, &AT_KIND_NODE, &node->meta, !alive,
                       alive ? "NodeReady" : "NodeNotReady", "%s", v.message);
        at_log_kv(alive ? AT_LOG_INFO : AT_LOG_WARN, alive ? "node.ready" : "node.lost",
                  (struct at_log_kv[]){{"node", node->meta.name}, {0}}, "%s", v.message);
    }
}

/* --- ways to share its GPUs --- */

static const struct {
    const char *name, *condition;
} GPU_MODES[] = {{"MPS", "MPSReady"}, {"MIG", "MIGReady"}};

static const struct at_node_gpu_mode *gpu_mode_told(const struct at_node *node, const char *name)
{
    for (size_t k = 0; k < node->status.gpu_modes.n; k++) {
        if (at_streq(node->status.gpu_modes.items[k].name, name)) {
            return &node->status.gpu_modes.items[k];
        }
    }
    return NULL;
}

static const char *gpu_mode_reason(const struct at_node_gpu_mode *told)
{
    return told->reason != NULL && told->reason[0] != '\0' ? told->reason
           : told->ready                                   ? "Ready"
                                                           : "NotReady";
}

static const struct at_condition *condition_named(const struct at_node *node, const char *type)
{
    for (size_t k = 0; k < node->status.conditions.n; k++) {
        if (at_streq(node->status.conditions.items[k].type, type)) {
            return &node->status.conditions.items[k];
        }
    }
    return NULL;
}

static bool gpu_modes_differ(const struct at_node *node)
{
    for (size_t k = 0; k < AT_ARRAY_LEN(GPU_MODES); k++) {
        const struct at_node_gpu_mode *told = gpu_mode_told(node, GPU_MODES[k].name);
        const struct at_condition *c = condition_named(node, GPU_MODES[k].condition);
        if ((told == NULL) != (c == NULL)) {
            return true;
        }
        if (told != NULL && (!at_streq(c->status, told->ready ? "True" : "False") ||
                             !at_streq(c->reason, gpu_mode_reason(told)) ||
                             !at_streq(ctl_text(c->message), ctl_text(told->message)))) {
            return true;
        }
    }
    return false;
}

static void condition_remove(json_t *object, const char *type)
{
    json_t *list = at_json_at(object, "status.conditions");
    for (size_t k = json_array_size(list); k > 0; k--) {
        if (at_streq(at_json_str_at(json_array_get(list, k - 1), "type", ""), type)) {
            json_array_remove(list, k - 1);
        }
    }
}

struct gpu_modes {
    const struct at_node *node;
    int64_t wall_ns;
};

static bool set_gpu_modes(void *ctx, json_t *object)
{
    const struct gpu_modes *m = ctx;
    for (size_t k = 0; k < AT_ARRAY_LEN(GPU_MODES); k++) {
        const struct at_node_gpu_mode *told = gpu_mode_told(m->node, GPU_MODES[k].name);
        if (told == NULL) { /* not asked for any more */
            condition_remove(object, GPU_MODES[k].condition);
            continue;
        }
        at_condition_set(object, GPU_MODES[k].condition, told->ready, gpu_mode_reason(told),
                         ctl_text(told->message), m->wall_ns);
    }
    return true;
}

void ctl_node(struct ctl_pass *p)
{
    const struct at_node *node = at_snapshot_node(p->snap, p->name);
    if (node == NULL) {
        return;
    }
    ctl_evict_by_taints(p, node);
    if (gpu_modes_differ(node)) {
        struct gpu_modes modes = {node, p->wall_ns};
        ctl_update(p, &AT_KIND_NODE, NULL, node->meta.name, set_gpu_modes, &modes);
    }
    enum health health = health_of(p->c, node, p->now_ns);
    if (health == HEALTH_ALIVE && !ctl_node_ready(node)) {
        judge(p, node, true);
    } else if (health == HEALTH_SILENT && !ctl_node_lost(node)) {
        judge(p, node, false);
    }
    if (health == HEALTH_SILENT || (health == HEALTH_UNKNOWN && ctl_node_lost(node))) {
        lose_all_on(p, node);
    }
}

/* --- the watch over heartbeats --- */

static void check_health(void *ctx)
{
    struct at_controllers *c = ctx;
    int64_t now_ns = at_loop_now_ns(c->loop);
    const struct at_snapshot *snap = at_state_snapshot(c->state);
    c->health_looks++;
    for (size_t k = 0; k < snap->n_nodes; k++) {
        const struct at_node *node = snap->nodes[k];
        enum health health = health_of(c, node, now_ns);
        if ((health == HEALTH_ALIVE && !ctl_node_ready(node)) ||
            (health == HEALTH_SILENT && !ctl_node_lost(node))) {
            ctl_enqueue(c, CTL_NODE, NULL, node->meta.name);
        }
    }
    at_snapshot_unref(snap);
    unheard_forget(c, false);
    ctl_health_start(c);
}

void ctl_health_start(struct at_controllers *c)
{
    int64_t period = c->node_timeout_ns / 20;
    period = period < 10 * AT_NS_PER_MS ? 10 * AT_NS_PER_MS : period;
    period = period > 250 * AT_NS_PER_MS ? 250 * AT_NS_PER_MS : period;
    c->health_timer = at_loop_timer(c->loop, period, check_health, c);
}
