/* Protocol Buffers' wire format (encoding page of protobuf.dev): fields out of a message, fields
 * into a buffer. Nothing is copied on reading. */
#ifndef AT_GATEWAY_PB_H
#define AT_GATEWAY_PB_H

#include "core/buf.h"
#include "core/str.h"

enum gw_pb_wire { GW_PB_VARINT = 0, GW_PB_FIXED64 = 1, GW_PB_BYTES = 2, GW_PB_FIXED32 = 5 };

struct gw_pb_field {
    uint32_t number;
    enum gw_pb_wire wire;
    uint64_t value;      /* varint, fixed */
    struct at_str bytes; /* GW_PB_BYTES */
};

/* The next field of *rest. err: AT_EOF no more; AT_BAD_REQUEST malformed. */
enum at_rc gw_pb_next(struct at_str *rest, struct gw_pb_field *ret) AT_WARN_UNUSED;
/* The next varint of *rest; err as above. */
enum at_rc gw_pb_varint(struct at_str *rest, uint64_t *ret) AT_WARN_UNUSED;

enum at_rc gw_pb_put_varint(struct at_buf *out, uint64_t value) AT_WARN_UNUSED;
enum at_rc gw_pb_put_number(struct at_buf *out, uint32_t number, uint64_t value) AT_WARN_UNUSED;
enum at_rc gw_pb_put_bytes(struct at_buf *out, uint32_t number, const void *data,
                           size_t len) AT_WARN_UNUSED;

#endif
