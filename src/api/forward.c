/* Connections to the port of an instance (kubectl port-forward): one upgraded connection of a
 * client carries any number of them, each of which is a session of the agent's tunnel. With SPDY a
 * connection is a pair of streams, data and error, that name the same request; with channels there
 * is one for each port of the query, data on channel 2i and errors on 2i+1. */
#include "api/link.h"
#include "api/tunnel_priv.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>

static const char *const CHANNELS[] = {"v4.channel.k8s.io", "v5.channel.k8s.io", NULL};
static const char *const SPDY[] = {"portforward.k8s.io", NULL};
static const struct api_link_protocols PROTOCOLS = {
    .channels = CHANNELS, .spdy_in_ws = "SPDY/3.1+portforward.k8s.io", .spdy = SPDY};

struct api_port {
    struct api_forward *forward;
    struct api_port *next;
    struct session *session; /* NULL: not begun, or over */
    uint32_t data, error;    /* streams; SPDY: 0 not opened yet */
    int64_t port;
    char request[24];
    size_t ahead_bytes;
    struct api_brake brake;
};

struct api_forward {
    struct api_req *req; /* of the client */
    struct api_link link;
    struct api_port *ports;
    size_t n_ports;
};

/* --- one connection --- */

static void tell_agent(struct api_port *p, const char *op, json_t *more_take)
{
    json_t *line = more_take != NULL ? more_take : json_object();
    json_object_set_new(line, "id", json_string(p->session->id));
    json_object_set_new(line, "op", json_string(op));
    (void)api_tunnel_send(p->session->owner, p->session->node, line);
}

/* The agent has no more to do with it. */
static void session_over(struct api_port *p, bool cancel)
{
    struct session *s = p->session;
    if (s == NULL) {
        return;
    }
    if (cancel) {
        tell_agent(p, "cancel", NULL);
    }
    p->session = NULL;
    s->port = NULL;
    api_session_free(s);
}

static void port_free(struct api_port *p, bool cancel)
{
    struct api_forward *f = p->forward;
    struct api_port **at = &f->ports;
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
    f->n_ports--;
    api_brake_release(&p->brake);
    session_over(p, cancel);
    at_free(p);
}

static void forward_free(void *ctx)
{
    struct api_forward *f = ctx;
    while (f->ports != NULL) {
        port_free(f->ports, true);
    }
    api_link_done(&f->link);
    api_req_free(f->req);
    at_free(f);
}

/* message NULL: it ended as it should. The client's side of it is over. */
static void port_end(struct api_port *p, const char *message)
{
    struct api_forward *f = p->forward;
    size_t len = message != NULL ? strlen(message) : 0;
    enum at_rc rc = AT_OK;
    if (p->error != 0 || f->link.how == API_LINK_CHANNELS) {
        rc = api_link_send(&f->link, p->error, message, len, true);
    }
    if (rc == AT_OK && p->data + p->error != 0) {
        rc = api_link_send(&f->link, p->data, NULL, 0, true);
    }
    port_free(p, false);
    /* Channels have no end of their own: the connection's is the last one's. */
    if (rc != AT_OK || (f->link.how == API_LINK_CHANNELS && f->ports == NULL)) {
        api_link_end(&f->link, false);
    }
}

/* Ask the agent for the connection. */
static void port_begin(struct api_port *p)
{
    struct api_req *req = p->forward->req;
    struct at_err err = {0};
    struct session *s = NULL;
    json_t *line = json_pack("{s:s, s:I}", "op", "forward", "port", (json_int_t)p->port);
    if (api_session_open(req, line, &s, &err) != AT_OK) {
        port_end(p, err.msg);
        return;
    }
    s->port = p;
    p->session = s;
}

static struct api_port *port_new(struct api_forward *f, int64_t number)
{
    struct api_port *p = AT_NEW(struct api_port);
    p->forward = f;
    p->port = number;
    p->next = f->ports;
    f->ports = p;
    f->n_ports++;
    return p;
}

/* --- the agent's answers --- */

/* Called for each session of a node in turn: only this one may go at once. */
void api_port_fail(struct session *s, enum at_rc rc, const char *message)
{
    (void)rc;
    struct api_port *p = s->port;
    struct api_forward *f = p->forward;
    session_over(p, false);
    port_end(p, message);
    api_link_settle_later(&f->link);
}

static void deny(void *owner, const char *why)
{
    struct api_forward *f = owner;
    while (f->ports != NULL) {
        session_over(f->ports, true);
        port_end(f->ports, why);
    }
    if (!f->link.over) {
        api_link_end(&f->link, false);
    }
}

static void piece_add(struct api_port *p, struct api_req *req)
{
    struct api_forward *f = p->forward;
    struct at_str piece = at_http_request_body(req->ex);
    if (piece.len > 0 && api_link_send(&f->link, p->data, piece.ptr, piece.len, false) != AT_OK) {
        api_link_end(&f->link, false);
        api_respond_error(req, AT_NOT_FOUND, "nobody waits for this answer any more");
        api_link_settle(&f->link);
        return;
    }
    api_brake_answer(&p->brake, req, f->req->ex);
}

void api_port_answer(struct session *s, struct api_req *req)
{
    struct at_err err = {0};
    struct api_port *p = s->port;
    struct api_forward *f = p->forward;
    int64_t taken = 0;
    int64_t code = -1;
    const char *error = api_query(req, "error");
    if (api_query_int(req, "taken", 0, &taken, &err) != AT_OK ||
        api_query_int(req, "exit", -1, &code, &err) != AT_OK) {
        api_respond_err(req, &err);
        return;
    }
    at_loop_timer_cancel(req->api->options.loop, s->timer);
    s->timer = 0;
    if (error == NULL && code < 0) {
        size_t n = taken > 0 ? (size_t)taken : 0;
        p->ahead_bytes -= n < p->ahead_bytes ? n : p->ahead_bytes;
        at_http_upgraded_resume(f->req->ex);
        piece_add(p, req);
        return;
    }
    session_over(p, false);
    port_end(p, error);
    api_link_settle(&f->link);
    api_respond_text(req, 200, "application/json", NULL, "{}", 2);
}

/* --- from the client --- */

static struct api_port *find(struct api_forward *f, const char *request, uint32_t stream)
{
    for (struct api_port *p = f->ports; p != NULL; p = p->next) {
        if (request != NULL ? at_streq(p->request, request)
                            : p->data == stream || p->error == stream) {
            return p;
        }
    }
    return NULL;
}

/* A stream of a pair. */
static enum at_rc open_stream(struct api_forward *f, const struct api_link_event *e)
{
    const char *type = at_spdy_header(&e->spdy, "streamtype");
    const char *number = at_spdy_header(&e->spdy, "port");
    const char *request = at_spdy_header(&e->spdy, "requestid");
    request = request != NULL ? request : number; /* before Kubernetes 1.4 */
    bool data = at_streq(type, "data");
    int64_t port = 0;
    if ((!data && !at_streq(type, "error")) || number == NULL ||
        at_str_to_i64(at_str_of(number), &port) != AT_OK || port < 1 || port > 65535 ||
        strlen(request) >= sizeof f->ports->request) {
        return api_link_reset(&f->link, e->stream);
    }
    struct api_port *p = find(f, request, 0);
    bool doubled = p != NULL && (data ? p->data : p->error) != 0;
    if (doubled || (p == NULL && f->n_ports == AT_API_FORWARD_PORTS_MAX)) {
        return api_link_reset(&f->link, e->stream);
    }
    if (p == NULL) {
        p = port_new(f, port);
        snprintf(p->request, sizeof p->request, "%s", request);
    }
    *(data ? &p->data : &p->error) = e->stream;
    enum at_rc rc = api_link_accept(&f->link, e->stream);
    if (rc == AT_OK && p->data != 0 && p->error != 0) {
        port_begin(p);
    }
    return rc;
}

static void input_add(struct api_port *p, const struct api_link_event *e)
{
    if (p->session != NULL && e->len > 0) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        if (at_base64_encode(e->data, e->len, &text) == AT_OK) {
            p->ahead_bytes += e->len;
            tell_agent(p, "stdin", json_pack("{s:s}", "data", text.data));
        }
    }
    if (p->session != NULL && e->last) {
        tell_agent(p, "stdin-close", NULL);
    }
}

static enum at_rc event_take(struct api_forward *f, const struct api_link_event *e)
{
    struct api_port *p = NULL;
    switch (e->type) {
    case API_LINK_OPEN:
        return open_stream(f, e);
    case API_LINK_DATA:
        p = find(f, NULL, e->stream);
        if (p != NULL && p->data == e->stream) {
            input_add(p, e);
        }
        return AT_OK;
    case API_LINK_RESET:
        p = find(f, NULL, e->stream);
        if (p != NULL && p->data == e->stream) {
            port_free(p, true);
        }
        return AT_OK;
    case API_LINK_CLOSE:
        api_link_end(&f->link, false);
        return AT_OK;
    case API_LINK_NONE:
        break;
    }
    return AT_OK;
}

/* One connection that takes no more holds all of the client's back: it has one byte stream for
 * them.
 */
static bool is_full(const struct api_forward *f)
{
    for (const struct api_port *p = f->ports; p != NULL; p = p->next) {
        if (p->ahead_bytes >= AT_API_EXEC_AHEAD_BYTES_MAX) {
            return true;
        }
    }
    return false;
}

static size_t on_bytes(void *ctx, const char *data, size_t len)
{
    struct api_forward *f = ctx;
    struct api_link *link = &f->link;
    size_t all = 0;
    link->busy = true;
    while (!link->over && (api_link_holds(link) || (all < len && !is_full(f)))) {
        struct api_link_event e;
        size_t used = 0;
        enum at_rc rc = api_link_take(link, data + all, len - all, &used, &e);
        all += used;
        if (rc == AT_OK) {
            rc = event_take(f, &e);
        }
        if (rc != AT_OK && !link->over) {
            api_link_end(link, true);
        }
    }
    link->busy = false;
    bool over = link->over;
    api_link_settle(link);
    return over ? len : all;
}

static void on_writable(void *ctx)
{
    struct api_forward *f = ctx;
    for (struct api_port *p = f->ports; p != NULL; p = p->next) {
        api_brake_release(&p->brake);
    }
}

/* --- begin --- */

/* ports=8080 of the query, for channels: 0: answered. */
static size_t ports_of(struct api_req *req, int64_t out[AT_API_FORWARD_CHANNELS_MAX])
{
    size_t n = 0;
    struct at_str rest = req->query;
    while (rest.len > 0) {
        struct at_str value = at_str_cut(&rest, '&');
        struct at_str key = at_str_cut(&value, '=');
        while (at_str_eq(key, "ports") && value.len > 0) {
            int64_t port = 0;
            struct at_str one = at_str_cut(&value, ',');
            if (n == AT_API_FORWARD_CHANNELS_MAX || at_str_to_i64(one, &port) != AT_OK ||
                port < 1 || port > 65535) {
                api_respond_error(req, AT_BAD_REQUEST,
                                  "ports: numbers from 1 to 65535 are needed, %d at most",
                                  AT_API_FORWARD_CHANNELS_MAX);
                return 0;
            }
            out[n++] = port;
        }
    }
    if (n == 0) {
        api_respond_error(req, AT_BAD_REQUEST, "ports: at least one is needed");
    }
    return n;
}

/* Each channel begins with its port, two bytes, the low one first. */
static void channels_begin(struct api_forward *f, const int64_t *numbers, size_t n)
{
    for (size_t i = 0; i < n && !f->link.over; i++) {
        struct api_port *p = port_new(f, numbers[i]);
        p->data = (uint32_t)(2 * i);
        p->error = (uint32_t)(2 * i + 1);
        char text[2] = {(char)(numbers[i] & 0xff), (char)(numbers[i] >> 8)};
        if (api_link_send(&f->link, p->data, text, sizeof text, false) != AT_OK ||
            api_link_send(&f->link, p->error, text, sizeof text, false) != AT_OK) {
            api_link_end(&f->link, false);
            return;
        }
        port_begin(p);
    }
}

static bool can_begin(struct api_req *req, struct api_link *link, int64_t *numbers, size_t *ret_n,
                      const char **ret_headers)
{
    if (!api_session_possible(req)) {
        return false;
    }
    *ret_headers = api_link_begin(link, req, &PROTOCOLS);
    if (*ret_headers == NULL) {
        api_link_done(link);
        return false;
    }
    *ret_n = link->how == API_LINK_CHANNELS ? ports_of(req, numbers) : 0;
    return link->how != API_LINK_CHANNELS || *ret_n > 0;
}

void api_instance_forward(struct api_req *req)
{
    struct api_link link;
    const char *headers;
    int64_t numbers[AT_API_FORWARD_CHANNELS_MAX];
    size_t n = 0;
    if (!can_begin(req, &link, numbers, &n, &headers)) {
        return;
    }
    struct api_forward *f = AT_NEW(struct api_forward);
    f->req = req;
    f->link = link;
    f->link.busy = true;
    api_link_enter(&f->link, headers, f, forward_free, deny, on_bytes, on_writable);
    channels_begin(f, numbers, n);
    f->link.busy = false;
    api_link_settle(&f->link);
}
