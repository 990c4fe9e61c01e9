/* The inside of a what-if replay. */
#ifndef AT_SIM_WHATIF_PRIV_H
#define AT_SIM_WHATIF_PRIV_H

#include "scheduler/scheduler.h"
#include "sim/whatif.h"

#define NOBODY UINT32_MAX

enum wi_state { WI_WAITING, WI_RUNNING, WI_ENDED };

struct wi_job {
    uint32_t request, copy, class_id;
    enum wi_state state;
    uint32_t node, gpus; /* bits; valid while shadowed */
    bool shadowed;       /* the packing engine knows of it */
    bool placed_once, evicted, back;
    bool leaving;  /* told to go: it runs until its grace is over */
    uint32_t next; /* in the queue of its class */
    int64_t arrived_ms, began_ms;
    int64_t left_ms;            /* life left at began_ms; AT_FLEET_NEVER: until the request's end */
    uint32_t turn;              /* of the placement: an earlier departure is void */
    struct at_instance *object; /* live: made when it arrives */
};

struct wi_node {
    const struct at_node *object; /* NULL: not there */
    struct at_pack_node size;
    bool usable, lost;
    const char *site;
    uint32_t jobs;
    uint32_t pack; /* its number in the packing engine; NOBODY: not in it */
    double usd_hour;
    struct at_watts gpu;
};

struct wi_site {
    const char *name;
    struct at_site *object; /* a copy that prices and carbon are written into */
    bool told;              /* object has what files say */
    double watts, grams_kwh;
};

struct wi_leave {
    int64_t at_ms;
    uint32_t job, turn;
};

/* Objects of one kind by (namespace, name), for snapshots. */
struct wi_list {
    const struct at_meta **items;
    size_t n, cap;
};
enum wi_kind {
    WI_SITES,
    WI_NODES,
    WI_DEPLOYMENTS,
    WI_JOBS,
    WI_POLICIES,
    WI_NAMESPACES,
    WI_QUEUES,
    WI_RESERVATIONS,
    WI_INSTANCES,
    WI_KINDS
};
struct wi_live; /* whatif_live.c; NULL: the packing engine decides */

struct wi_queue {
    uint32_t first, last;
    bool blocked; /* its first did not fit, and nothing has got free since */
};

struct wi {
    struct at_fleet *fleet;
    const struct at_whatif *what;
    const struct at_sys *sys;
    struct at_whatif_result *out;
    struct at_err *err;
    enum at_rc rc;
    int64_t now_ms, end_ms;
    struct wi_node *nodes;
    struct wi_site *sites;
    size_t n_sites;
    struct wi_job *jobs;
    size_t n_jobs;
    struct wi_queue *queues; /* by class */
    size_t n_pending, n_running;
    struct wi_leave *heap;
    size_t n_heap, heap_cap;
    bool freed; /* room may have come since the last decisions */
    /* The packing engine: decides, or only measures fragmentation for the live scheduler. */
    struct at_pack *pack;
    uint32_t *node_of_pack, *pack_class;
    bool pack_stale; /* nodes have changed */
    struct wi_live *live;
    /* Sums of what is there and taken now. */
    int64_t gpu_milli, used_gpu_milli, cpu_milli, used_cpu_milli;
    uint32_t nodes_used;
    double usd_hour;
    int64_t measured_ms, next_point_ms, lost_ms;
    double gpu_ms_capacity, gpu_ms_used, gpu_ms_fragmented;
    double *waits;
    size_t n_waits;
};

/* whatif.c */
const struct at_fleet_class *wi_class(const struct wi *w, const struct wi_job *j);
const struct at_fleet_request *wi_request(const struct wi *w, const struct wi_job *j);
void wi_bind(struct wi *w, uint32_t job, uint32_t node); /* it waits; it is the queue's first */
uint32_t wi_queue_take(struct wi *w, uint32_t class_id);
void wi_requeue(struct wi *w, uint32_t job); /* it runs no more, and waits again */
/* It is told to go: it runs on for its grace, unless that is nothing. */
void wi_tell_to_go(struct wi *w, uint32_t job);

/* whatif_pack.c */
enum at_rc wi_pack_begin(struct wi *w) AT_WARN_UNUSED; /* or again, when nodes have changed */
void wi_pack_decide(struct wi *w);
/* By the live scheduler, on j->node. */
void wi_pack_taken(struct wi *w, struct wi_job *j, const struct at_sched_gpu *held, size_t n);
void wi_pack_release(struct wi *w, struct wi_job *j);

/* whatif_live.c; without a live scheduler these do nothing */
void wi_live_begin(struct wi *w);
void wi_live_done(struct wi *w);
void wi_live_decide(struct wi *w);
void wi_live_arrive(struct wi *w, struct wi_job *j); /* it waits, from now on or again */
void wi_live_leave(struct wi *w, struct wi_job *j);
void wi_live_deleted(struct wi *w, struct wi_job *j); /* it runs, and has been told to go */
void wi_live_put(struct wi *w, const struct at_model_kind *kind, const struct at_meta *meta);
void wi_live_remove(struct wi *w, const struct at_model_kind *kind, const char *ns,
                    const char *name);

/* whatif_meter.c */
void wi_meter_node(struct wi *w, struct wi_node *n);               /* its price and power */
void wi_meter_sites(struct wi *w);                                 /* prices and carbon at now */
void wi_meter_job(struct wi *w, const struct wi_job *j, int sign); /* it takes or gives back */
void wi_meter_until(struct wi *w, int64_t ms);                     /* time passes up to ms */
void wi_meter_end(struct wi *w);

/* whatif_change.c: the what-ifs that change the fleet beforehand. */
enum at_rc wi_change_fleet(struct at_fleet *fleet, const struct at_whatif *what,
                           struct at_err *err) AT_WARN_UNUSED;

#endif
