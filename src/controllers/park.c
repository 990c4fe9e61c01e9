/* Parking: what copies of a Deployment hold of GPUs goes to the memory of their machines when
 * nobody has asked for the model for a while (gpuSharing.parkAfter), and comes back when somebody
 * does, as gateways report. Here it is said what is wanted (status.park of an Instance); its agent
 * does it and says how far it is (status.parking).
 *
 * Room that parked copies leave is given to others that park, so each can come back once those
 * there make way: at once when nobody asks for them, else after a turn. One that goes is drained
 * first, so that no request is caught in it. */
#include "controllers/controllers_priv.h"

#include <assert.h>

#define IDLE_MIN_NS AT_NS_PER_S
#define GATEWAYS_MAX 16                  /* of which the numbers are kept; those of more are one */
#define REPORT_OLD_NS (10 * AT_NS_PER_S) /* a gateway that says nothing for so long is gone */
#define SURE_NS                                                                                    \
    (2500 * AT_NS_PER_MS)          /* after this a request that came before has been reported      \
                                    */
#define TURN_NS (10 * AT_NS_PER_S) /* that a copy stays, though others wait for its room */
#define DRAIN_MAX_NS                                                                               \
    (30 * AT_NS_PER_S) /* what answers for longer is parked in the middle of it                    \
                        */
#define LOOK_NS AT_NS_PER_S

/* What gateways say of a Deployment that parks. */
struct ctl_asked {
    int64_t last_ns; /* when something was last asked of it, or when it was first looked at */
    bool ever;       /* it was; a server that has just begun brings nothing back by itself */
    struct {
        uint64_t gateway;          /* digest of its name; 0: none */
        int64_t requests, running; /* those that run are among requests */
        int64_t at_ns;
    } by[GATEWAYS_MAX];
};

static struct ctl_asked *asked_of(struct at_controllers *c, const char *key, bool make)
{
    struct ctl_asked *a = at_map_get(c->asked, key);
    if (a == NULL && make) {
        a = AT_NEW(struct ctl_asked);
        a->last_ns = at_loop_now_ns(c->loop);
        (void)at_map_put(c->asked, key, a);
    }
    return a;
}

static int64_t requests_of(const struct ctl_asked *a, int64_t now)
{
    int64_t sum = 0;
    for (size_t k = 0; k < GATEWAYS_MAX; k++) {
        sum += now - a->by[k].at_ns < REPORT_OLD_NS ? a->by[k].requests : 0;
    }
    return sum;
}

static bool is_running(const struct ctl_asked *a, int64_t now)
{
    for (size_t k = 0; k < GATEWAYS_MAX; k++) {
        if (now - a->by[k].at_ns < REPORT_OLD_NS && a->by[k].running > 0) {
            return true;
        }
    }
    return false;
}

/* True: there were some, and now there are none, or the reverse. */
static bool note(struct ctl_asked *a, uint64_t gateway, int64_t requests, int64_t running,
                 int64_t now)
{
    size_t at = 0;
    for (size_t k = 0; k < GATEWAYS_MAX; k++) {
        if (a->by[k].gateway == gateway) {
            at = k;
            break;
        }
        at = a->by[k].at_ns < a->by[at].at_ns ? k : at;
    }
    bool news =
        (requests_of(a, now) > 0) != (requests > 0) || (a->by[at].running > 0) != (running > 0);
    a->by[at].gateway = gateway;
    a->by[at].running = running;
    a->by[at].requests = requests;
    a->by[at].at_ns = now;
    return news;
}

static uint64_t digest(const char *name)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (; *name != '\0'; name++) {
        hash = (hash ^ (unsigned char)*name) * 1099511628211u;
    }
    return hash | 1;
}

static void look_at(struct at_controllers *c, const char *key)
{
    const char *slash = strchr(key, '/');
    AT_CLEANUP(at_cleanup_free) char *ns = at_strndup(key, (size_t)(slash - key));
    ctl_enqueue(c, CTL_PARKING, ns, slash + 1);
}

void ctl_park_report(struct at_controllers *c, const char *name)
{
    json_t *report = at_state_object(c->state, &AT_KIND_GATEWAY_REPORT, NULL, name);
    int64_t now = at_loop_now_ns(c->loop);
    uint64_t gateway = digest(name);
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(c->asked, &it, &key, &value);) {
        int64_t requests = 0, running = 0, arrived = 0;
        size_t i;
        json_t *entry;
        json_array_foreach(at_json_at(report, "status.deployments"), i, entry)
        {
            const char *slash = strchr(key, '/');
            const char *ns = at_json_str_at(entry, "namespace", "");
            if (at_streq(at_json_str_at(entry, "name", ""), slash + 1) &&
                strlen(ns) == (size_t)(slash - key) && strncmp(ns, key, strlen(ns)) == 0) {
                requests += at_json_int_at(entry, "waiting", 0);
                running += at_json_int_at(entry, "running", 0);
                arrived += at_json_int_at(entry, "arrived", 0);
            }
        }
        struct ctl_asked *a = value;
        requests += running;
        bool news = note(a, gateway, requests, running, now) || arrived > 0;
        if (requests > 0 || arrived > 0) {
            a->last_ns = now;
            a->ever = true;
        }
        if (news) {
            look_at(c, key);
        }
    }
    json_decref(report);
}

void ctl_park_route(struct at_controllers *c, const struct at_instance *i)
{
    const struct at_owner_ref *owner = at_meta_controller(&i->meta);
    if (owner == NULL || !at_streq(owner->kind, "Deployment") ||
        (!ctl_parks(i) && i->status.park == NULL)) {
        return;
    }
    AT_CLEANUP(at_cleanup_free)
    char *key = at_asprintf("%s/%s", ctl_text(i->meta.ns), ctl_text(owner->name));
    (void)asked_of(c, key, true);
    ctl_enqueue(c, CTL_PARKING, i->meta.ns, owner->name);
}

bool ctl_parks(const struct at_instance *i)
{
    return i->spec.gpu_sharing != NULL && i->spec.gpu_sharing->park_after_ns > 0;
}

static const char *state_of(const struct at_instance *i)
{
    return i->status.parking != NULL && i->status.parking->state != NULL ? i->status.parking->state
                                                                         : "Resident";
}

static bool is_in(const struct at_instance *i, const char *state)
{
    return at_streq(state_of(i), state);
}

/* Away from its GPU, or on the way: it serves as soon as somebody asks. */
bool ctl_is_parked(const struct at_instance *i)
{
    return ctl_parks(i) && !is_in(i, "Resident") && !is_in(i, "Refused") && !ctl_ended(i);
}

bool ctl_holds_nothing(const struct at_instance *i)
{
    return is_in(i, "Parked") || is_in(i, "Waiting");
}

static bool wants(const struct at_instance *i, const char *what)
{
    const struct at_instance_park *p = i->status.park;
    return at_streq(p != NULL && p->want != NULL ? p->want : "Resident", what);
}

static void want(struct ctl_pass *p, const struct at_instance *i, const char *what,
                 const char *reason)
{
    char since[AT_UNITS_TEXT_BYTES_MAX];
    if (!wants(i, what)) {
        ctl_patch(p, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name,
                  json_pack("{s:{s:{s:s,s:s,s:s}}}", "status", "park", "want", what, "reason",
                            reason, "since", at_time_format_micro(p->wall_ns, since)));
    }
}

/* Another one needs its room: so it was told, and it has not gone yet. */
static bool makes_way(const struct at_instance *i)
{
    return i->status.park != NULL && at_streq(i->status.park->reason, "MakesWay") &&
           !wants(i, "Resident") && !is_in(i, "Parked") && !is_in(i, "Waiting") &&
           !is_in(i, "Refused");
}

static int64_t since_ns(struct ctl_pass *p, int64_t wall_ns)
{
    int64_t passed = p->wall_ns - wall_ns;
    return wall_ns == 0 ? 0 : passed > 0 ? passed : 0;
}

/* It takes no new requests; are those that it had over? */
static void park_drained(struct ctl_pass *p, const struct at_instance *i, bool running,
                         const char *reason)
{
    if (!is_in(i, "Drained") || !wants(i, "Drained")) {
        return;
    }
    int64_t drained = since_ns(p, i->status.park->since_wall_ns);
    if (drained >= DRAIN_MAX_NS || (!running && drained >= SURE_NS)) {
        want(p, i, "Parked", reason);
    } else {
        ctl_after(p, running ? LOOK_NS : SURE_NS - drained);
    }
}

/* It was asked for less than parkAfter ago. */
static bool in_use(struct ctl_pass *p, const struct at_instance *i, const struct ctl_asked *a,
                   bool asked)
{
    int64_t after = i->spec.gpu_sharing->park_after_ns;
    after = after > IDLE_MIN_NS ? after : IDLE_MIN_NS;
    int64_t left = asked ? after : a->last_ns + after - p->now_ns;
    if (left > 0) {
        ctl_after(p, left);
    }
    return left > 0 && (a->ever || wants(i, "Resident"));
}

static void decide(struct ctl_pass *p, const struct at_instance *i, const struct ctl_asked *a)
{
    bool asked = requests_of(a, p->now_ns) > 0;
    if (!ctl_parks(i) || is_in(i, "Refused")) {
        want(p, i, "Resident", "NeverParked");
    } else if (makes_way(i)) {
        park_drained(p, i, is_running(a, p->now_ns), "MakesWay");
    } else if (in_use(p, i, a, asked)) {
        want(p, i, "Resident", "Asked");
    } else if (wants(i, "Resident") && is_in(i, "Resident") && i->status.ready) {
        want(p, i, "Drained", "Idle");
    } else if (wants(i, "Drained")) {
        park_drained(p, i, false, "Idle");
    } else if (is_in(i, "Waiting")) {
        want(p, i, "Parked", "Idle"); /* who asked went away */
    }
}

/* --- room --- */

static bool share_a_gpu(const struct at_instance *a, const struct at_instance *b)
{
    for (size_t i = 0; i < a->status.gpus.n; i++) {
        for (size_t k = 0; k < b->status.gpus.n; k++) {
            const struct at_instance_gpu *x = &a->status.gpus.items[i],
                                         *y = &b->status.gpus.items[k];
            if (x->id != NULL && y->id != NULL ? at_streq(x->id, y->id) : x->index == y->index) {
                return true;
            }
        }
    }
    return false;
}

static int64_t idle_ns(struct ctl_pass *p, const struct at_instance *i)
{
    const struct at_owner_ref *owner = at_meta_controller(&i->meta);
    const struct ctl_asked *a = NULL;
    if (owner != NULL) {
        a = asked_of(
            p->c, at_arena_printf(p->arena, "%s/%s", ctl_text(i->meta.ns), ctl_text(owner->name)),
            false);
    }
    return a == NULL ? INT64_MAX : requests_of(a, p->now_ns) > 0 ? 0 : p->now_ns - a->last_ns;
}

/* Those that nobody asks for go at once; of the others those of no higher priority, after a turn.
 */
static bool may_go(struct ctl_pass *p, const struct at_instance *v, const struct at_instance *for_)
{
    AT_CLEANUP(at_cleanup_free)
    char *key = at_asprintf("%s/%s", ctl_text(v->meta.ns), v->meta.name);
    const struct ctl_seen *seen = ctl_index_get(p->c->index, key);
    int64_t there = seen != NULL ? p->now_ns - seen->there_ns : 0;
    return v->status.ready && (idle_ns(p, v) > SURE_NS ||
                               (v->spec.priority <= for_->spec.priority && there >= TURN_NS));
}

static bool goes_before(struct ctl_pass *p, const struct at_instance *a,
                        const struct at_instance *b)
{
    if (b == NULL) {
        return true;
    }
    bool idle_a = idle_ns(p, a) > SURE_NS, idle_b = idle_ns(p, b) > SURE_NS;
    if (idle_a != idle_b) {
        return idle_a;
    }
    return a->spec.priority != b->spec.priority ? a->spec.priority < b->spec.priority
                                                : idle_ns(p, a) > idle_ns(p, b);
}

/* One at a time: the agent says whether that was enough. */
static void make_room(struct ctl_pass *p, const struct at_instance *for_)
{
    const struct at_owner_ref *owner = at_meta_controller(&for_->meta);
    const struct ctl_group *on = ctl_index_node(p->c->index, for_->spec.node_name);
    const struct at_instance *best = NULL;
    for (const struct ctl_link *l = on != NULL ? on->first : NULL; l != NULL; l = l->next) {
        const struct at_instance *v = ctl_index_instance(p->snap, l->seen);
        if (v == NULL || v == for_ || !ctl_parks(v) || ctl_ended(v) || !share_a_gpu(v, for_)) {
            continue;
        }
        if (makes_way(v)) {
            return;
        }
        const struct at_owner_ref *own = at_meta_controller(&v->meta);
        bool sibling = own != NULL && owner != NULL && at_streq(own->uid, owner->uid);
        if (!sibling && is_in(v, "Resident") && may_go(p, v, for_) && goes_before(p, v, best)) {
            best = v;
        }
    }
    if (best != NULL) {
        want(p, best, "Drained", "MakesWay");
    }
}

void ctl_parking(struct ctl_pass *p)
{
    const struct at_deployment *d = at_snapshot_deployment(p->snap, p->ns, p->name);
    AT_CLEANUP(at_cleanup_free) char *key = at_asprintf("%s/%s", p->ns, p->name);
    if (d == NULL || d->meta.deletion_wall_ns != 0) {
        at_free(at_map_remove(p->c->asked, key));
        return;
    }
    size_t n;
    bool any = false;
    const struct at_instance **copies =
        ctl_index_list(ctl_index_owner(p->c->index, AT_KIND_DEPLOYMENT.kind, p->ns, p->name),
                       p->snap, p->arena, &n);
    const struct ctl_asked *a = asked_of(p->c, key, true);
    for (size_t k = 0; k < n; k++) {
        const struct at_instance *i = copies[k];
        any = any || ctl_parks(i);
        if (i->meta.deletion_wall_ns != 0 || ctl_ended(i) ||
            ctl_text(i->spec.node_name)[0] == '\0' || (!ctl_parks(i) && i->status.park == NULL)) {
            continue;
        }
        decide(p, i, a);
        if (is_in(i, "Waiting") && wants(i, "Resident")) {
            if (requests_of(a, p->now_ns) > 0 || !ctl_parks(i)) { /* somebody waits for it */
                make_room(p, i);
            }
            ctl_after(p, LOOK_NS);
        }
    }
    if (!any) {
        at_free(at_map_remove(p->c->asked, key));
    }
}

/* --- what is told --- */

void ctl_park_tell(struct at_controllers *c, struct ctl_seen *seen, const struct at_instance *i)
{
    static const struct at_instance_parking NONE;
    const struct at_instance_parking *s = i->status.parking != NULL ? i->status.parking : &NONE;
    char memory[AT_UNITS_TEXT_BYTES_MAX];
    bool old = seen->told == 0; /* the first look */
    at_quantity_format_bytes(s->memory_bytes, memory);
    if (!old && s->parks > seen->parks) {
        at_metric_observe_ns(c->m_park, s->park_milliseconds * AT_NS_PER_MS);
        at_state_event(c->state, &AT_KIND_INSTANCE, &i->meta, false, "Parked",
                       "%s of GPU memory went to the machine's memory in %lld ms", memory,
                       (long long)s->park_milliseconds);
    }
    if (!old && s->resumes > seen->resumes) {
        at_metric_observe_ns(c->m_resume, s->resume_milliseconds * AT_NS_PER_MS);
        at_state_event(c->state, &AT_KIND_INSTANCE, &i->meta, false, "Resumed",
                       "%s came back to the GPU in %lld ms", memory,
                       (long long)s->resume_milliseconds);
    }
    bool refused = at_streq(s->state, "Refused"), waits = at_streq(s->state, "Waiting");
    if (!old && (refused || waits) && !seen->park_said) {
        at_state_event(c->state, &AT_KIND_INSTANCE, &i->meta, true,
                       refused ? "ParkingRefused" : "WaitsForGPU", "%s", ctl_text(s->message));
    }
    seen->park_said = refused || waits;
    seen->parks = s->parks;
    seen->resumes = s->resumes;
    bool there = i->status.ready && !ctl_is_parked(i);
    seen->there_ns = there && !seen->there ? at_loop_now_ns(c->loop) : seen->there_ns;
    seen->there = there;
    bool away = at_streq(s->state, "Parked") || waits;
    if (seen->parked != away) { /* room came or went */
        seen->parked = away;
        ctl_enqueue(c, CTL_PLACEMENT, NULL, "all");
    }
}
