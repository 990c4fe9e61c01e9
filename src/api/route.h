/* Paths to what they mean. Pure. */
#ifndef AT_API_ROUTE_H
#define AT_API_ROUTE_H

#include "core/str.h"
#include "model/model.h"

enum api_target {
    API_HEALTH,
    API_VERSION,
    API_METRICS,
    API_DISCOVERY,
    API_OPENAPI,
    API_JOIN,
    API_JOIN_TOKENS,
    API_JOIN_RENEW,
    API_JOIN_SERVERS,
    API_REVIEW, /* authorization.k8s.io, authentication.k8s.io: group and resource are set */
    API_RESOURCE,
    API_BACKUP,
    API_SECRETS, /* the keys that Secrets are sealed with */
    API_SECRETS_ROTATE,
    API_ACCESS_TOKENS,
};

#define API_NAME_BYTES 256

struct api_route {
    enum api_target target;
    char path[2048];                  /* decoded */
    const struct at_model_kind *kind; /* API_RESOURCE */
    bool pod;                         /* core v1 pods: kind is that of Instances, shown as Pods */
    char group[64], resource[64];
    char ns[API_NAME_BYTES];   /* "" : all namespaces, or a cluster-scoped kind */
    char name[API_NAME_BYTES]; /* "" : the collection */
    char subresource[64];
    char tail[API_NAME_BYTES]; /* what follows the subresource: tunnel/ID */
};

/* err: AT_NOT_FOUND nothing is there; AT_BAD_REQUEST a bad escape, or a '/', '%' or control
 * character within a name; AT_TOO_LARGE. */
enum at_rc api_route_parse(struct at_str path, struct api_route *ret,
                           struct at_err *err) AT_WARN_UNUSED;

#endif
