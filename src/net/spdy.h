/* SPDY/3.1 frames as a machine without I/O, the server's side of what kubectl uses to carry several
 * streams over one connection (exec and port-forward): streams are opened by the client, nobody
 * pushes, windows are not kept (kubectl keeps none either; each side holds the other back by not
 * reading). Header blocks are deflated with the protocol's dictionary, RFC 1950. */
#ifndef AT_NET_SPDY_H
#define AT_NET_SPDY_H

#include "core/buf.h"

#define AT_SPDY_CONTROL_BYTES_MAX 16384 /* of a control frame */
#define AT_SPDY_HEADERS_BYTES_MAX 65536 /* of a header block, inflated */
#define AT_SPDY_HEADERS_MAX 32

struct at_spdy;
struct at_spdy *at_spdy_new(void);
void at_spdy_free(struct at_spdy *spdy); /* accepts NULL */

enum at_spdy_event_type {
    AT_SPDY_NONE,   /* more bytes are needed */
    AT_SPDY_OPEN,   /* a new stream with headers; last: the client sends nothing on it */
    AT_SPDY_DATA,   /* a piece; last: its end */
    AT_SPDY_RESET,  /* the client gives the stream up */
    AT_SPDY_PING,   /* to be answered */
    AT_SPDY_GOAWAY, /* the client opens no more streams */
};

struct at_spdy_header {
    const char *name, *value; /* names in lower case; until the next call */
};

struct at_spdy_event {
    enum at_spdy_event_type type;
    uint32_t id; /* of the stream, or of the PING */
    bool last;
    const char *data; /* in what was given */
    size_t len;
    const struct at_spdy_header *headers;
    size_t n_headers;
};

/* Take bytes until something has come or all are taken.
 * out: *ret_used <= len; *ret.
 * err: AT_BAD_REQUEST the peer breaks the protocol | AT_TOO_LARGE a frame or a header block is; the
 *      machine is of no use any more. */
enum at_rc at_spdy_take(struct at_spdy *spdy, const char *data, size_t len, size_t *ret_used,
                        struct at_spdy_event *ret, struct at_err *err) AT_WARN_UNUSED;
/* Value of a header of the event, NULL when absent. */
const char *at_spdy_header(const struct at_spdy_event *event, const char *name);

/* Frames, appended to out. */
enum at_rc at_spdy_put_reply(struct at_spdy *spdy, uint32_t stream,
                             struct at_buf *out) AT_WARN_UNUSED;
/* As a client. */
enum at_rc at_spdy_put_open(struct at_spdy *spdy, uint32_t stream,
                            const struct at_spdy_header *headers, size_t n,
                            struct at_buf *out) AT_WARN_UNUSED;
enum at_rc at_spdy_put_data(uint32_t stream, const char *data, size_t len, bool last,
                            struct at_buf *out) AT_WARN_UNUSED;
enum at_rc at_spdy_put_reset(uint32_t stream, struct at_buf *out) AT_WARN_UNUSED;
enum at_rc at_spdy_put_ping(uint32_t id, struct at_buf *out) AT_WARN_UNUSED;

#endif
