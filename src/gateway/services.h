/* Plain HTTP services: which hosts and paths belong to which Deployment. Rules are made by the
 * first loop, never change from then on, and are counted across threads. Pure but for the counting.
 */
#ifndef AT_GATEWAY_SERVICES_H
#define AT_GATEWAY_SERVICES_H

#include "core/buf.h"
#include "core/json.h"
#include "gateway/headers.h"
#include "net/http_server.h"

#include <stdatomic.h>

struct gw_rule {
    char *host; /* lower case; "": any; "*.x.org" without its star, ".x.org": any below x.org */
    char *path; /* without a last slash, decoded; "" is all */
    char
        *rewrite; /* what stands instead of path, without a last slash; NULL: nothing is replaced */
    char *model;  /* the route: a name that the table knows */
    char *owner;  /* "namespace/name", for messages */
    char *made;   /* creationTimestamp: of two that want the same, the older one has it */
    bool is_public;
};

struct gw_rules {
    atomic_int refs;
    struct gw_rule *rules; /* in the order in which they are asked: the first that fits has it */
    size_t n;
};

/* Of the services of Deployments (an array of objects) or of a static file's "services". Of those
 * that want the same host and path the older one stays; ret_lost (may be NULL) gets the owners of
 * the others, with a space between. err: AT_INVALID a static one that is malformed, by its field.
 * Malformed ones of Deployments cannot be: the API refuses them. own: gw_rules_unref. */
struct gw_rules *gw_rules_of(const json_t *deployments, struct at_buf *ret_lost);
enum at_rc gw_rules_parse(const char *text, size_t len, struct gw_rules **ret,
                          struct at_err *err) AT_WARN_UNUSED;
struct gw_rules *gw_rules_ref(struct gw_rules *rules);
void gw_rules_unref(struct gw_rules *rules); /* accepts NULL */

/* The one for this request: of hosts the exact one, then the longest wildcard, then none; among
 * those the longest path. Paths are compared segment by segment, decoded but for %2F, upper and
 * lower case as they are. NULL: nobody's. rules may be NULL. */
const struct gw_rule *gw_rules_find(const struct gw_rules *rules, const struct at_http_head *head);
/* Has the path a segment that is "." or "..", however spelt, or a byte that the replica could take
 * for the end of it? */
bool gw_service_path_is_unclear(struct at_str path);
/* The target for the replica: head's, with the rule's rewrite. err: AT_TOO_LARGE. */
enum at_rc gw_service_target(const struct gw_rule *rule, const struct at_http_head *head,
                             struct at_buf *out) AT_WARN_UNUSED;

/* What the replica is told of the client. Borrowed from ex. */
struct gw_forwarded gw_forwarded_of(const struct at_http_exchange *ex, bool is_tls, bool is_public);

#endif
