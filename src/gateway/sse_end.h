/* Event streams that may end badly: only whole events go to the client, so that an error event can
 * follow at any time. Pure but for what it writes through. */
#ifndef AT_GATEWAY_SSE_END_H
#define AT_GATEWAY_SSE_END_H

#include "core/buf.h"
#include "core/str.h"

/* How much of data ends with a whole event, or is comments only. */
size_t gw_sse_whole(struct at_str data);
/* The event that tells of message. err: AT_TOO_LARGE. */
enum at_rc gw_sse_error(const char *message, struct at_buf *out) AT_WARN_UNUSED;

#endif
