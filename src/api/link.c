#include "api/link.h"

#include "core/mem.h"
#include "core/str.h"

#include <assert.h>

#define WS_CLOSE_NORMAL 1000
#define WS_CLOSE_PROTOCOL 1002
#define STREAM_VERSION "X-Stream-Protocol-Version"

/* --- handshake --- */

static bool list_has(struct at_str list, const char *word)
{
    while (list.len > 0) {
        if (at_str_eq_nocase(at_str_trim(at_str_cut(&list, ',')), word)) {
            return true;
        }
    }
    return false;
}

/* Any header of that name, for some clients send one for each word. */
static bool header_has(const struct at_http_head *head, const char *name, const char *word)
{
    for (size_t i = 0; i < head->n_headers; i++) {
        if (at_str_eq_nocase(head->headers[i].name, name) &&
            list_has(head->headers[i].value, word)) {
            return true;
        }
    }
    return false;
}

static const char *chosen(const struct at_http_head *head, const char *name,
                          const char *const *offers)
{
    for (size_t i = 0; offers != NULL && offers[i] != NULL; i++) {
        if (header_has(head, name, offers[i])) {
            return offers[i];
        }
    }
    return NULL;
}

static const char *begin_spdy(struct api_link *link, const struct api_link_protocols *protocols)
{
    struct api_req *req = link->req;
    link->how = API_LINK_SPDY;
    link->protocol = chosen(at_http_request(req->ex), STREAM_VERSION, protocols->spdy);
    if (link->protocol == NULL) {
        api_respond_error(req, AT_BAD_REQUEST, STREAM_VERSION ": %s is needed", protocols->spdy[0]);
        return NULL;
    }
    link->spdy = at_spdy_new();
    return at_arena_printf(req->arena,
                           "Upgrade: SPDY/3.1\r\nConnection: Upgrade\r\n" STREAM_VERSION ": %s\r\n",
                           link->protocol);
}

static const char *begin_ws(struct api_link *link, const struct api_link_protocols *protocols)
{
    static const char NAME[] = "Sec-WebSocket-Protocol";
    struct api_req *req = link->req;
    const struct at_http_head *head = at_http_request(req->ex);
    struct at_str key = at_http_header_get(head, "Sec-WebSocket-Key");
    struct at_err err = {0};
    char accept[AT_WS_ACCEPT_BYTES];
    if (!at_str_eq(at_http_header_get(head, "Sec-WebSocket-Version"), "13")) {
        api_respond_error(req, AT_BAD_REQUEST, "Sec-WebSocket-Version: 13 is needed");
        return NULL;
    }
    if (at_ws_accept(key.ptr, key.len, accept, &err) != AT_OK) {
        api_respond_err(req, &err);
        return NULL;
    }
    const char *const spdy[] = {protocols->spdy_in_ws, NULL};
    link->protocol = chosen(head, NAME, spdy);
    if (link->protocol != NULL) {
        link->how = API_LINK_SPDY_IN_WS;
        link->spdy = at_spdy_new();
    } else {
        link->how = API_LINK_CHANNELS;
        link->protocol = chosen(head, NAME, protocols->channels);
    }
    if (link->protocol == NULL) {
        api_respond_error(req, AT_BAD_REQUEST, "%s: one of %s and %s is needed", NAME,
                          protocols->channels[0],
                          spdy[0] != NULL ? spdy[0] : protocols->channels[1]);
        return NULL;
    }
    return at_arena_printf(req->arena,
                           "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                           "Sec-WebSocket-Accept: %s\r\n%s: %s\r\n",
                           accept, NAME, link->protocol);
}

const char *api_link_begin(struct api_link *link, struct api_req *req,
                           const struct api_link_protocols *protocols)
{
    const struct at_http_head *head = at_http_request(req->ex);
    *link = (struct api_link){.req = req, .channel = -1};
    at_ws_init(&link->ws);
    bool upgrade = header_has(head, "Connection", "upgrade");
    if (upgrade && header_has(head, "Upgrade", "websocket")) {
        return begin_ws(link, protocols);
    }
    if (upgrade && header_has(head, "Upgrade", "SPDY/3.1")) {
        return begin_spdy(link, protocols);
    }
    api_respond_error(req, AT_BAD_REQUEST,
                      "this needs an upgrade of the connection to WebSocket or SPDY/3.1");
    return NULL;
}

/* --- life --- */

void api_link_done(struct api_link *link)
{
    at_spdy_free(link->spdy);
    link->spdy = NULL;
    if (link->end_timer != 0) {
        at_loop_timer_cancel(link->req->api->options.loop, link->end_timer);
    }
    if (link->at != NULL) {
        *link->at = link->next;
        if (link->next != NULL) {
            link->next->at = link->at;
        }
        link->at = NULL;
    }
}

void api_link_settle(struct api_link *link)
{
    if (link->over && !link->busy) {
        link->free(link->owner);
    }
}

static void end_due(void *ctx)
{
    struct api_link *link = ctx;
    link->end_timer = 0;
    api_link_settle(link);
}

void api_link_settle_later(struct api_link *link)
{
    if (link->over && link->end_timer == 0) {
        link->end_timer = at_loop_timer(link->req->api->options.loop, 0, end_due, link);
    }
}

static void client_gone(void *ctx)
{
    struct api_link *link = ctx;
    link->req->ex = NULL;
    link->over = true;
    api_link_settle(link);
}

void api_link_enter(struct api_link *link, const char *headers, void *owner,
                    void (*free)(void *owner), void (*deny)(void *owner, const char *why),
                    size_t (*on_bytes)(void *owner, const char *data, size_t len),
                    void (*on_writable)(void *owner))
{
    struct api_req *req = link->req;
    link->owner = owner;
    link->free = free;
    link->deny = deny;
    link->next = req->api->links;
    link->at = &req->api->links;
    if (link->next != NULL) {
        link->next->at = &link->next;
    }
    req->api->links = link;
    api_req_measure(req, 101);
    (void)api_req_audit(req, 101);
    at_http_on_gone(req->ex, client_gone, link);
    at_http_on_writable(req->ex, on_writable, owner);
    at_http_upgrade(req->ex, headers, on_bytes, owner);
}

void api_links_recheck(struct at_api *api)
{
    const char *why = NULL;
    struct api_link *next;
    for (struct api_link *link = api->links; link != NULL; link = next) {
        next = link->next;
        if (!link->over && link->req->ex != NULL && !api_goes_on(link->req, &why)) {
            link->deny(link->owner, why);
            api_link_settle_later(link);
        }
    }
}

void api_links_close(struct at_api *api)
{
    while (api->links != NULL) {
        struct api_link *link = api->links;
        api_link_end(link, false);
        link->over = true;
        link->free(link->owner);
    }
}

/* --- to the client --- */

static enum at_rc ws_send(struct api_link *link, enum at_ws_opcode opcode, int channel,
                          const char *data, size_t len)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    char head[AT_WS_HEAD_BYTES_MAX];
    char first = (char)channel;
    size_t with = channel >= 0;
    enum at_rc rc = at_buf_append(&out, head, at_ws_head(head, opcode, len + with));
    if (rc == AT_OK && with == 1) {
        rc = at_buf_append(&out, &first, 1);
    }
    if (rc == AT_OK && len > 0) {
        rc = at_buf_append(&out, data, len);
    }
    return rc == AT_OK ? at_http_stream_write(link->req->ex, out.data, out.len) : rc;
}

static enum at_rc spdy_send(struct api_link *link, const struct at_buf *frames)
{
    return link->how == API_LINK_SPDY
               ? at_http_stream_write(link->req->ex, frames->data, frames->len)
               : ws_send(link, AT_WS_BINARY, -1, frames->data, frames->len);
}

enum at_rc api_link_accept(struct api_link *link, uint32_t stream)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    enum at_rc rc = at_spdy_put_reply(link->spdy, stream, &out);
    return rc == AT_OK ? spdy_send(link, &out) : rc;
}

enum at_rc api_link_reset(struct api_link *link, uint32_t stream)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    enum at_rc rc = at_spdy_put_reset(stream, &out);
    return rc == AT_OK ? spdy_send(link, &out) : rc;
}

enum at_rc api_link_send(struct api_link *link, uint32_t stream, const char *data, size_t len,
                         bool last)
{
    if (link->req->ex == NULL) {
        return AT_UNAVAILABLE;
    }
    if (link->how == API_LINK_CHANNELS) { /* channels have no end of their own */
        return len > 0 ? ws_send(link, AT_WS_BINARY, (int)stream, data, len) : AT_OK;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    enum at_rc rc = at_spdy_put_data(stream, data, len, last, &out);
    return rc == AT_OK ? spdy_send(link, &out) : rc;
}

void api_link_end(struct api_link *link, bool broken)
{
    struct at_http_exchange *ex = link->req->ex;
    link->over = true;
    if (ex == NULL) {
        return;
    }
    unsigned code = broken ? WS_CLOSE_PROTOCOL : WS_CLOSE_NORMAL;
    char text[2] = {(char)(code >> 8), (char)code};
    if (link->how != API_LINK_SPDY) {
        (void)!ws_send(link, AT_WS_CLOSE, -1, text, sizeof text);
    }
    link->req->ex = NULL;
    at_http_stream_end(ex);
}

/* --- from the client --- */

static enum at_rc take_spdy(struct api_link *link, const char *data, size_t len, size_t *ret_used,
                            struct api_link_event *ret)
{
    struct at_spdy_event *e = &ret->spdy;
    enum at_rc rc = at_spdy_take(link->spdy, data, len, ret_used, e, NULL);
    if (rc != AT_OK) {
        return rc;
    }
    ret->stream = e->id;
    ret->data = e->data;
    ret->len = e->len;
    ret->last = e->last;
    if (e->type == AT_SPDY_OPEN) {
        ret->type = API_LINK_OPEN;
    } else if (e->type == AT_SPDY_DATA) {
        ret->type = API_LINK_DATA;
    } else if (e->type == AT_SPDY_RESET) {
        ret->type = API_LINK_RESET;
    } else if (e->type == AT_SPDY_PING) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
        rc = at_spdy_put_ping(e->id, &out);
        rc = rc == AT_OK ? spdy_send(link, &out) : rc;
    }
    return rc;
}

/* The rest of a piece of a message, as SPDY. */
static enum at_rc take_held(struct api_link *link, struct api_link_event *ret)
{
    size_t used = 0;
    enum at_rc rc = take_spdy(link, link->piece, link->piece_len, &used, ret);
    link->piece += used;
    link->piece_len -= used;
    return rc;
}

static void take_channel(struct api_link *link, const struct at_ws_event *e,
                         struct api_link_event *ret)
{
    const char *data = e->data;
    size_t len = e->len;
    if (e->first) {
        link->channel = -1;
    }
    if (link->channel < 0 && len > 0) {
        link->channel = (unsigned char)data[0];
        data++;
        len--;
    }
    if (link->channel == 255 && len == 1) { /* v5: the named channel has ended */
        *ret = (struct api_link_event){
            .type = API_LINK_DATA, .stream = (unsigned char)data[0], .last = true};
    } else if (link->channel >= 0 && link->channel != 255) {
        *ret = (struct api_link_event){
            .type = API_LINK_DATA, .stream = (uint32_t)link->channel, .data = data, .len = len};
    }
}

bool api_link_holds(const struct api_link *link)
{
    return link->piece_len > 0;
}

enum at_rc api_link_take(struct api_link *link, const char *data, size_t len, size_t *ret_used,
                         struct api_link_event *ret)
{
    *ret = (struct api_link_event){.type = API_LINK_NONE};
    *ret_used = 0;
    if (link->how == API_LINK_SPDY) {
        return take_spdy(link, data, len, ret_used, ret);
    }
    if (link->piece_len > 0) {
        return take_held(link, ret);
    }
    struct at_ws_event e;
    enum at_rc rc = at_ws_take(&link->ws, data, len, ret_used, &e, NULL);
    if (rc != AT_OK || e.type == AT_WS_EVENT_NONE) {
        return rc;
    }
    if (e.type == AT_WS_EVENT_CONTROL) {
        if (e.opcode == AT_WS_CLOSE) {
            ret->type = API_LINK_CLOSE;
        } else if (e.opcode == AT_WS_PING) {
            rc = ws_send(link, AT_WS_PONG, -1, e.data, e.len);
        }
        return rc;
    }
    if (link->how == API_LINK_CHANNELS) {
        take_channel(link, &e, ret);
        return AT_OK;
    }
    link->piece = e.data; /* in the machine: it is read to its end before that goes on */
    link->piece_len = e.len;
    return e.len > 0 ? take_held(link, ret) : AT_OK;
}
