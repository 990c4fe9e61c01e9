/* WebSocket frames, RFC 6455: a machine without I/O for either side, and the handshake's one
 * computation. Frames of clients are masked, those of servers are not. */
#ifndef AT_NET_WS_H
#define AT_NET_WS_H

#include "core/err.h"

#define AT_WS_PIECE_BYTES 4096
#define AT_WS_HEAD_BYTES_MAX 10
#define AT_WS_MASK_BYTES 4
#define AT_WS_CONTROL_BYTES_MAX 125 /* RFC 6455 §5.5 */
#define AT_WS_ACCEPT_BYTES 29
/* A message; pieces are given out as they come, so this only bounds nonsense. */
#define AT_WS_MESSAGE_BYTES_MAX ((uint64_t)1 << 32)

enum at_ws_opcode {
    AT_WS_CONTINUATION = 0,
    AT_WS_TEXT = 1,
    AT_WS_BINARY = 2,
    AT_WS_CLOSE = 8,
    AT_WS_PING = 9,
    AT_WS_PONG = 10,
};

enum at_ws_event_type {
    AT_WS_EVENT_NONE,    /* more bytes are needed */
    AT_WS_EVENT_DATA,    /* a piece of a message: data, first, last */
    AT_WS_EVENT_CONTROL, /* a whole CLOSE, PING or PONG: opcode, data */
};

struct at_ws_event {
    enum at_ws_event_type type;
    enum at_ws_opcode opcode; /* of the message for DATA: TEXT or BINARY */
    const char *data;         /* unmasked; in the machine, until the next call */
    size_t len;
    bool first, last; /* of its message */
};

struct at_ws {
    bool from_server; /* the frames that come are a server's */
    uint8_t head[14];
    size_t head_len;
    bool in_frame, in_message, fin, first;
    enum at_ws_opcode opcode;  /* of the frame */
    enum at_ws_opcode message; /* of the message that the frames make up */
    uint64_t left, message_bytes;
    uint8_t mask[4];
    size_t mask_at;
    char piece[AT_WS_PIECE_BYTES];
    size_t piece_len; /* of a control frame so far */
};

void at_ws_init(struct at_ws *ws);        /* for frames of a client */
void at_ws_init_client(struct at_ws *ws); /* at the client: for frames of a server */
/* Take bytes until something has come or all are taken.
 * out: *ret_used <= len; *ret.
 * err: AT_BAD_REQUEST the peer breaks the protocol: close with 1002; the machine is of no use any
 *      more | AT_TOO_LARGE close with 1009. */
enum at_rc at_ws_take(struct at_ws *ws, const char *data, size_t len, size_t *ret_used,
                      struct at_ws_event *ret, struct at_err *err) AT_WARN_UNUSED;
/* Head of an unmasked, final frame of len bytes. Returns its length. */
size_t at_ws_head(char out[AT_WS_HEAD_BYTES_MAX], enum at_ws_opcode opcode, uint64_t len);
/* The same for a client's frame: its payload follows, masked with at_ws_mask from byte 0 on. mask:
 * random bytes, new ones for each frame (§5.3). */
size_t at_ws_head_masked(char out[AT_WS_HEAD_BYTES_MAX + AT_WS_MASK_BYTES],
                         enum at_ws_opcode opcode, uint64_t len,
                         const uint8_t mask[AT_WS_MASK_BYTES]);
void at_ws_mask(char *data, size_t len, size_t at, const uint8_t mask[AT_WS_MASK_BYTES]);
/* Sec-WebSocket-Accept for a Sec-WebSocket-Key. err: AT_BAD_REQUEST the key is not 16 bytes of
 * base64. */
enum at_rc at_ws_accept(const char *key, size_t len, char out[AT_WS_ACCEPT_BYTES],
                        struct at_err *err) AT_WARN_UNUSED;

#endif
