/* What the reconcilers share: the queue, and the pass that each reconcile gets. */
#ifndef AT_CONTROLLERS_CONTROLLERS_PRIV_H
#define AT_CONTROLLERS_CONTROLLERS_PRIV_H

#include "controllers/controllers.h"
#include "controllers/index.h"
#include "core/log.h"
#include "core/map.h"
#include "core/mem.h"
#include "core/str.h"

#define CTL_LABEL_DEPLOYMENT "atoll.dev/deployment"
#define CTL_LABEL_JOB "atoll.dev/job"
#define CTL_LABEL_HASH "atoll.dev/template-hash"
#define CTL_FINALIZER_AGENT "atoll.dev/agent"
#define CTL_FINALIZER_NAMESPACE "atoll.dev/namespace"
#define CTL_FINALIZER_FOREGROUND "foregroundDeletion"
#define CTL_FINALIZER_ORPHAN "orphan"
#define CTL_REASON_NODE_LOST "NodeLost"
#define CTL_REASON_OVERCOMMITTED "NodeOvercommitted" /* the agent had no room for it */
#define CTL_REASON_GPU_LOST "GPULost"                /* its GPU failed */

/* Limits. */
#define CTL_CREATES_PER_PASS 512 /* of one owner; the rest follows in the next pass */
#define CTL_PENDING_PER_PASS 256 /* instances that one plan decides: others want the loop too */
#define CTL_TOLD_PER_PASS 512    /* instances that are told why they wait for quota */
#define CTL_GANG_LOOK_NS (2 * AT_NS_PER_S)      /* waiting gangs are looked at again */
#define CTL_COUNT_DELAY_NS (100 * AT_NS_PER_MS) /* counts in site and node status may lag */
#define CTL_QUOTA_DELAY_NS (20 * AT_NS_PER_MS)  /* many changes are counted at once */
#define CTL_PARK_NS (50 * AT_NS_PER_MS)         /* look again for a write that does not show */
#define CTL_BACKOFF_MIN_NS (10 * AT_NS_PER_MS)
#define CTL_BACKOFF_MAX_NS (30 * AT_NS_PER_S)

enum ctl_kind {
    CTL_DEPLOYMENT,
    CTL_JOB,
    CTL_PLACEMENT,
    CTL_NODE,
    CTL_NODE_COUNTS,
    CTL_SITE_COUNTS,
    CTL_INSTANCE,
    CTL_NAMESPACE,
    CTL_COLLECT,
    CTL_QUEUES,
    CTL_RESERVATIONS,
    CTL_RESCHEDULE,
    CTL_SCALE,
    CTL_PARKING,
    CTL_QUOTA,
    CTL_NETWORK,
    CTL_AGGREGATE,
    CTL_KIND_COUNT
};

/* Moments in a Job's life that are waited for. */
enum ctl_moment { CTL_MOMENT_DEADLINE, CTL_MOMENT_RETRY, CTL_MOMENT_TTL, CTL_MOMENT_COUNT };
struct ctl_until {
    int64_t wall_ns; /* of the moment; 0: none is waited for */
    int64_t mono_ns; /* the same, as it was worked out when it was first looked at */
};

/* One key of one reconciler. Lives as long as something about it is under way or worth
 * remembering. */
struct ctl_item {
    struct at_controllers *c;
    enum ctl_kind kind;
    char *key; /* "<kind>/<ns>/<name>" */
    char *ns, *name;
    bool queued, keep;
    unsigned writes; /* in flight: no reconcile of this key meanwhile */
    bool failed;
    char *refusal;    /* why its last creation was refused, by a quota; NULL: it was not */
    bool refused;     /* in the pass that runs */
    int64_t rev_wait; /* the snapshot must show this write of ours first */
    int64_t seen_rev; /* of the snapshot of the last pass */
    bool again;       /* look again when the writes in flight are answered */
    unsigned failures;
    at_timer_id timer;
    int64_t timer_at_ns;
    struct ctl_until until[CTL_MOMENT_COUNT];
    unsigned replaced;     /* deployment: copies that ended by themselves, in a row */
    int64_t last_sched_ns; /* placement: newest scheduledAt given */
};

struct at_controllers {
    struct at_loop *loop;
    struct at_state *state;
    const struct at_sys *sys;
    int64_t node_timeout_ns, start_grace_ns, started_ns;
    bool (*leads)(void *ctx); /* NULL: always */
    void *leads_ctx;
    const char *guard_key; /* NULL: none */
    int64_t guard_rev;
    void (*doubt)(void *ctx); /* may be NULL */
    struct at_map *items;     /* key -> struct ctl_item */
    struct ctl_item **queue;  /* in order of arrival */
    size_t n_queue, cap_queue;
    struct at_map *dirty;    /* "<plural>/<ns>/<name>" -> kind: changed since the last drain */
    struct ctl_index *index; /* of all instances */
    struct at_scheduler *sched;
    const struct at_snapshot *sched_snap; /* that it was brought to: held */
    struct at_map *unheard;               /* node.c: nodes that never beat */
    uint64_t health_looks;
    struct at_map *node_faults; /* node -> char *: what was told of its GPUs */
    struct at_map *node_seen;   /* node -> char *: what placement cared about when it last looked */
    struct at_map *owned;       /* "<ns>/<kind index>/<name>" of objects that have owners */
    struct at_map *finishing;   /* the same of owners that wait for what they own */
    struct at_queue_book *queues; /* admission.c; NULL: there are none, or not looked at yet */
    uint64_t queues_signature;    /* of what it was made of */
    bool moving;                  /* reschedule.c: new copies may be meant for a node */
    struct at_map *demands;       /* "<ns>/<name>" of a Deployment that scales -> scale.c's own */
    struct at_map *asked;         /* the same of one that parks -> park.c's own */
    struct at_map *kept_off;      /* "<ns>/<name>" -> what to say of reservations; in admission */
    struct at_map *names;         /* model -> names.c's own: who serves it */
    struct at_map *name_of;       /* "<ns>/<name>" of a Deployment -> char *: the model's name */
    struct at_arena *admission;   /* of the last pass: what placement was given lies in it */
    at_timer_id drain_timer, health_timer;
    int64_t drain_at_ns;
    bool draining, closed;
    unsigned writes;     /* in flight, of all items */
    int64_t writes_left; /* tests: the process "dies" when it reaches 0; < 0: no limit */
    struct at_metric *m_reconciles[CTL_KIND_COUNT], *m_errors[CTL_KIND_COUNT];
    struct at_metric *m_depth, *m_latency, *m_placed, *m_refused, *m_pending;
    struct at_metric *m_reclaimed, *m_moved, *m_scaled_up, *m_scaled_down;
    struct at_metric *m_park, *m_resume;
};

struct ctl_pass {
    struct at_controllers *c;
    struct ctl_item *item;
    const struct at_meta *placing; /* writes are of this decision: failing, it is taken back */
    const struct at_snapshot *snap;
    struct at_arena *arena;
    int64_t now_ns, wall_ns;
    const char *ns, *name;
};

/* queue.c */
void ctl_enqueue(struct at_controllers *c, enum ctl_kind kind, const char *ns, const char *name);
void ctl_enqueue_after(struct at_controllers *c, enum ctl_kind kind, const char *ns,
                       const char *name, int64_t delay_ns);
void ctl_after(struct ctl_pass *p, int64_t delay_ns); /* run this item again */
/* Planned writes of a pass: counted on its item until they are answered. */
void ctl_create(struct ctl_pass *p, const struct at_model_kind *kind, json_t *object_take);
void ctl_update(struct ctl_pass *p, const struct at_model_kind *kind, const char *ns,
                const char *name, at_state_change_fn *change, void *change_ctx);
/* at_state_edit: as ctl_update, many times as fast where edit can do it. */
void ctl_edit(struct ctl_pass *p, const struct at_model_kind *kind, const char *ns,
              const char *name, at_state_edit_fn *edit, at_state_change_fn *change,
              void *change_ctx);
void ctl_delete(struct ctl_pass *p, const struct at_model_kind *kind, const struct at_meta *meta);
/* Merge patch of the stored object, spec and status alike; patch_take is one reference. */
void ctl_patch(struct ctl_pass *p, const struct at_model_kind *kind, const char *ns,
               const char *name, json_t *patch_take);

/* Owners in the namespace whose creations were refused try again now. */
void ctl_retry_refused(struct at_controllers *c, const char *ns);

/* quota.c */
/* names.c: Deployments whose models have the same name. */
void ctl_names_route(struct at_controllers *c, const struct at_snapshot *snap, const char *ns,
                     const char *deployment);
void ctl_names_done(struct at_controllers *c);
/* What to say when an older one of another namespace has its model's plain name; else NULL. */
const char *ctl_name_taken(struct ctl_pass *p, const struct at_deployment *d);
void ctl_quota_route(struct at_controllers *c, const struct at_snapshot *snap,
                     const struct at_model_kind *kind, const char *ns, const char *name);

/* network.c: status.network of an instance; NULL: no policy selects it. own: caller decrefs. */
json_t *ctl_network_of(const struct at_snapshot *snap, const struct at_instance *i);
void ctl_network_route(struct at_controllers *c, const struct at_snapshot *snap,
                       const struct at_model_kind *kind, const char *ns, const char *name);

/* aggregate.c */
void ctl_aggregate_route(struct at_controllers *c, const struct at_model_kind *kind);

/* route.c: what a change concerns. */
void ctl_route(struct at_controllers *c, const struct at_snapshot *snap,
               const struct at_model_kind *kind, const char *ns, const char *name);
void ctl_route_all(struct at_controllers *c, const struct at_snapshot *snap);

/* admission.c: queues. Of pending, those that may be placed are left in front, as placement shall
 * see them; the others are told why they wait. Returns how many. A scheduler that keeps its own
 * list of what is pending must be given exactly these. */
size_t ctl_admission(struct ctl_pass *p, const struct at_instance **pending, size_t n);
struct at_sched_decision;
void ctl_admission_say(struct ctl_pass *p, struct at_sched_decision *d); /* of reservations */
void ctl_admission_note(struct at_controllers *c, const struct at_snapshot *snap, const char *ns,
                        const char *name); /* the instance changed or has gone */
void ctl_admission_route(struct at_controllers *c, const struct at_snapshot *snap);
void ctl_admission_free(struct at_controllers *c);

/* scale.c: a gateway has told what it is asked for. */
void ctl_scale_report(struct at_controllers *c, const struct at_snapshot *snap, const char *name);

/* park.c: the same; an instance changed; Events and figures of one that did. */
void ctl_park_report(struct at_controllers *c, const char *name);
void ctl_park_route(struct at_controllers *c, const struct at_instance *i);
void ctl_park_tell(struct at_controllers *c, struct ctl_seen *seen, const struct at_instance *i);
bool ctl_parks(const struct at_instance *i);
bool ctl_holds_nothing(const struct at_instance *i); /* of its GPUs, being parked */
bool ctl_is_parked(const struct at_instance *i);     /* it serves as soon as somebody asks */

/* tell.c: an Event when an instance's reason is a new one. */
void ctl_tell_instance(struct at_controllers *c, struct ctl_seen *seen,
                       const struct at_instance *i);

/* Events about a node whose GPUs failed or came back. */
void ctl_tell_node(struct at_controllers *c, const struct at_node *node);

/* owner.c: what Deployment and Job share. */
struct ctl_owned {
    const struct at_instance **items;
    size_t n;
};
/* Instances whose controller is the Deployment or Job of this pass, uid, by name. */
struct ctl_owned ctl_owned_by(struct ctl_pass *p, const char *uid);
/* qsort's order of those to give up first: not bound to a node, then the newest. */
int ctl_by_least_done(const struct at_instance *x, const struct at_instance *y);
bool ctl_ended(const struct at_instance *i); /* Succeeded or Failed */
/* Failed through no fault of its own: its node or its GPU was lost, or had no room for it after all
 * (and an owner makes another one). */
bool ctl_lost(const struct at_instance *i);
bool ctl_is(const char *phase, const char *want);
const char *ctl_template_hash(struct ctl_pass *p, const json_t *template_json); /* in arena */
/* A new instance of owner from its template. label: CTL_LABEL_DEPLOYMENT or CTL_LABEL_JOB. */
json_t *ctl_make_instance(struct ctl_pass *p, const struct at_model_kind *kind,
                          const struct at_meta *owner, const json_t *template_json,
                          const char *label, const char *hash);
/* The owner is being deleted: finalizers that ask for its copies' fate first. */
void ctl_finish_owner(struct ctl_pass *p, const struct at_model_kind *kind,
                      const struct at_meta *owner);

bool ctl_drop_owner(void *ctx, json_t *object); /* at_state_change_fn; ctx: the owner's uid */
void ctl_drop_finalizer(struct ctl_pass *p, const struct at_model_kind *kind,
                        const struct at_meta *meta, const char *finalizer);

/* collect.c: garbage of any kind. */
void ctl_collect_route(struct at_controllers *c, const struct at_snapshot *snap,
                       const struct at_model_kind *kind, const char *ns, const char *name);
void ctl_collect_route_all(struct at_controllers *c, const struct at_snapshot *snap);
bool ctl_owner_exists(struct ctl_pass *p, const char *api_version, const char *kind_name,
                      const char *ns, const char *name, const char *uid);
/* What owner owns beside instances is deleted (foreground) or set free; true when nothing is left.
 */
bool ctl_release_owned(struct ctl_pass *p, const struct at_meta *owner);

/* node.c */
bool ctl_node_ready(const struct at_node *node);
bool ctl_node_lost(const struct at_node *node); /* Ready is False */
/* Nothing of the instance runs any more because its node is gone. */
void ctl_lose(struct ctl_pass *p, const struct at_instance *i, const char *message);
void ctl_health_start(struct at_controllers *c);
void ctl_health_done(struct at_controllers *c);

/* decision.c */
struct at_sched_decision;
/* status.decision: why there, or why nowhere and what would help. nodes: that were looked at. */
json_t *ctl_decision_json(const struct at_sched_decision *d, size_t nodes, const char *time);
/* There is something in it that its status does not say yet. */
bool ctl_decision_is_new(const struct at_instance *i, const struct at_sched_decision *d);
/* Other rules than those in its status keep the instance from every node: worth an Event. Figures
 * alone are not. */
bool ctl_reason_changed(const struct at_instance *i, const struct at_sched_decision *d);
/* What an Event says of it. */
const char *ctl_decision_sentence(const struct at_sched_decision *d, struct at_arena *arena);

/* taint.c: end what does not, or no longer, tolerate the node's NoExecute taints. */
void ctl_evict_by_taints(struct ctl_pass *p, const struct at_node *node);

/* The reconcilers. */
void ctl_deployment(struct ctl_pass *p);
void ctl_job(struct ctl_pass *p);
void ctl_placement(struct ctl_pass *p);
void ctl_node(struct ctl_pass *p);
void ctl_node_counts(struct ctl_pass *p);
void ctl_site_counts(struct ctl_pass *p);
void ctl_instance(struct ctl_pass *p);
void ctl_namespace(struct ctl_pass *p);
void ctl_collect(struct ctl_pass *p);
void ctl_queues(struct ctl_pass *p);
void ctl_reservations(struct ctl_pass *p);
void ctl_reschedule(struct ctl_pass *p);
void ctl_scale(struct ctl_pass *p);
void ctl_parking(struct ctl_pass *p);
void ctl_quota(struct ctl_pass *p);
void ctl_network(struct ctl_pass *p);
void ctl_aggregate(struct ctl_pass *p);

static inline const char *ctl_text(const char *s)
{
    return s != NULL ? s : "";
}

#endif
