/* Where etcd is and how to be let in: "https://a:2379,https://b:2379?ca=FILE&cert=FILE&key=FILE&
 * user=NAME&password-file=FILE". Secrets stand in files, so that no list of processes shows them.
 * The files are read anew when connections fail, so that certificates can be renewed in place. */
#include "core/mem.h"
#include "net/url.h"
#include "store/etcd_priv.h"
#include "sys/file.h"

#include <string.h>

static enum at_rc option_take(struct at_etcd *e, struct at_str one, struct at_err *err)
{
    const struct {
        const char *name;
        char **value;
    } known[] = {
        {"ca", &e->ca_file},
        {"cert", &e->cert_file},
        {"key", &e->key_file},
        {"user", &e->user},
        {"password-file", &e->password_file},
    };
    char text[AT_STORE_ETCD_OPTION_BYTES_MAX];
    struct at_str value = one;
    struct at_str name = at_str_cut(&value, '=');
    for (size_t i = 0; i < AT_ARRAY_LEN(known); i++) {
        if (!at_str_eq(name, known[i].name)) {
            continue;
        }
        if (value.len == 0 || *known[i].value != NULL ||
            at_percent_decode(value, false, text, sizeof text) != AT_OK) {
            return at_err_set(err, AT_INVALID, "store etcd: option %s needs one value",
                              known[i].name);
        }
        *known[i].value = at_strdup(text);
        return AT_OK;
    }
    return at_err_set(err, AT_INVALID,
                      "store etcd: option %.*s is none of ca, cert, key, user, password-file",
                      (int)(name.len < 64 ? name.len : 64), name.ptr);
}

static enum at_rc options_check(const struct at_etcd *e, struct at_err *err)
{
    if ((e->cert_file == NULL) != (e->key_file == NULL)) {
        return at_err_set(err, AT_INVALID, "store etcd: options cert and key go together");
    }
    if ((e->user == NULL) != (e->password_file == NULL)) {
        return at_err_set(err, AT_INVALID,
                          "store etcd: options user and password-file go together");
    }
    bool for_tls = e->ca_file != NULL || e->cert_file != NULL;
    if (for_tls && !e->secure) {
        return at_err_set(err, AT_INVALID,
                          "store etcd: ca, cert and key are for https:// addresses");
    }
    return AT_OK;
}

static enum at_rc endpoint_take(struct at_etcd *e, const char *text, struct at_err *err)
{
    struct at_url url;
    if (strchr(text, '@') != NULL) {
        return at_err_set(err, AT_INVALID,
                          "store etcd: give the user as ?user=NAME&password-file=FILE");
    }
    enum at_rc rc = at_url_parse(text, &url, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "store etcd");
    }
    bool secure = strcmp(url.scheme, "https") == 0;
    if ((!secure && strcmp(url.scheme, "http") != 0) || strcmp(url.target, "/") != 0) {
        return at_err_set(err, AT_INVALID,
                          "store etcd: %s: give etcd's address as http(s)://host:port", text);
    }
    if (e->n_addrs == AT_STORE_ETCD_ENDPOINTS_MAX) {
        return at_err_set(err, AT_INVALID, "store etcd: more than %d endpoints",
                          AT_STORE_ETCD_ENDPOINTS_MAX);
    }
    if (e->n_addrs != 0 && secure != e->secure) {
        return at_err_set(err, AT_INVALID,
                          "store etcd: either all addresses are https:// or none is");
    }
    e->secure = secure;
    e->addrs[e->n_addrs++] = at_strdup(url.addr);
    return AT_OK;
}

enum at_rc at_etcd_options_parse(struct at_etcd *e, const char *text, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *copy = at_strdup(text);
    char *options = strchr(copy, '?');
    if (options != NULL) {
        *options++ = '\0';
    }
    char *rest = copy;
    for (char *one = strsep(&rest, ","); one != NULL; one = strsep(&rest, ",")) {
        enum at_rc rc = endpoint_take(e, one, err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    struct at_str all = at_str_of(options != NULL ? options : "");
    while (all.len != 0) {
        enum at_rc rc = option_take(e, at_str_cut(&all, '&'), err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    return options_check(e, err);
}

static enum at_rc file_read(const char *path, const char *what, struct at_buf *out,
                            struct at_err *err)
{
    enum at_rc rc =
        path != NULL ? at_file_read(path, AT_STORE_ETCD_OPTION_FILE_BYTES_MAX, out, err) : AT_OK;
    return rc == AT_OK ? AT_OK : at_err_wrap(err, rc, "store etcd: %s", what);
}

enum at_rc at_etcd_tls_load(struct at_etcd *e, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf ca = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf cert = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf key = {0};
    if (!e->secure) {
        return AT_OK;
    }
    if (e->ca_file == NULL) {
        return at_err_set(err, AT_INVALID,
                          "store etcd: name the authority of etcd's certificate: ?ca=FILE");
    }
    enum at_rc rc = file_read(e->ca_file, "ca", &ca, err);
    if (rc == AT_OK) {
        rc = file_read(e->cert_file, "cert", &cert, err);
    }
    if (rc == AT_OK) {
        rc = file_read(e->key_file, "key", &key, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    struct at_tls_options options = {
        .cert_pem = cert.data, .key_pem = key.data, .ca_pem = ca.data, .verify_peer = true};
    struct at_tls_config *tls;
    rc = at_tls_config_new(&options, &tls, err);
    if (key.data != NULL) {
        explicit_bzero(key.data, key.len);
    }
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "store etcd");
    }
    at_tls_config_unref(e->tls);
    e->tls = tls;
    return AT_OK;
}

/* The body of a call to authenticate. The password's line break is not part of it. */
enum at_rc at_etcd_password_text(struct at_etcd *e, struct at_buf *out, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = file_read(e->password_file, "password-file", &text, err);
    if (rc != AT_OK) {
        return rc;
    }
    size_t len = text.len;
    while (len != 0 && (text.data[len - 1] == '\n' || text.data[len - 1] == '\r')) {
        len--;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *body =
        json_pack("{s:s, s:s%}", "name", e->user, "password", len != 0 ? text.data : "", len);
    rc = body != NULL ? at_json_dump(body, out) : AT_INVALID;
    if (text.data != NULL) {
        explicit_bzero(text.data, text.len);
    }
    return rc == AT_OK ? AT_OK
                       : at_err_set(err, AT_INVALID, "store etcd: user or password is no UTF-8");
}

void at_etcd_options_done(struct at_etcd *e)
{
    char *all[] = {e->ca_file, e->cert_file, e->key_file, e->user, e->password_file};
    for (size_t i = 0; i < AT_ARRAY_LEN(all); i++) {
        at_free(all[i]);
    }
    for (size_t i = 0; i < e->n_addrs; i++) {
        at_free(e->addrs[i]);
    }
    at_tls_config_unref(e->tls);
    if (e->headers != NULL) {
        explicit_bzero(e->headers, strlen(e->headers));
        at_free(e->headers);
    }
}
