/* port-forward: ports here whose connections end at the port of an instance, through the server and
 * the instance's agent. Each connection has a WebSocket of its own; of a deployment each new one
 * goes to an instance that is ready then. */
#include "cli/reach.h"
#include "client/channels.h"
#include "core/str.h"
#include "net/stream.h"
#include "sys/socket.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define LISTENERS_MAX 32
#define CONNECTIONS_MAX 512
#define BACKLOG 128
#define AHEAD_BYTES_MAX ((size_t)256 << 10)
#define PORT_BYTES 2 /* each channel begins with its port */

enum channel { CHANNEL_DATA, CHANNEL_ERROR };

struct forward;

struct listener {
    struct forward *forward;
    int fd;
    int64_t port; /* of the instance; 0: the one that it serves */
};

struct connection {
    struct connection *next;
    struct forward *forward;
    struct at_stream *local;
    struct at_channels *remote; /* NULL: its instance is not known yet */
    size_t skip[2];             /* of what the channels begin with */
    bool open;                  /* the server agreed: bytes may go */
    bool local_ended;
    struct at_buf error;
    int64_t port;
    at_client_call_id call; /* that finds an instance */
};

struct forward {
    struct cli *cli;
    struct cli_target target;
    struct listener listeners[LISTENERS_MAX];
    size_t n;
    struct connection *connections;
    size_t n_connections;
};

/* --- which instance, which port --- */

static int64_t port_of(const json_t *instance)
{
    const char *endpoint = at_json_str_at(instance, "status.endpoint", "");
    const char *colon = strrchr(endpoint, ':');
    int64_t port = 0;
    if (colon == NULL || at_str_to_i64(at_str_of(colon + 1), &port) != AT_OK) {
        return 0;
    }
    return port;
}

static enum at_rc check_port(const json_t *instance, int64_t asked, int64_t *ret,
                             struct at_err *err)
{
    int64_t port = port_of(instance);
    const char *name = at_json_str_at(instance, "metadata.name", "");
    if (port == 0) {
        return at_err_set(err, AT_UNAVAILABLE, "instance %s serves no port (its spec has port: -1)",
                          name);
    }
    if (asked != 0 && asked != port && asked != at_json_int_at(instance, "spec.port", 0)) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "instance %s serves port %lld, not %lld; leave the number out to mean "
                          "the one it serves: %lld:",
                          name, (long long)port, (long long)asked, (long long)asked);
    }
    *ret = asked != 0 ? asked : port;
    return AT_OK;
}

/* --- one connection --- */

static void connection_free(struct connection *c)
{
    struct connection **at = &c->forward->connections;
    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
    c->forward->n_connections--;
    at_client_cancel(c->forward->cli->client, c->call);
    at_channels_free(c->remote);
    at_stream_free(c->local);
    at_buf_done(&c->error);
    at_free(c);
}

static void complain(const struct connection *c, const char *text)
{
    fputs("error: ", c->forward->cli->env->err);
    cli_print_text(c->forward->cli->env->err, text);
    fputc('\n', c->forward->cli->env->err);
}

static void on_remote_open(void *ctx)
{
    struct connection *c = ctx;
    c->open = true;
    at_stream_resume(c->local);
}

static void on_remote_data(void *ctx, unsigned channel, const char *data, size_t len)
{
    struct connection *c = ctx;
    if (channel > CHANNEL_ERROR) {
        return;
    }
    size_t skip = c->skip[channel] < len ? c->skip[channel] : len;
    c->skip[channel] -= skip;
    data += skip;
    len -= skip;
    if (len == 0) {
        return;
    }
    if (channel == CHANNEL_ERROR) {
        c->error.max = AT_ERR_MSG_BYTES_MAX;
        (void)!at_buf_append(&c->error, data, len);
        return;
    }
    if (c->local == NULL || at_stream_write(c->local, data, len) != AT_OK) {
        return;
    }
    if (at_stream_queued_bytes(c->local) > AHEAD_BYTES_MAX) {
        at_channels_pause(c->remote);
    }
}

static void on_remote_writable(void *ctx)
{
    struct connection *c = ctx;
    if (c->local != NULL && c->open) {
        at_stream_resume(c->local);
    }
}

/* The local end gets all that came, then its end; it frees the connection when it is closed. */
static void on_remote_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct connection *c = ctx;
    if (c->error.len != 0) {
        complain(c, c->error.data);
    } else if (rc != AT_EOF && err != NULL) {
        complain(c, err->msg);
    }
    c->open = false;
    at_stream_end(c->local);
}

static void remote_open(struct connection *c, const json_t *instance)
{
    struct cli *cli = c->forward->cli;
    struct at_err err = {0};
    int64_t port = 0;
    const char *name = at_json_str_at(instance, "metadata.name", "");
    if (check_port(instance, c->port, &port, &err) != AT_OK) {
        complain(c, err.msg);
        at_stream_end(c->local);
        return;
    }
    char path[1024];
    char full[1100];
    at_client_path(&AT_KIND_INSTANCE, cli->ns, name, "portforward", path, sizeof path);
    snprintf(full, sizeof full, "%s?ports=%lld", path, (long long)port);
    struct at_channels_events events = {.ctx = c,
                                        .on_open = on_remote_open,
                                        .on_data = on_remote_data,
                                        .on_writable = on_remote_writable,
                                        .on_close = on_remote_close};
    c->skip[CHANNEL_DATA] = PORT_BYTES;
    c->skip[CHANNEL_ERROR] = PORT_BYTES;
    c->remote = at_channels_open(cli->client, full, AT_CHANNELS_V5 "," AT_CHANNELS_V4, &events);
}

static void on_instances(void *ctx, enum at_rc rc, int status, json_t *body,
                         const struct at_err *err)
{
    struct connection *c = ctx;
    (void)status;
    c->call = 0;
    if (rc != AT_OK) {
        complain(c, err->msg);
        at_stream_end(c->local);
        return;
    }
    json_t *items = json_object_get(body, "items");
    json_t *best = json_is_array(items) ? cli_instance_best(items, &c->forward->target) : body;
    if (best == NULL || strcmp(at_json_str_at(best, "status.phase", ""), "Running") != 0) {
        complain(c, "no instance is running just now");
        at_stream_end(c->local);
        return;
    }
    remote_open(c, best);
}

/* Asked anew for each connection: instances come and go. */
static void find_instance(struct connection *c)
{
    struct cli *cli = c->forward->cli;
    const struct cli_target *t = &c->forward->target;
    char path[1024];
    bool one = t->kind == &AT_KIND_INSTANCE;
    at_client_path(&AT_KIND_INSTANCE, cli->ns, one ? t->name : NULL, NULL, path, sizeof path);
    c->call = at_client_request(cli->client, AT_HTTP_GET, path, NULL, NULL, on_instances, c);
}

static size_t on_local_data(void *ctx, const char *data, size_t len)
{
    struct connection *c = ctx;
    if (!c->open) {
        at_stream_pause(c->local);
        return 0;
    }
    if (at_channels_queued_bytes(c->remote) > AHEAD_BYTES_MAX) {
        at_stream_pause(c->local);
        return 0;
    }
    enum at_rc rc = at_channels_send(c->remote, CHANNEL_DATA, data, len);
    if (rc == AT_EXHAUSTED) {
        at_stream_pause(c->local);
        return 0;
    }
    return len;
}

static void on_local_writable(void *ctx)
{
    struct connection *c = ctx;
    at_channels_resume(c->remote);
}

static void on_local_end(void *ctx)
{
    struct connection *c = ctx;
    c->local_ended = true;
    if (c->open) {
        (void)!at_channels_send_end(c->remote, CHANNEL_DATA);
    } else {
        at_stream_end(c->local);
    }
}

static void on_local_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct connection *c = ctx;
    (void)rc;
    (void)err;
    c->local = NULL;
    connection_free(c);
}

static void on_accept(void *ctx, int fd, unsigned events)
{
    struct listener *l = ctx;
    struct forward *f = l->forward;
    char peer[AT_ADDR_TEXT_BYTES_MAX];
    int got = -1;
    (void)events;
    if (at_sock_accept(fd, &got, peer) != AT_OK) {
        return;
    }
    if (f->n_connections == CONNECTIONS_MAX) {
        at_sock_close(got);
        return;
    }
    struct connection *c = AT_NEW(struct connection);
    struct at_stream_events on = {.ctx = c,
                                  .on_data = on_local_data,
                                  .on_writable = on_local_writable,
                                  .on_end = on_local_end,
                                  .on_close = on_local_close};
    c->forward = f;
    c->port = l->port;
    c->next = f->connections;
    f->connections = c;
    f->n_connections++;
    c->local = at_stream_accept_take(f->cli->loop, got, NULL, &on);
    at_stream_pause(c->local);
    find_instance(c);
}

/* --- ports --- */

static bool is_port(struct at_str text, int64_t *ret)
{
    return at_str_to_i64(text, ret) == AT_OK && *ret >= 0 && *ret <= 65535;
}

/* LOCAL:REMOTE, LOCAL: (whatever it serves), :REMOTE (any port here), PORT (the same). */
static enum at_rc parse_ports(const char *word, int64_t *ret_local, int64_t *ret_remote,
                              struct at_err *err)
{
    struct at_str rest = at_str_of(word);
    bool colon = strchr(word, ':') != NULL;
    struct at_str local = at_str_cut(&rest, ':');
    *ret_local = 0;
    *ret_remote = 0;
    bool good = local.len == 0 ? colon : is_port(local, ret_local) && *ret_local != 0;
    if (good && !colon) {
        *ret_remote = *ret_local;
    } else if (good && rest.len != 0) {
        good = is_port(rest, ret_remote) && *ret_remote != 0;
    }
    return good ? AT_OK
                : at_err_set(err, AT_BAD_REQUEST,
                             "\"%s\" is no port: write 8080:9000, 8080: (8080 here, the port that "
                             "the instance serves there), :9000 or 9000",
                             word);
}

static enum at_rc listen_at(struct forward *f, const char *host, int64_t local, int64_t remote,
                            struct at_err *err)
{
    char bound[AT_ADDR_TEXT_BYTES_MAX];
    if (f->n == LISTENERS_MAX) {
        return at_err_set(err, AT_BAD_REQUEST, "more than %d ports", LISTENERS_MAX);
    }
    bool v6 = strchr(host, ':') != NULL && host[0] != '[';
    const char *addr =
        at_arena_printf(f->cli->arena, v6 ? "[%s]:%lld" : "%s:%lld", host, (long long)local);
    struct listener *l = &f->listeners[f->n];
    l->forward = f;
    l->port = remote;
    enum at_rc rc = at_sock_listen(addr, BACKLOG, false, &l->fd, bound, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "cannot listen on %s (give another port, or :PORT for any)",
                           addr);
    }
    f->n++;
    at_loop_watch(f->cli->loop, l->fd, AT_LOOP_READ, on_accept, l);
    if (remote != 0) {
        fprintf(f->cli->env->out, "Forwarding from %s -> %lld\n", bound, (long long)remote);
    } else {
        fprintf(f->cli->env->out, "Forwarding from %s\n", bound);
    }
    return AT_OK;
}

static enum at_rc listen_all(struct forward *f, const char *const *ports, size_t n,
                             struct at_err *err)
{
    static const char *const ANY[] = {":"};
    struct at_str hosts = at_str_of(cli_value(f->cli, OPT_ADDRESS, "127.0.0.1"));
    enum at_rc rc = AT_OK;
    ports = n != 0 ? ports : ANY;
    n = n != 0 ? n : 1;
    while (hosts.len != 0 && rc == AT_OK) {
        struct at_str one = at_str_trim(at_str_cut(&hosts, ','));
        const char *host = at_arena_strndup(f->cli->arena, one.ptr, one.len);
        for (size_t i = 0; i < n && rc == AT_OK; i++) {
            int64_t local;
            int64_t remote;
            rc = parse_ports(ports[i], &local, &remote, err);
            rc = rc == AT_OK ? listen_at(f, host, local, remote, err) : rc;
        }
    }
    fflush(f->cli->env->out);
    return rc;
}

static void on_signal(void *ctx, int signal_number)
{
    struct forward *f = ctx;
    (void)signal_number;
    f->cli->interrupted = true;
}

/* KIND/NAME or NAME first; KIND NAME when two words stand before the ports. */
static size_t words_of_target(const struct cli *cli)
{
    bool two = cli->n_args > 1 && strchr(cli->args[0], '/') == NULL &&
               at_model_kind_by_any_name(cli->args[0]) != NULL &&
               cli->args[1][strspn(cli->args[1], "0123456789:")] != '\0';
    return two ? 2 : 1;
}

static enum at_rc run(struct forward *f, size_t from, struct at_err *err)
{
    struct cli *cli = f->cli;
    AT_CLEANUP(at_cleanup_json) json_t *instance = NULL;
    enum at_rc rc = cli_instance_pick(cli, &f->target, &instance, err);
    if (rc != AT_OK) {
        instance = NULL;
        return rc;
    }
    for (size_t i = from; i < cli->n_args && rc == AT_OK; i++) {
        int64_t local;
        int64_t remote;
        int64_t port;
        rc = parse_ports(cli->args[i], &local, &remote, err);
        rc = rc == AT_OK ? check_port(instance, remote, &port, err) : rc;
    }
    rc = rc == AT_OK ? listen_all(f, cli->args + from, cli->n_args - from, err) : rc;
    rc = rc == AT_OK ? at_loop_signal(cli->loop, SIGINT, on_signal, f, err) : rc;
    rc = rc == AT_OK ? at_loop_signal(cli->loop, SIGTERM, on_signal, f, err) : rc;
    while (rc == AT_OK && !cli->interrupted && at_loop_turn(cli->loop, INT64_MAX)) {
    }
    while (f->connections != NULL) {
        connection_free(f->connections);
    }
    for (size_t i = 0; i < f->n; i++) {
        at_sock_close(f->listeners[i].fd);
    }
    return rc;
}

enum at_rc cli_port_forward(struct cli *cli, struct at_err *err)
{
    struct forward *f = at_arena_alloc(cli->arena, sizeof *f);
    size_t from = words_of_target(cli);
    f->cli = cli;
    enum at_rc rc = cli_connect(cli, err);
    if (rc == AT_OK) {
        rc = cli_instance_target(cli, cli->args, from, &f->target, err);
    }
    return rc == AT_OK ? run(f, from, err) : rc;
}
