/* Where gateways of other machines reach the instances of this one: TLS with the node's certificate
 * outside, the instance's socket or loopback inside, bytes passed on as they are. The name that a
 * gateway asks for (SNI) is the uid of an instance. */
#include "agent/agent_priv.h"
#include "agent/reach.h"

#include "core/digest.h"
#include "core/log.h"
#include "net/stream.h"
#include "sys/machine.h"
#include "sys/socket.h"

#include <stdio.h>
#include <string.h>

struct relay_conn {
    struct agent_relay *relay;
    struct relay_conn *prev, *next;
    struct at_stream *down, *up; /* gateway, instance; NULL: closed */
    bool known;                  /* it has shown that it is a gateway */
    bool up_open;
    bool down_ended, up_ended; /* has sent its last */
};

struct agent_relay {
    struct at_agent *agent;
    int fd;
    char addr[AT_ADDR_TEXT_BYTES_MAX];
    at_watch_id watch;
    at_timer_id timer;
    struct at_tls_config *tls;
    struct relay_conn *conns;
    size_t n_conns, n_unknown;
};

static void conn_free(struct relay_conn *c)
{
    struct agent_relay *r = c->relay;
    *(c->prev != NULL ? &c->prev->next : &r->conns) = c->next;
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    r->n_conns--;
    r->n_unknown -= c->known ? 0 : 1;
    at_stream_free(c->down);
    at_stream_free(c->up);
    at_free(c);
}

/* One side is gone: the other gets what is queued for it, and its end. */
static void side_gone(struct relay_conn *c, struct at_stream **gone, struct at_stream *other)
{
    *gone = NULL;
    if (other == NULL || !c->up_open) {
        conn_free(c);
        return;
    }
    at_stream_resume(other);
    at_stream_end(other);
}

static size_t pass(struct at_stream *from, struct at_stream *to, const char *data, size_t len)
{
    if (to == NULL) {
        return len; /* nobody is there to have it */
    }
    (void)!at_stream_write(to, data, len); /* broken: its on_close comes */
    if (at_stream_queued_bytes(to) > AGENT_RELAY_QUEUE_BYTES) {
        at_stream_pause(from);
    }
    return len;
}

static void said_its_last(struct relay_conn *c, bool *ended, struct at_stream *other)
{
    *ended = true;
    if (c->down_ended && c->up_ended && c->down != NULL && c->up != NULL) {
        at_stream_end(c->down);
        at_stream_end(c->up);
    } else if (other != NULL) {
        at_stream_end_half(other);
    }
}

/* --- the instance's side --- */

static size_t up_data(void *ctx, const char *data, size_t len)
{
    struct relay_conn *c = ctx;
    return pass(c->up, c->down, data, len);
}

static void up_writable(void *ctx)
{
    struct relay_conn *c = ctx;
    if (c->down != NULL) {
        at_stream_resume(c->down);
    }
}

static void up_open(void *ctx)
{
    struct relay_conn *c = ctx;
    c->up_open = true;
    at_stream_resume(c->down);
}

static void up_end(void *ctx)
{
    struct relay_conn *c = ctx;
    said_its_last(c, &c->up_ended, c->down);
}

/* Nobody listens there (any more): said in HTTP, so that the gateway knows that the instance has
 * seen nothing of the request. */
static void say_unreached(struct relay_conn *c)
{
    static const char ANSWER[] = "HTTP/1.1 503 Service Unavailable\r\n" AT_RELAY_HEADER
                                 ": unreached\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    (void)!at_stream_write(c->down, ANSWER, sizeof ANSWER - 1);
    c->up_open = true; /* what comes is thrown away */
    at_stream_resume(c->down);
    at_stream_end(c->down);
}

static void up_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct relay_conn *c = ctx;
    (void)rc, (void)err;
    if (!c->up_open && c->down != NULL) {
        c->up = NULL;
        say_unreached(c);
        return;
    }
    side_gone(c, &c->up, c->down);
}

/* --- the gateway's side --- */

static bool is_gateway(const struct at_tls_peer *peer)
{
    bool in_group = false;
    for (size_t i = 0; peer != NULL && i < peer->n_organizations; i++) {
        in_group = in_group || strcmp(peer->organizations[i], "system:gateways") == 0;
    }
    return in_group && peer->verified && strncmp(peer->common_name, "system:gateway:", 15) == 0;
}

/* The instance's own socket where it has one, else its port. NULL: nothing of that name runs. */
static const char *address_of(const struct agent_relay *r, const char *uid)
{
    const struct agent_instance *i = at_map_get(r->agent->instances, uid);
    bool runs = i != NULL && (i->phase == PHASE_RUNNING || i->phase == PHASE_DRAINING);
    return !runs ? NULL : i->ready && i->local_endpoint != NULL ? i->local_endpoint : i->endpoint;
}

static void down_open(void *ctx)
{
    struct relay_conn *c = ctx;
    struct agent_relay *r = c->relay;
    const struct at_tls_peer *peer = at_stream_peer(c->down);
    if (!is_gateway(peer)) {
        at_log(AT_LOG_WARN, "relay.refused", "%s is no gateway: %.100s",
               at_stream_peer_addr(c->down), peer != NULL ? peer->common_name : "");
        conn_free(c);
        return;
    }
    c->known = true;
    r->n_unknown--;
    const char *addr = address_of(r, peer->server_name);
    if (addr == NULL) {
        say_unreached(c);
        return;
    }
    at_stream_pause(c->down);
    struct at_stream_events events = {.ctx = c,
                                      .on_open = up_open,
                                      .on_data = up_data,
                                      .on_writable = up_writable,
                                      .on_end = up_end,
                                      .on_close = up_close};
    c->up = at_stream_connect(r->agent->loop, addr, NULL, NULL, AGENT_RELAY_CONNECT_NS, &events);
}

static size_t down_data(void *ctx, const char *data, size_t len)
{
    struct relay_conn *c = ctx;
    return pass(c->down, c->up, data, len);
}

static void down_writable(void *ctx)
{
    struct relay_conn *c = ctx;
    if (c->up != NULL) {
        at_stream_resume(c->up);
    }
}

static void down_end(void *ctx)
{
    struct relay_conn *c = ctx;
    if (c->up == NULL) {
        conn_free(c);
        return;
    }
    said_its_last(c, &c->down_ended, c->up);
}

static void down_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct relay_conn *c = ctx;
    (void)rc, (void)err;
    side_gone(c, &c->down, c->up);
}

/* --- the listener --- */

static void on_accept(void *ctx, int fd, unsigned events);

static void accept_again(void *ctx)
{
    struct agent_relay *r = ctx;
    r->timer = 0;
    r->watch = at_loop_watch(r->agent->loop, r->fd, AT_LOOP_READ, on_accept, r);
}

static void conn_new(struct agent_relay *r, int fd, const char *peer)
{
    struct relay_conn *c = AT_NEW(struct relay_conn);
    c->relay = r;
    c->next = r->conns;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    r->conns = c;
    r->n_conns++;
    r->n_unknown++;
    struct at_stream_events ev = {.ctx = c,
                                  .on_open = down_open,
                                  .on_data = down_data,
                                  .on_writable = down_writable,
                                  .on_end = down_end,
                                  .on_close = down_close};
    c->down = at_stream_accept_take(r->agent->loop, fd, r->tls, &ev);
    at_stream_set_peer_addr(c->down, peer);
}

static void on_accept(void *ctx, int fd, unsigned events)
{
    struct agent_relay *r = ctx;
    (void)events;
    for (int i = 0; i < AGENT_RELAY_ACCEPTS_PER_TURN; i++) {
        char peer[AT_ADDR_TEXT_BYTES_MAX];
        int client;
        enum at_rc rc = at_sock_accept(fd, &client, peer);
        if (rc == AT_AGAIN) {
            return;
        }
        if (rc != AT_OK) { /* out of descriptors, most likely */
            at_loop_unwatch(r->agent->loop, r->watch);
            r->watch = 0;
            r->timer = at_loop_timer(r->agent->loop, AGENT_RELAY_AGAIN_NS, accept_again, r);
            return;
        }
        if (r->n_conns >= AGENT_RELAY_CONNS_MAX || r->n_unknown >= AGENT_RELAY_UNKNOWN_MAX) {
            at_sock_close(client);
            continue;
        }
        conn_new(r, client, peer);
    }
}

enum at_rc agent_relay_new(struct at_agent *a, const char *listen, struct at_err *err)
{
    struct agent_relay *r = AT_NEW(struct agent_relay);
    r->agent = a;
    enum at_rc rc = at_sock_listen(listen, AGENT_RELAY_BACKLOG, false, &r->fd, r->addr, err);
    if (rc != AT_OK) {
        at_free(r);
        return at_err_wrap(err, rc, "for gateways");
    }
    a->relay = r;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_machine_loopback(&text) == AT_OK) {
        at_sha256_hex(text.data, text.len, a->loopback);
    }
    return AT_OK;
}

const char *agent_relay_addr(const struct at_agent *a)
{
    return a->relay != NULL && a->relay->tls != NULL ? a->relay->addr : NULL;
}

/* For the connections that come from now on. */
void agent_relay_identity(void *agent, const char *cert_pem, const char *key_pem,
                          const char *ca_pem)
{
    struct at_agent *a = agent;
    struct agent_relay *r = a->relay;
    struct at_tls_options options = {.is_server = true,
                                     .http2 = true, /* whatever is asked for: bytes are bytes */
                                     .cert_pem = cert_pem,
                                     .key_pem = key_pem,
                                     .ca_pem = ca_pem,
                                     .verify_peer = true};
    struct at_tls_config *fresh = NULL;
    struct at_err err;
    if (at_tls_config_new(&options, &fresh, &err) != AT_OK) {
        at_log(AT_LOG_ERROR, "relay.tls", "%s", err.msg);
        return;
    }
    at_tls_config_unref(r->tls);
    r->tls = fresh;
    if (r->watch == 0 && r->timer == 0) {
        accept_again(r);
    }
}

void agent_relay_free(struct at_agent *a)
{
    struct agent_relay *r = a->relay;
    if (r == NULL) {
        return;
    }
    while (r->conns != NULL) {
        conn_free(r->conns);
    }
    if (r->watch != 0) {
        at_loop_unwatch(a->loop, r->watch);
    }
    at_loop_timer_cancel(a->loop, r->timer);
    at_sock_close(r->fd);
    at_tls_config_unref(r->tls);
    at_free(r);
    a->relay = NULL;
}
