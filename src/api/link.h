/* A client's upgraded connection that carries several streams, in the three ways that clients of
 * Kubernetes speak: WebSocket messages whose first byte is a channel, SPDY/3.1 within WebSocket
 * messages, and SPDY/3.1 as it is (kubectl before 1.30). */
#ifndef AT_API_LINK_H
#define AT_API_LINK_H

#include "api/api_priv.h"
#include "net/spdy.h"
#include "net/ws.h"

enum api_link_how { API_LINK_CHANNELS, API_LINK_SPDY_IN_WS, API_LINK_SPDY };

/* What an endpoint speaks; lists end with NULL. */
struct api_link_protocols {
    const char *const *channels; /* subprotocols of WebSocket */
    const char *spdy_in_ws;      /* another one; NULL: none */
    const char *const *spdy;     /* values of X-Stream-Protocol-Version */
};

struct api_link {
    struct api_req *req; /* ex NULL: the client is gone */
    /* Whose it is, and how that goes away, the link with it: once over is set and nobody works with
     * it (busy). */
    void *owner;
    void (*free)(void *owner);
    void (*deny)(void *owner, const char *why); /* tell the client, and end */
    bool busy, over;
    at_timer_id end_timer;       /* it is over, but not from here */
    struct api_link *next, **at; /* in api->links */
    enum api_link_how how;
    const char *protocol; /* which was chosen */
    struct at_ws ws;
    struct at_spdy *spdy;
    int channel; /* of the message that comes in; -1: not known yet */
    const char *piece;
    size_t piece_len;
};

enum api_link_event_type {
    API_LINK_NONE,
    API_LINK_OPEN,  /* SPDY: a stream with headers; to be accepted or reset */
    API_LINK_DATA,  /* a piece for a stream or channel */
    API_LINK_RESET, /* the stream is given up */
    API_LINK_CLOSE, /* of all */
};

struct api_link_event {
    enum api_link_event_type type;
    uint32_t stream;
    const char *data; /* until the next call */
    size_t len;
    bool last; /* nothing more comes on it */
    struct at_spdy_event spdy;
};

/* Headers of the 101; NULL: answered. own: on the request's arena; api_link_done always. */
const char *api_link_begin(struct api_link *link, struct api_req *req,
                           const struct api_link_protocols *protocols);
void api_link_done(struct api_link *link);
/* Upgrade the connection with headers; owner gets the bytes by on_bytes, told of the room to write
 * by on_writable. From here on the link is among those of its server. */
void api_link_enter(struct api_link *link, const char *headers, void *owner,
                    void (*free)(void *owner), void (*deny)(void *owner, const char *why),
                    size_t (*on_bytes)(void *owner, const char *data, size_t len),
                    void (*on_writable)(void *owner));
void api_link_settle(struct api_link *link);       /* the owner may be gone after it */
void api_link_settle_later(struct api_link *link); /* from the loop */
void api_links_close(struct at_api *api);
/* Take bytes until something has come or all are taken. Answers pings by itself. err: the peer
 * breaks the protocol. */
enum at_rc api_link_take(struct api_link *link, const char *data, size_t len, size_t *ret_used,
                         struct api_link_event *ret) AT_WARN_UNUSED;
/* What was taken and not told yet: api_link_take(link, NULL, 0, ...) tells it. */
bool api_link_holds(const struct api_link *link);
enum at_rc api_link_accept(struct api_link *link, uint32_t stream) AT_WARN_UNUSED;
enum at_rc api_link_reset(struct api_link *link, uint32_t stream) AT_WARN_UNUSED;
enum at_rc api_link_send(struct api_link *link, uint32_t stream, const char *data, size_t len,
                         bool last) AT_WARN_UNUSED;
/* A close frame where there is such, and the end of the connection: req->ex is NULL after it, and
 * over is set. */
void api_link_end(struct api_link *link, bool broken);

#endif
