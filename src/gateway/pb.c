#include "gateway/pb.h"

#define VARINT_BYTES_MAX 10

enum at_rc gw_pb_varint(struct at_str *rest, uint64_t *ret)
{
    uint64_t value = 0;
    if (rest->len == 0) {
        return AT_EOF;
    }
    for (size_t i = 0; i < rest->len && i < VARINT_BYTES_MAX; i++) {
        unsigned char byte = (unsigned char)rest->ptr[i];
        if (i == VARINT_BYTES_MAX - 1 && byte > 1) {
            return AT_BAD_REQUEST; /* over 64 bits */
        }
        value |= (uint64_t)(byte & 0x7f) << 7 * i;
        if (byte < 0x80) {
            rest->ptr += i + 1;
            rest->len -= i + 1;
            *ret = value;
            return AT_OK;
        }
    }
    return AT_BAD_REQUEST;
}

static enum at_rc take_fixed(struct at_str *rest, size_t n, uint64_t *ret)
{
    if (rest->len < n) {
        return AT_BAD_REQUEST;
    }
    *ret = 0;
    memcpy(ret, rest->ptr, n); /* little-endian, as this machine */
    rest->ptr += n;
    rest->len -= n;
    return AT_OK;
}

enum at_rc gw_pb_next(struct at_str *rest, struct gw_pb_field *ret)
{
    uint64_t key, len;
    enum at_rc rc = gw_pb_varint(rest, &key);
    if (rc != AT_OK) {
        return rc;
    }
    *ret = (struct gw_pb_field){.number = (uint32_t)(key >> 3), .wire = (enum gw_pb_wire)(key & 7)};
    if (key >> 3 == 0 || key >> 3 >= 1u << 29) {
        return AT_BAD_REQUEST;
    }
    switch (ret->wire) {
    case GW_PB_VARINT:
        rc = gw_pb_varint(rest, &ret->value);
        return rc == AT_EOF ? AT_BAD_REQUEST : rc;
    case GW_PB_FIXED64:
        return take_fixed(rest, 8, &ret->value);
    case GW_PB_FIXED32:
        return take_fixed(rest, 4, &ret->value);
    case GW_PB_BYTES:
        if (gw_pb_varint(rest, &len) != AT_OK || len > rest->len) {
            return AT_BAD_REQUEST;
        }
        ret->bytes = (struct at_str){rest->ptr, (size_t)len};
        rest->ptr += len;
        rest->len -= (size_t)len;
        return AT_OK;
    }
    return AT_BAD_REQUEST; /* groups are long gone */
}

enum at_rc gw_pb_put_varint(struct at_buf *out, uint64_t value)
{
    char bytes[VARINT_BYTES_MAX];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) {
        bytes[n++] = (char)(value | 0x80);
    }
    bytes[n++] = (char)value;
    return at_buf_append(out, bytes, n);
}

enum at_rc gw_pb_put_number(struct at_buf *out, uint32_t number, uint64_t value)
{
    enum at_rc rc = gw_pb_put_varint(out, (uint64_t)number << 3 | GW_PB_VARINT);
    return rc == AT_OK ? gw_pb_put_varint(out, value) : rc;
}

enum at_rc gw_pb_put_bytes(struct at_buf *out, uint32_t number, const void *data, size_t len)
{
    enum at_rc rc = gw_pb_put_varint(out, (uint64_t)number << 3 | GW_PB_BYTES);
    rc = rc == AT_OK ? gw_pb_put_varint(out, len) : rc;
    return rc == AT_OK && len > 0 ? at_buf_append(out, data, len) : rc;
}
