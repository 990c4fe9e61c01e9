/* Event streams that may end badly: only whole events go to the client, so that an error event can
 * follow at any time. Pure but for what it writes through. */
#ifndef AT_GATEWAY_SSE_END_H
#define AT_GATEWAY_SSE_END_H

#include "core/buf.h"
#include "core/str.h"

/* How much of data ends with a whole event, or is comments only. seen: so much of it, from its
 * beginning, was looked at before, and nothing in it was whole; 0 if not. cost: of what is new. */
size_t gw_sse_whole(struct at_str data, size_t seen);
/* The event that tells of message. err: AT_TOO_LARGE. */
enum at_rc gw_sse_error(const char *message, struct at_buf *out) AT_WARN_UNUSED;

#endif
