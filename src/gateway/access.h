/* The access log: a line of JSON for each request, or for a share of them by class of status. Lines
 * gather in the loop and are appended by another thread; the file is opened anew each time, so it
 * may be renamed (rotated) at any moment. */
#ifndef AT_GATEWAY_ACCESS_H
#define AT_GATEWAY_ACCESS_H

#include "core/metrics.h"
#include "loop/loop.h"
#include "loop/pool.h"

struct gw_access;

/* "1", "0.01", or "2xx=0.01,4xx=1,5xx=1" (what is not named: 1) as shares of 2^32, by status / 100.
 * err: AT_INVALID. */
enum at_rc gw_access_rates(const char *text, uint64_t ret_rates[6],
                           struct at_err *err) AT_WARN_UNUSED;

/* path: copied; "-" is standard output. rates: by status / 100, as above; copied. */
struct gw_access *gw_access_new(struct at_loop *loop, struct at_pool *pool,
                                struct at_metrics *metrics, const char *path,
                                const uint64_t rates[6]);
void gw_access_free(struct gw_access *access);  /* writes what is left; accepts NULL */
void gw_access_flush(struct gw_access *access); /* soon; accepts NULL */
/* Would a request with this random number be in the log with this status? -1: with any? access may
 * be NULL: no. */
bool gw_access_wants(const struct gw_access *access, uint32_t random, int status);
/* A whole line, with its \n; too many that wait are dropped and counted. */
void gw_access_put(struct gw_access *access, const char *line, size_t len);

#endif
