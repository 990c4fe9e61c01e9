/* Which replicas are left alone: those that answers, connections and the gateway's own questions
 * tell nothing good of. A circuit per replica (closed, open for a time that grows, half open for
 * one request) and one per model, for when nothing helps. One judgement of all loops (gw_standing).
 */
#ifndef AT_GATEWAY_HEALTH_H
#define AT_GATEWAY_HEALTH_H

#include "core/metrics.h"
#include "gateway/policy.h"

struct gw_model;
struct gw_replica;
struct gw_metrics;

/* When something happened, and where it is counted (NULL: nowhere). */
struct gw_moment {
    struct gw_metrics *metrics;
    int64_t now_ns;
};

enum gw_circuit_state { GW_CLOSED, GW_OPEN, GW_HALF_OPEN };

struct gw_circuit {
    enum gw_circuit_state state;
    unsigned errors; /* in a row */
    unsigned opened; /* times, each soon after the last */
    int64_t until_ns, closed_ns;
    bool trial; /* half open: the one request is under way */
};

/* What an attempt told of its replica. */
enum gw_outcome {
    GW_FINE,
    GW_NOTHING,   /* given up by us */
    GW_UNREACHED, /* no connection came about */
    GW_ERROR,     /* broken off, late, no HTTP, or a status that says so */
};

bool gw_replica_avoided(const struct gw_replica *replica, int64_t now_ns);
/* cost_milli: how much work the request is (gw_wish); the same when it leaves. */
void gw_replica_enter(struct gw_moment at, struct gw_model *model, struct gw_replica *replica,
                      unsigned cost_milli);
/* Its place (gw_choose_take) is given back. */
void gw_replica_leave(struct gw_moment at, struct gw_model *model, struct gw_replica *replica,
                      unsigned cost_milli, enum gw_outcome outcome);
/* What the gateway's own question found out. */
void gw_replica_checked(struct gw_moment at, struct gw_model *model, struct gw_replica *replica,
                        bool well);
/* It leaves the view: its circuit counts no more. */
void gw_replica_forget(struct gw_moment at, struct gw_model *model, struct gw_replica *replica);
bool gw_status_is_error(int status);

/* May a request for the model go anywhere? false: 503 at once. */
bool gw_model_allows(struct gw_moment at, struct gw_model *model);
/* It has a new replica: no need to wait until the circuit may close. */
void gw_model_hope(struct gw_moment at, struct gw_model *model);
void gw_model_forget(struct gw_moment at, struct gw_model *model); /* it leaves the view */
void gw_model_note(struct gw_moment at, struct gw_model *model, bool answered);

/* Retries: a share of the model's requests, and some a second. */
struct gw_budget {
    int64_t milli; /* saved, in thousandths */
    int64_t at_ns; /* when the floor was last added */
};
void gw_retry_start(struct gw_budget *budget, int64_t now_ns);
void gw_retry_earn(struct gw_budget *budget, const struct gw_policy *policy);
bool gw_retry_take(struct gw_budget *budget, int64_t now_ns); /* false: it is spent */

#endif
