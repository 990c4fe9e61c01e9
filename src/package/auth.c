#include "package/auth.h"

#include "core/digest.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/str.h"
#include "package/limits.h"
#include "sys/file.h"
#include "sys/sys.h"

#include <stdio.h>
#include <string.h>

/* --- challenges --- */

static bool is_token(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

struct cursor {
    const char *p, *end;
};

static void blanks(struct cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t')) {
        c->p++;
    }
}

static struct at_str token(struct cursor *c)
{
    const char *from = c->p;
    while (c->p < c->end && is_token(*c->p)) {
        c->p++;
    }
    return (struct at_str){from, (size_t)(c->p - from)};
}

/* A token or a quoted string, into out. False: malformed, or too long. */
static bool value(struct cursor *c, char *out, size_t size)
{
    size_t n = 0;
    bool quoted = c->p < c->end && *c->p == '"';
    c->p += quoted;
    while (
        c->p < c->end &&
        (quoted ? *c->p != '"' : is_token(*c->p) || *c->p == '/' || *c->p == ':' || *c->p == '=')) {
        if (quoted && *c->p == '\\' && ++c->p == c->end) {
            return false;
        }
        if (n + 1 >= size || (unsigned char)*c->p < 0x20) {
            return false;
        }
        out[n++] = *c->p++;
    }
    out[n] = '\0';
    if (quoted && c->p++ == c->end) {
        return false;
    }
    return quoted || n > 0;
}

/* One name=value. False: malformed. */
static bool parameter(struct cursor *c, struct at_str name, bool bearer,
                      struct at_pkg_challenge *ret)
{
    char other[1024];
    char *out = other;
    size_t size = sizeof other;
    if (bearer && at_str_eq_nocase(name, "realm")) {
        out = ret->realm;
        size = sizeof ret->realm;
    } else if (bearer && at_str_eq_nocase(name, "service")) {
        out = ret->service;
        size = sizeof ret->service;
    } else if (bearer && at_str_eq_nocase(name, "scope")) {
        out = ret->scope;
        size = sizeof ret->scope;
    }
    c->p++; /* '=' */
    blanks(c);
    return value(c, out, size);
}

static bool parse_line(struct cursor *c, struct at_pkg_challenge *ret)
{
    bool bearer = false, in_scheme = false;
    for (;;) {
        while (c->p < c->end && (*c->p == ',' || *c->p == ' ' || *c->p == '\t')) {
            c->p++;
        }
        if (c->p == c->end) {
            return true;
        }
        struct at_str word = token(c);
        if (word.len == 0) {
            return false;
        }
        blanks(c);
        if (in_scheme && c->p < c->end && *c->p == '=') {
            if (!parameter(c, word, bearer, ret)) {
                return false;
            }
            blanks(c);
            continue;
        }
        in_scheme = true;
        bearer = at_str_eq_nocase(word, "bearer");
        ret->bearer = ret->bearer || bearer;
        ret->basic = ret->basic || at_str_eq_nocase(word, "basic");
    }
}

enum at_rc at_pkg_challenge_parse(const char *text, size_t len, struct at_pkg_challenge *ret,
                                  struct at_err *err)
{
    struct at_pkg_challenge c = {0};
    struct at_str rest = {text, len};
    while (rest.len > 0) {
        struct at_str line = at_str_cut(&rest, '\n');
        struct cursor at = {line.ptr, line.ptr + line.len};
        if (!parse_line(&at, &c)) {
            return at_err_set(err, AT_UPSTREAM,
                              "it asks for credentials in a way that makes no sense");
        }
    }
    c.bearer = c.bearer && c.realm[0] != '\0';
    if (!c.bearer && !c.basic) {
        return at_err_set(err, AT_UPSTREAM,
                          "it asks for credentials neither by Basic nor by Bearer");
    }
    *ret = c;
    return AT_OK;
}

/* --- credentials --- */

void at_pkg_credentials_done(struct at_pkg_credentials *c)
{
    at_free(c->user);
    at_free(c->password);
    at_free(c->identity_token);
    at_free(c->helper);
    *c = (struct at_pkg_credentials){0};
}

/* Keys are hosts, or URLs of them as old versions wrote. */
static bool key_is_host(const char *key, const char *host)
{
    const char *rest = strncmp(key, "https://", 8) == 0  ? key + 8
                       : strncmp(key, "http://", 7) == 0 ? key + 7
                                                         : key;
    size_t n = strcspn(rest, "/");
    bool is = n == strlen(host) && strncmp(rest, host, n) == 0;
    bool hub = strcmp(host, "registry-1.docker.io") == 0 || strcmp(host, "docker.io") == 0;
    return is || (hub && n == 15 && strncmp(rest, "index.docker.io", n) == 0);
}

static enum at_rc from_entry(const json_t *entry, struct at_pkg_credentials *ret,
                             struct at_err *err)
{
    const char *user = json_string_value(json_object_get(entry, "username"));
    const char *password = json_string_value(json_object_get(entry, "password"));
    const char *identity = json_string_value(json_object_get(entry, "identitytoken"));
    const char *auth = json_string_value(json_object_get(entry, "auth"));
    AT_CLEANUP(at_cleanup_buf) struct at_buf plain = {0};
    if (identity != NULL && identity[0] != '\0') {
        ret->identity_token = at_strdup(identity);
    } else if (auth != NULL && auth[0] != '\0') {
        if (at_base64_decode(auth, strlen(auth), &plain) != AT_OK || plain.len == 0 ||
            memchr(plain.data, ':', plain.len) == NULL) {
            return at_err_set(err, AT_CORRUPT, "its auth is no base64 of user:password");
        }
        size_t n = strcspn(plain.data, ":");
        ret->user = at_strndup(plain.data, n);
        ret->password = at_strdup(plain.data + n + 1);
    } else if (user != NULL && password != NULL) {
        ret->user = at_strdup(user);
        ret->password = at_strdup(password);
    }
    return AT_OK;
}

enum at_rc at_pkg_credentials_parse(const char *text, size_t len, const char *host,
                                    struct at_pkg_credentials *ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    if (len > PKG_CONFIG_BYTES_MAX || at_json_parse(text, len, &json, err) != AT_OK ||
        !json_is_object(json)) {
        return at_err_set(err, AT_CORRUPT, "it is no JSON object");
    }
    const char *key;
    json_t *entry;
    json_object_foreach(json_object_get(json, "auths"), key, entry)
    {
        if (key_is_host(key, host) && json_object_size(entry) > 0) {
            return from_entry(entry, ret, err);
        }
    }
    const json_t *helper = json_object_get(json_object_get(json, "credHelpers"), host);
    helper = helper != NULL ? helper : json_object_get(json, "credsStore");
    if (json_is_string(helper) && ret->helper == NULL) {
        ret->helper = at_strdup(json_string_value(helper));
    }
    return AT_OK;
}

static enum at_rc try_file(const char *path, const char *host, struct at_pkg_credentials *ret,
                           struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_file_read(path, PKG_CONFIG_BYTES_MAX, &text, err);
    if (rc == AT_NOT_FOUND) {
        return AT_OK;
    }
    rc = rc != AT_OK ? rc : at_pkg_credentials_parse(text.data, text.len, host, ret, err);
    return rc != AT_OK ? at_err_wrap(err, rc, "%s", path) : AT_OK;
}

enum at_rc at_pkg_credentials_find(const char *host, struct at_pkg_credentials *ret,
                                   struct at_err *err)
{
    const char *named = at_sys_getenv("REGISTRY_AUTH_FILE");
    const char *docker = at_sys_getenv("DOCKER_CONFIG");
    const char *home = at_sys_getenv("HOME");
    const char *run = at_sys_getenv("XDG_RUNTIME_DIR");
    char *paths[] = {
        at_strdup(named),
        docker != NULL ? at_asprintf("%s/config.json", docker) : NULL,
        home != NULL && docker == NULL ? at_asprintf("%s/.docker/config.json", home) : NULL,
        run != NULL ? at_asprintf("%s/containers/auth.json", run) : NULL,
    };
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < AT_ARRAY_LEN(paths); i++) {
        bool found = ret->user != NULL || ret->identity_token != NULL;
        if (paths[i] != NULL && rc == AT_OK && !found) {
            rc = try_file(paths[i], host, ret, err);
        }
        at_free(paths[i]);
    }
    return rc;
}

char *at_pkg_basic_header(const struct at_pkg_credentials *c)
{
    AT_CLEANUP(at_cleanup_free)
    char *plain = at_asprintf("%s:%s", c->user, c->password != NULL ? c->password : "");
    AT_CLEANUP(at_cleanup_buf) struct at_buf coded = {0};
    if (at_base64_encode(plain, strlen(plain), &coded) != AT_OK) {
        return at_strdup("Authorization: Basic ");
    }
    return at_asprintf("Authorization: Basic %s", coded.data);
}
