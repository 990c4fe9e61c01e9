#include "net/mux.h"

#include <assert.h>

static uint32_t get32(const char *at)
{
    uint32_t v;
    memcpy(&v, at, 4); /* little endian, as the machine */
    return v;
}

static enum at_rc bad(struct at_err *err, const char *what)
{
    return at_err_set(err, AT_BAD_REQUEST, "malformed %s: %s", AT_MUX_PROTOCOL, what);
}

enum at_rc at_mux_parse(const char *data, size_t len, struct at_mux_frame *ret, size_t *ret_used,
                        struct at_err *err)
{
    if (len < AT_MUX_HEAD_BYTES) {
        return AT_AGAIN;
    }
    uint32_t bytes = get32(data), id = get32(data + 4);
    unsigned type = (unsigned char)data[8], flags = (unsigned char)data[9];
    bool carries = type == AT_MUX_HEAD || type == AT_MUX_DATA;
    if (type < AT_MUX_HEAD || type > AT_MUX_GOAWAY) {
        return bad(err, "no such type of frame");
    }
    if ((flags & ~(carries ? AT_MUX_END : 0)) != 0 || data[10] != 0 || data[11] != 0) {
        return bad(err, "flags that mean nothing");
    }
    if ((id == 0) != (type == AT_MUX_GOAWAY)) {
        return bad(err, "the stream's id");
    }
    if (carries ? bytes > AT_MUX_PAYLOAD_BYTES_MAX : bytes != 4) {
        return bad(err, "the length of a frame");
    }
    if (len - AT_MUX_HEAD_BYTES < bytes) {
        return AT_AGAIN;
    }
    *ret = (struct at_mux_frame){.type = (enum at_mux_type)type,
                                 .end = (flags & AT_MUX_END) != 0,
                                 .id = id,
                                 .payload = {data + AT_MUX_HEAD_BYTES, bytes}};
    if (!carries) {
        ret->number = get32(ret->payload.ptr);
    }
    *ret_used = AT_MUX_HEAD_BYTES + bytes;
    return AT_OK;
}

void at_mux_put_head(char out[AT_MUX_HEAD_BYTES], enum at_mux_type type, bool end, uint32_t id,
                     size_t payload_bytes)
{
    assert(payload_bytes <= AT_MUX_PAYLOAD_BYTES_MAX);
    uint32_t bytes = (uint32_t)payload_bytes;
    memcpy(out, &bytes, 4);
    memcpy(out + 4, &id, 4);
    out[8] = (char)type;
    out[9] = end ? AT_MUX_END : 0;
    out[10] = out[11] = 0;
}

void at_mux_put_number(char out[AT_MUX_HEAD_BYTES + 4], enum at_mux_type type, uint32_t id,
                       uint32_t number)
{
    at_mux_put_head(out, type, false, id, 4);
    memcpy(out + AT_MUX_HEAD_BYTES, &number, 4);
}
