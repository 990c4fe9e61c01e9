/* What the files about registries share. */
#ifndef AT_PACKAGE_REGISTRY_PRIV_H
#define AT_PACKAGE_REGISTRY_PRIV_H

#include "package/registry.h"

#include <pthread.h>

struct at_pkg_registry {
    struct at_pkg_curl *curl;
    struct at_pkg_registry_options options;
    char *base; /* "https://host" */
    const struct at_pkg_credentials *credentials;
    pthread_mutex_t lock; /* of what follows */
    char *header;         /* Authorization line; NULL: none yet */
    uint64_t generation;  /* of header */
};

struct at_pkg_session {
    struct at_pkg_registry *registry;
    struct at_pkg_http *http;
    struct at_pkg_http_answer answer; /* of the last call */
    struct at_buf error_body;
};

/* One call to path ("/v2/...") of the registry, or to a whole URL: with credentials where they
 * belong, redirects followed for GET and HEAD, tried once more after a 401. What the request's
 * callbacks get is the last answer's, when its status is below 300; else error_body has it.
 * AT_OK: an answer came. */
enum at_rc at_pkg_call(struct at_pkg_session *s, const struct at_pkg_http_request *request,
                       struct at_err *err) AT_WARN_UNUSED;
/* What an answer that is no success means. Never AT_OK. */
enum at_rc at_pkg_refusal(struct at_pkg_session *s, const char *what, struct at_err *err);
/* Worth another try? waits for the next one: false when it was the last. */
bool at_pkg_again(struct at_pkg_session *s, enum at_rc rc, unsigned *tries);
/* Where an upload goes on: the answer's Location, made absolute. own: caller at_free. NULL: none.
 */
char *at_pkg_location(struct at_pkg_session *s, const char *asked_url);
/* Gets a token for what the answer challenges for. auth.c's other half. */
enum at_rc at_pkg_authorize(struct at_pkg_session *s, uint64_t generation_used,
                            struct at_err *err) AT_WARN_UNUSED;

#endif
