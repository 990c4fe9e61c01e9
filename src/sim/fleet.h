/* What a replay is about: nodes, sites and other objects as they come and go, and requests with
 * when they arrive and how long they run. Made from openb files, or from what `atoll record` wrote
 * (docs/howto/simulate.md tells the format). */
#ifndef AT_SIM_FLEET_H
#define AT_SIM_FLEET_H

#include "core/arena.h"
#include "core/map.h"
#include "model/model.h"
#include "sim/trace.h"

#define AT_FLEET_REQUESTS_MAX 2000000
#define AT_FLEET_CHANGES_MAX 2000000
#define AT_FLEET_BYTES_MAX ((size_t)4 << 30)
#define AT_FLEET_LINE_BYTES_MAX ((size_t)1 << 20)
#define AT_FLEET_TIME_MS_MAX (INT64_C(1) << 46) /* 2,000 years */

/* An object that is put, or goes. The first of them, at 0, are the world that is met. */
struct at_fleet_change {
    int64_t at_ms;
    const struct at_model_kind *kind;
    const char *ns, *name;
    const void *object; /* of the kind's struct; NULL: it goes */
    uint32_t node;      /* of nodes */
};

/* Requests alike in all that placement looks at. */
struct at_fleet_class {
    const struct at_instance *like; /* name and namespace are the request's own */
    struct at_pack_request pack;    /* what packing policies see of it */
};

#define AT_FLEET_NEVER INT64_C(-1)
struct at_fleet_request {
    const char *ns, *name;
    uint32_t class_id, node; /* node: where it was placed in a recording; else AT_FLEET_NO_NODE */
    int64_t at_ms, created_wall_ns;
    int64_t life_ms; /* from its placement on; AT_FLEET_NEVER: until end_ms */
    int64_t end_ms;  /* AT_FLEET_NEVER: it stays */
};
#define AT_FLEET_NO_NODE UINT32_MAX

struct at_fleet {
    struct at_arena *arena;
    const char **node_names; /* by first appearance */
    size_t n_nodes;
    struct at_fleet_change *changes; /* by time */
    size_t n_changes;
    struct at_fleet_class *classes;
    size_t n_classes;
    struct at_fleet_request *requests; /* by arrival */
    size_t n_requests;
    int64_t *decided_ms; /* a recording's: when placements were seen to be made */
    size_t n_decided;
    int64_t start_wall_ns, end_ms;
    const char *models[AT_PACK_MODELS_MAX];
    size_t n_models;
    struct at_map *node_index, *class_index; /* size_t + 1 as pointers */
    json_t *kept;                            /* what objects borrow from */
    size_t nodes_cap, changes_cap, classes_cap, requests_cap, decided_cap;
};

struct at_fleet *at_fleet_new(void);
void at_fleet_free(struct at_fleet *fleet); /* accepts NULL */

enum at_fleet_arrivals {
    AT_FLEET_BY_TRACE, /* times of the trace */
    AT_FLEET_EVEN,     /* evenly, at the rate by which those alive ask for `load` of the GPUs */
    AT_FLEET_FILLING,  /* one a second, nobody leaves: the published protocol */
};
struct at_fleet_openb {
    enum at_fleet_arrivals arrivals;
    double load;     /* 1: all GPUs */
    uint32_t passes; /* EVEN: how often the pod list is gone through */
    uint64_t seed;   /* of the order, with EVEN and FILLING */
};
/* err: AT_INVALID no times where they are needed, or what does not fit. */
enum at_rc at_fleet_from_openb(const struct at_trace *trace, const struct at_fleet_openb *how,
                               struct at_fleet **ret, struct at_err *err) AT_WARN_UNUSED;
/* err: AT_INVALID "file:line: what is wrong". text is not kept. */
enum at_rc at_fleet_read(const char *file, struct at_str text, struct at_fleet **ret,
                         struct at_err *err) AT_WARN_UNUSED;

/* The nodes of trace instead of its own. */
enum at_rc at_fleet_replace_nodes(struct at_fleet *fleet, const struct at_trace *trace,
                                  struct at_err *err) AT_WARN_UNUSED;

/* --- for those who make one, or change it --- */
uint32_t at_fleet_node(struct at_fleet *fleet, const char *name); /* index; made when new */
/* err: AT_TOO_LARGE */
enum at_rc at_fleet_change(struct at_fleet *fleet, const struct at_fleet_change *change,
                           struct at_err *err) AT_WARN_UNUSED;
/* Of all instances with this key. like: borrowed. err: AT_TOO_LARGE */
enum at_rc at_fleet_class(struct at_fleet *fleet, const char *key, const struct at_instance *like,
                          uint32_t *ret, struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_fleet_request(struct at_fleet *fleet, const struct at_fleet_request *request,
                            struct at_err *err) AT_WARN_UNUSED;
/* Sorts everything by time; the end is the last thing that happens. */
void at_fleet_sort(struct at_fleet *fleet);
/* A ready node. gpus of model ("" or NULL: none). In the fleet's arena. NULL: no memory left. */
struct at_node *at_fleet_make_node(struct at_fleet *fleet, const char *name, const char *site,
                                   int64_t cpu_milli, int64_t memory_bytes, uint32_t gpus,
                                   const char *model);
struct at_site *at_fleet_make_site(struct at_fleet *fleet, const char *name, const char *class_name,
                                   const char *jurisdiction);
/* What packing policies see of a node; *ret_usable: ready, not cordoned, not going. */
struct at_pack_node at_fleet_node_size(struct at_fleet *fleet, const struct at_node *node,
                                       bool *ret_usable);

#endif
