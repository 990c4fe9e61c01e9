/* atoll-mux/1: many requests in flight on one connection between Atoll's own programs. A client
 * that holds an HTTP/1.1 connection asks for it by `Upgrade: atoll-mux/1`; who does not know it
 * answers as to any request. From then on frames go both ways: 12 bytes of head (payload length,
 * stream id, both 32 bits little endian; type; flags; two zero bytes), then the payload.
 *
 *   HEAD    a request's or answer's HTTP/1.1 head, and what there is of its body behind it
 *   DATA    more of the body
 *   WINDOW  32 bits: so many more bytes of body may be sent on this stream
 *   RESET   32 bits, why: the stream is over, whatever was still to come
 *   GOAWAY  stream 0; 32 bits: the last stream that will be answered; open no more
 *
 * END on HEAD or DATA: the message is complete; only this ends a body. Streams are opened by the
 * client, with ids that grow. Each direction of a stream begins with AT_MUX_WINDOW_BYTES. */
#ifndef AT_NET_MUX_H
#define AT_NET_MUX_H

#include "core/str.h"

#define AT_MUX_PROTOCOL "atoll-mux/1"
#define AT_MUX_HEAD_BYTES 12
#define AT_MUX_WINDOW_BYTES 65536u
#define AT_MUX_PAYLOAD_BYTES_MAX                                                                   \
    (65536u + AT_MUX_WINDOW_BYTES) /* a largest head, a full window                                \
                                    */
#define AT_MUX_STREAMS_MAX 1024u   /* at one time on a connection */
#define AT_MUX_SLOTS 2048u         /* a power of two; ids are given so that none collide */

enum at_mux_type {
    AT_MUX_HEAD = 1,
    AT_MUX_DATA = 2,
    AT_MUX_WINDOW = 3,
    AT_MUX_RESET = 4,
    AT_MUX_GOAWAY = 5,
};
#define AT_MUX_END 1u

enum at_mux_reason {
    AT_MUX_CANCELLED = 1, /* nobody waits for it any more */
    AT_MUX_REFUSED = 2,   /* not begun: safe to be sent elsewhere */
    AT_MUX_BROKEN = 3,    /* the answer was cut off */
};

struct at_mux_frame {
    enum at_mux_type type;
    bool end;
    uint32_t id;
    struct at_str payload; /* borrows the input */
    uint32_t number;       /* of WINDOW, RESET, GOAWAY */
};

/* One frame from data[0..len). err: AT_AGAIN incomplete; AT_BAD_REQUEST not of this protocol. */
enum at_rc at_mux_parse(const char *data, size_t len, struct at_mux_frame *ret, size_t *ret_used,
                        struct at_err *err) AT_WARN_UNUSED;
void at_mux_put_head(char out[AT_MUX_HEAD_BYTES], enum at_mux_type type, bool end, uint32_t id,
                     size_t payload_bytes);
/* A whole frame of 16 bytes. */
void at_mux_put_number(char out[AT_MUX_HEAD_BYTES + 4], enum at_mux_type type, uint32_t id,
                       uint32_t number);

#endif
