/* URLs as people write them in manifests and options (RFC 3986, the parts that Atoll uses). */
#include "net/url.h"

#include <stdio.h>

static bool is_scheme(struct at_str s)
{
    if (s.len == 0 || s.len >= sizeof((struct at_url *)0)->scheme) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool letter = c >= 'a' && c <= 'z';
        bool later = (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.';
        if (!letter && (i == 0 || !later)) {
            return false;
        }
    }
    return true;
}

static bool is_clean(struct at_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c <= ' ' || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool is_host(struct at_str s, bool v6)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool name = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '-' || c == '.' || c == '_';
        if (!name && !(v6 && (c == ':' || c == '%'))) {
            return false;
        }
    }
    return s.len > 0;
}

static enum at_rc copy(struct at_str from, char *to, size_t size, const char *what,
                       struct at_err *err)
{
    if (from.len >= size) {
        return at_err_set(err, AT_INVALID, "the URL's %s is longer than %zu bytes", what, size - 1);
    }
    memcpy(to, from.ptr, from.len);
    to[from.len] = '\0';
    return AT_OK;
}

/* "[::1]:80", "host:80", "host". */
static enum at_rc parse_authority(struct at_str auth, struct at_url *u, struct at_err *err)
{
    struct at_str host = auth, port = {NULL, 0};
    bool v6 = auth.len > 0 && auth.ptr[0] == '[';
    if (v6) {
        const char *close = memchr(auth.ptr, ']', auth.len);
        if (close == NULL) {
            return at_err_set(err, AT_INVALID, "the URL's host lacks its `]`");
        }
        host = (struct at_str){auth.ptr + 1, (size_t)(close - auth.ptr) - 1};
        struct at_str rest = {close + 1, auth.len - host.len - 2};
        if (rest.len > 0 && rest.ptr[0] != ':') {
            return at_err_set(err, AT_INVALID, "unexpected text after the URL's host");
        }
        port = rest.len > 0 ? (struct at_str){rest.ptr + 1, rest.len - 1} : rest;
    } else {
        const char *colon = memchr(auth.ptr, ':', auth.len);
        if (colon != NULL) {
            host.len = (size_t)(colon - auth.ptr);
            port = (struct at_str){colon + 1, auth.len - host.len - 1};
        }
    }
    if (!is_host(host, v6)) {
        return at_err_set(err, AT_INVALID, "the URL's host is missing or malformed");
    }
    uint64_t number = strcmp(u->scheme, "https") == 0 ? 443 : 80;
    if (port.len > 0 && (at_str_to_u64(port, &number) != AT_OK || number == 0 || number > 65535)) {
        return at_err_set(err, AT_INVALID, "the URL's port is not a number from 1 to 65535");
    }
    u->port = (int)number;
    enum at_rc rc = copy(host, u->host, sizeof u->host, "host", err);
    if (rc == AT_OK) {
        snprintf(u->addr, sizeof u->addr, v6 ? "[%s]:%d" : "%s:%d", u->host, u->port);
    }
    return rc;
}

static enum at_rc parse_http(struct at_str rest, struct at_url *u, struct at_err *err)
{
    size_t n = 0;
    while (n < rest.len && rest.ptr[n] != '/' && rest.ptr[n] != '?' && rest.ptr[n] != '#') {
        n++;
    }
    enum at_rc rc = parse_authority((struct at_str){rest.ptr, n}, u, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_str target = {rest.ptr + n, rest.len - n};
    const char *fragment = memchr(target.ptr, '#', target.len);
    if (fragment != NULL) {
        target.len = (size_t)(fragment - target.ptr);
    }
    bool bare = target.len == 0 || target.ptr[0] != '/';
    u->target[0] = '/';
    return copy(target, u->target + bare, sizeof u->target - bare, "path", err);
}

enum at_rc at_url_parse(const char *text, struct at_url *ret, struct at_err *err)
{
    struct at_url u = {0};
    struct at_str all = at_str_of(text);
    const char *sep = text == NULL ? NULL : strstr(text, "://");
    struct at_str scheme = {text, sep == NULL ? 0 : (size_t)(sep - text)};
    if (sep == NULL || !is_scheme(scheme)) {
        return at_err_set(err, AT_INVALID, "not a URL (expected scheme://...)");
    }
    if (!is_clean(all)) {
        return at_err_set(err, AT_INVALID, "the URL has a blank or a control character");
    }
    memcpy(u.scheme, scheme.ptr, scheme.len);
    struct at_str rest = {sep + 3, all.len - scheme.len - 3};
    enum at_rc rc;
    if (strcmp(u.scheme, "http") == 0 || strcmp(u.scheme, "https") == 0) {
        rc = parse_http(rest, &u, err);
    } else if (strcmp(u.scheme, "unix") == 0 || strcmp(u.scheme, "file") == 0) {
        if (rest.len < 2 || rest.ptr[0] != '/') {
            return at_err_set(err, AT_INVALID, "%s:// needs an absolute path", u.scheme);
        }
        rc = copy(rest, u.target, sizeof u.target, "path", err);
        if (rc == AT_OK && u.scheme[0] == 'u') {
            if (rest.len + sizeof "unix:" > sizeof u.addr) {
                return at_err_set(err, AT_INVALID, "the URL's socket path is too long");
            }
            snprintf(u.addr, sizeof u.addr, "unix:%.*s", (int)rest.len, rest.ptr);
            snprintf(u.target, sizeof u.target, "/");
        }
    } else {
        return at_err_set(err, AT_INVALID, "URL scheme `%s` is not one of http, https, unix, file",
                          u.scheme);
    }
    if (rc == AT_OK) {
        *ret = u;
    }
    return rc;
}
