/* What `scan --live` looks at beside stored objects: the connection itself, that is the
 * kubeconfig's context in use and the certificate that the server shows. */
#include "cli/scan_priv.h"
#include "core/str.h"
#include "core/units.h"
#include "net/stream.h"
#include "net/url.h"

#include <string.h>

#define CONNECT_MS 5000

struct meeting {
    struct at_stream *stream;
    struct at_tls_peer peer;
    bool met, over;
};

static void on_open(void *ctx)
{
    struct meeting *m = ctx;
    const struct at_tls_peer *peer = at_stream_peer(m->stream);
    m->met = peer != NULL;
    if (m->met) {
        m->peer = *peer;
    }
    at_stream_close(m->stream);
}

static size_t on_data(void *ctx, const char *data, size_t len)
{
    (void)ctx, (void)data;
    return len;
}

static void on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    (void)rc, (void)err;
    ((struct meeting *)ctx)->over = true;
}

/* The server that requests go to has been spoken with by now: this is its certificate. */
static bool meet(struct cli *cli, struct meeting *m)
{
    const struct at_client_options *o = &cli->config->options;
    AT_CLEANUP(at_cleanup_free) char *first = at_strndup(o->server, strcspn(o->server, ","));
    struct at_url url;
    struct at_tls_config *tls = NULL;
    const struct at_tls_options options = {.ca_pem = o->ca_pem, .verify_peer = true};
    const struct at_stream_events events = {
        .ctx = m, .on_open = on_open, .on_data = on_data, .on_close = on_close};
    if (at_url_parse(first, &url, NULL) != AT_OK || !at_streq(url.scheme, "https") ||
        at_tls_config_new(&options, &tls, NULL) != AT_OK) {
        return false;
    }
    const char *name = o->tls_server_name != NULL ? o->tls_server_name : url.host;
    m->stream =
        at_stream_connect(cli->loop, url.addr, tls, name, CONNECT_MS * AT_NS_PER_MS, &events);
    while (!m->over) {
        at_loop_turn(cli->loop, at_loop_now_ns(cli->loop) + CONNECT_MS * AT_NS_PER_MS);
    }
    at_tls_config_unref(tls);
    return m->met;
}

json_t *scan_connection(struct cli *cli)
{
    const struct at_client_options *o = &cli->config->options;
    struct meeting m = {0};
    json_t *object = json_pack("{s:s, s:s, s:{s:s}}", "apiVersion", "v1", "kind", "Config",
                               "metadata", "name", o->server);
    if (o->cert_pem != NULL && !at_client_kubeconfig_has_plugin(cli->config)) {
        at_json_set_at(object, "user.client-certificate-data", json_string(o->cert_pem));
    }
    if (o->ca_pem != NULL) {
        at_json_set_at(object, "cluster.certificate-authority-data", json_string(o->ca_pem));
    }
    if (meet(cli, &m)) {
        char issued[AT_UNITS_TEXT_BYTES_MAX];
        char ends[AT_UNITS_TEXT_BYTES_MAX];
        json_object_set_new(
            object, "server",
            json_pack("{s:{s:s, s:s, s:s}}", "certificate", "name",
                      m.peer.common_name[0] != '\0' ? m.peer.common_name : "without a name",
                      "issued", at_time_format(m.peer.issued_wall_ns, issued), "ends",
                      at_time_format(m.peer.not_after_wall_ns, ends)));
    } else {
        fprintf(cli->env->err, "note: the server's certificate was not looked at\n");
    }
    return object;
}
