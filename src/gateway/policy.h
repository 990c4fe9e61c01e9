/* How requests for one model wait, are tried again and given up: what its Deployment says, as plain
 * numbers. Pure. */
#ifndef AT_GATEWAY_POLICY_H
#define AT_GATEWAY_POLICY_H

#include "gateway/limits.h"
#include "metering/price.h"
#include "model/model.h"

#include <stdatomic.h>

enum gw_priority { GW_LOW, GW_NORMAL, GW_HIGH, GW_CRITICAL, GW_PRIORITIES };
enum gw_check { GW_CHECK_NONE, GW_CHECK_HTTP, GW_CHECK_TCP };

/* Answers that are kept for whoever asks the same. */
enum gw_cache_share { GW_CACHE_KEY, GW_CACHE_TEAM, GW_CACHE_NAMESPACE, GW_CACHE_EVERYONE };
enum gw_cache_charge { GW_CHARGE_FULL, GW_CHARGE_REQUEST, GW_CHARGE_NOTHING };
struct gw_cache_policy {
    enum gw_cache_share share;
    enum gw_cache_charge charge;
    int64_t ttl_ns;
};
void gw_cache_policy_of(const struct at_response_cache *cache, struct gw_cache_policy *ret);

struct gw_policy {
    /* Waiting, per loop. */
    int64_t wait_ns; /* 0: nobody waits */
    size_t wait_requests, wait_bytes;
    /* Limits; 0: none. */
    unsigned requests_max; /* under way, per loop */
    unsigned circuit_errors;
    int64_t circuit_ns;
    /* Retries. */
    unsigned attempts, retry_milli;
    /* Hedging. */
    bool hedges;            /* those that do not ask, too */
    unsigned hedge_centile; /* 0: after hedge_ns */
    int64_t hedge_ns;
    unsigned hedge_milli;
    /* Ejection by what answers tell. */
    unsigned eject_errors; /* 0: never */
    int64_t eject_ns, eject_max_ns;
    unsigned eject_share_milli;
    /* Questions that the gateway asks itself. */
    enum gw_check check;
    char check_path[256];
    int64_t check_interval_ns, check_timeout_ns;
    unsigned check_failures, check_successes;
    bool scales; /* the control plane wants to know what is asked */
    struct at_meter_price price;
    uint64_t output_tokens_max; /* under a budget, of a request that names no most */
    bool caches;
    struct gw_cache_policy cache;
};

/* What all loops know of the health of one replica, or of one model. Read by each request, written
 * when something goes wrong or is well again. */
struct gw_standing {
    atomic_int refs;
    atomic_uint errors;       /* in a row, whoever met them */
    atomic_uint opened;       /* times its circuit was, soon after one another */
    _Atomic int64_t until_ns; /* left alone until then; 0: its circuit is closed */
    atomic_bool trial;        /* past that time: one request tries it */
    atomic_bool sick;         /* by the gateway's own questions, which the first loop asks */
};
struct gw_standing *gw_standing_new(void);
struct gw_standing *gw_standing_ref(struct gw_standing *standing); /* accepts NULL */
void gw_standing_unref(struct gw_standing *standing);              /* accepts NULL */

/* What is asked of a model, by all loops; the first one reports it. */
struct gw_load {
    atomic_int refs;
    _Atomic int64_t waiting, running, arrived;
    atomic_bool told; /* the control plane knows that somebody waits */
    struct gw_standing *standing;
};

/* Without a Deployment: nobody waits, all else as a Deployment that says nothing. */
void gw_policy_default(struct gw_policy *ret);
void gw_policy_of(const struct at_deployment *deployment, struct gw_policy *ret);
/* The same from the members of a Deployment's spec that are about it. err: AT_INVALID, with the
 * field. */
enum at_rc gw_policy_parse(const json_t *spec, struct gw_policy *ret,
                           struct at_err *err) AT_WARN_UNUSED;
/* "p95" or "50ms". err: AT_INVALID. */
enum at_rc gw_hedge_parse(const char *text, unsigned *ret_centile, int64_t *ret_ns) AT_WARN_UNUSED;

struct gw_load *gw_load_new(void);
struct gw_load *gw_load_ref(struct gw_load *load);
void gw_load_unref(struct gw_load *load); /* accepts NULL */

#endif
