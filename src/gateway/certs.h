/* The certificate that the gateway shows its clients, read again while it runs. */
#ifndef AT_GATEWAY_CERTS_H
#define AT_GATEWAY_CERTS_H

#include "core/metrics.h"
#include "loop/loop.h"
#include "net/tls.h"

struct gw_certs;

struct gw_certs_options {
    struct at_loop *loop;
    const char *cert_file, *key_file; /* PEM; copied */
    struct at_metrics *metrics;
    /* A new configuration, borrowed: for the connections that come from now on. Not called for the
     * first one. */
    void (*on_change)(void *ctx, struct at_tls_config *config);
    void *ctx;
};

/* Read both files, and from then on look at them every AT_GW_CERT_LOOK_NS: what changed and fits
 * together is told; what does not is logged once, and the old one stays. Content is compared, not
 * times, so that links, renames and copies are all seen.
 * err: AT_INVALID they do not fit, or hold no PEM; AT_NOT_FOUND, AT_FORBIDDEN, AT_IO of the files.
 * own: gw_certs_free. thread: the loop's. */
enum at_rc gw_certs_new(const struct gw_certs_options *options, struct gw_certs **ret,
                        struct at_err *err) AT_WARN_UNUSED;
void gw_certs_free(struct gw_certs *certs);                      /* accepts NULL */
struct at_tls_config *gw_certs_config(const struct gw_certs *c); /* borrowed */
void gw_certs_look(struct gw_certs *certs);                      /* now; accepts NULL */

#endif
