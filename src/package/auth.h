/* Who we are to a registry: challenges (RFC 9110 §11.6.1), credentials by docker's config.json, and
 * the tokens of the distribution specification. Parsing is pure. */
#ifndef AT_PACKAGE_AUTH_H
#define AT_PACKAGE_AUTH_H

#include "core/buf.h"

struct at_pkg_challenge {
    bool bearer, basic;
    char realm[1024], service[256], scope[1024]; /* of Bearer */
};

/* WWW-Authenticate values, a line each; schemes that are not known are passed over.
 * err: AT_UPSTREAM neither Bearer nor Basic is among them, or they are malformed. */
enum at_rc at_pkg_challenge_parse(const char *text, size_t len, struct at_pkg_challenge *ret,
                                  struct at_err *err) AT_WARN_UNUSED;

struct at_pkg_credentials {
    char *user, *password;
    char *identity_token; /* instead of both */
    char *helper;         /* name of the credential helper that may have them; it is not asked */
};
void at_pkg_credentials_done(struct at_pkg_credentials *credentials);
/* config.json as docker, podman and skopeo write it: those of host ("registry.example.com:5000").
 * *ret stays empty where there are none.
 * err: AT_CORRUPT no such file's text. */
enum at_rc at_pkg_credentials_parse(const char *text, size_t len, const char *host,
                                    struct at_pkg_credentials *ret,
                                    struct at_err *err) AT_WARN_UNUSED;
/* The first of $REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json, ~/.docker/config.json,
 * $XDG_RUNTIME_DIR/containers/auth.json that has any for host. */
enum at_rc at_pkg_credentials_find(const char *host, struct at_pkg_credentials *ret,
                                   struct at_err *err) AT_WARN_UNUSED;
/* The header line, without its end; own: caller at_free. */
char *at_pkg_basic_header(const struct at_pkg_credentials *credentials);

#endif
