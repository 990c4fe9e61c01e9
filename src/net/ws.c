#include "net/ws.h"

#include "core/buf.h"
#include "core/digest.h"
#include "core/mem.h"

#include <assert.h>
#include <openssl/evp.h>
#include <string.h>

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* RFC 6455 §1.3 */
#define KEY_TEXT_BYTES 24
#define KEY_BYTES 16

void at_ws_init(struct at_ws *ws)
{
    memset(ws, 0, sizeof *ws);
}

void at_ws_init_client(struct at_ws *ws)
{
    at_ws_init(ws);
    ws->from_server = true;
}

static size_t mask_bytes(const struct at_ws *ws)
{
    return ws->from_server ? 0 : AT_WS_MASK_BYTES;
}

static bool is_control(enum at_ws_opcode opcode)
{
    return opcode >= AT_WS_CLOSE;
}

/* Bytes that the head has in all, as far as its first two tell. */
static size_t head_bytes(const struct at_ws *ws)
{
    if (ws->head_len < 2) {
        return 2;
    }
    size_t length = ws->head[1] & 0x7f;
    return 2 + (length == 126 ? 2u : length == 127 ? 8u : 0u) + mask_bytes(ws);
}

static uint64_t length_of(const struct at_ws *ws)
{
    uint64_t value = ws->head[1] & 0x7f;
    size_t n = value == 126 ? 2 : value == 127 ? 8 : 0;
    if (n == 0) {
        return value;
    }
    value = 0;
    for (size_t i = 0; i < n; i++) {
        value = value << 8 | ws->head[2 + i];
    }
    return value;
}

/* The first two bytes say what is not allowed, before anything else is waited for. */
static enum at_rc check_start(const struct at_ws *ws, struct at_err *err)
{
    unsigned opcode = ws->head[0] & 0x0f;
    bool fin = (ws->head[0] & 0x80) != 0;
    if ((ws->head[0] & 0x70) != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "a frame uses an extension that was not agreed on");
    }
    if (((ws->head[1] & 0x80) == 0) != ws->from_server) {
        return at_err_set(err, AT_BAD_REQUEST,
                          ws->from_server ? "a server's frame is masked"
                                          : "a client's frame is not masked");
    }
    if (opcode > AT_WS_PONG || (opcode > AT_WS_BINARY && opcode < AT_WS_CLOSE)) {
        return at_err_set(err, AT_BAD_REQUEST, "a frame has the unknown opcode %u", opcode);
    }
    if (opcode >= AT_WS_CLOSE && (!fin || (ws->head[1] & 0x7f) > AT_WS_CONTROL_BYTES_MAX)) {
        return at_err_set(err, AT_BAD_REQUEST, "a control frame is too long or in parts");
    }
    if (opcode == AT_WS_CONTINUATION && !ws->in_message) {
        return at_err_set(err, AT_BAD_REQUEST, "a frame continues a message that was not begun");
    }
    if ((opcode == AT_WS_TEXT || opcode == AT_WS_BINARY) && ws->in_message) {
        return at_err_set(err, AT_BAD_REQUEST, "a message begins within another");
    }
    return AT_OK;
}

static enum at_rc begin_frame(struct at_ws *ws, struct at_err *err)
{
    uint64_t length = length_of(ws);
    size_t wide = ws->head[1] & 0x7f;
    if ((wide == 126 && length < 126) || (wide == 127 && length < 65536)) {
        return at_err_set(err, AT_BAD_REQUEST, "a frame's length is not in its shortest form");
    }
    ws->opcode = (enum at_ws_opcode)(ws->head[0] & 0x0f);
    ws->fin = (ws->head[0] & 0x80) != 0;
    ws->left = length;
    memset(ws->mask, 0, sizeof ws->mask);
    memcpy(ws->mask, ws->head + head_bytes(ws) - mask_bytes(ws), mask_bytes(ws));
    ws->mask_at = 0;
    ws->piece_len = 0;
    ws->head_len = 0;
    ws->in_frame = true;
    if (is_control(ws->opcode)) {
        return AT_OK;
    }
    if (ws->opcode != AT_WS_CONTINUATION) {
        ws->message = ws->opcode;
        ws->message_bytes = 0;
        ws->in_message = true;
        ws->first = true;
    }
    if (length > AT_WS_MESSAGE_BYTES_MAX - ws->message_bytes) {
        return at_err_set(err, AT_TOO_LARGE, "a message is larger than %llu bytes",
                          (unsigned long long)AT_WS_MESSAGE_BYTES_MAX);
    }
    ws->message_bytes += length;
    return AT_OK;
}

static enum at_rc take_head(struct at_ws *ws, const char *data, size_t len, size_t *used,
                            struct at_err *err)
{
    while (*used < len) {
        ws->head[ws->head_len++] = (uint8_t)data[(*used)++];
        if (ws->head_len == 2) {
            enum at_rc rc = check_start(ws, err);
            if (rc != AT_OK) {
                return rc;
            }
        }
        if (ws->head_len >= 2 && ws->head_len == head_bytes(ws)) {
            return begin_frame(ws, err);
        }
    }
    return AT_OK;
}

static size_t unmask(struct at_ws *ws, const char *data, size_t len, size_t at)
{
    size_t n = len < ws->left ? len : (size_t)ws->left;
    n = n < AT_WS_PIECE_BYTES - at ? n : AT_WS_PIECE_BYTES - at;
    for (size_t i = 0; i < n; i++) {
        ws->piece[at + i] = (char)((uint8_t)data[i] ^ ws->mask[ws->mask_at]);
        ws->mask_at = (ws->mask_at + 1) & 3;
    }
    ws->left -= n;
    return n;
}

static void take_payload(struct at_ws *ws, const char *data, size_t len, size_t *used,
                         struct at_ws_event *ret)
{
    bool control = is_control(ws->opcode);
    size_t n = unmask(ws, data + *used, len - *used, control ? ws->piece_len : 0);
    *used += n;
    ws->in_frame = ws->left > 0;
    if (control) {
        ws->piece_len += n;
        if (ws->left == 0) {
            *ret = (struct at_ws_event){.type = AT_WS_EVENT_CONTROL,
                                        .opcode = ws->opcode,
                                        .data = ws->piece,
                                        .len = ws->piece_len};
        }
        return;
    }
    bool last = ws->left == 0 && ws->fin;
    if (n == 0 && !last) {
        return;
    }
    *ret = (struct at_ws_event){.type = AT_WS_EVENT_DATA,
                                .opcode = ws->message,
                                .data = ws->piece,
                                .len = n,
                                .first = ws->first,
                                .last = last};
    ws->first = false;
    ws->in_message = !last;
}

enum at_rc at_ws_take(struct at_ws *ws, const char *data, size_t len, size_t *ret_used,
                      struct at_ws_event *ret, struct at_err *err)
{
    size_t used = 0;
    *ret = (struct at_ws_event){.type = AT_WS_EVENT_NONE};
    while (ret->type == AT_WS_EVENT_NONE && (used < len || (ws->in_frame && ws->left == 0))) {
        if (!ws->in_frame) {
            enum at_rc rc = take_head(ws, data, len, &used, err);
            if (rc != AT_OK) {
                return rc;
            }
        } else {
            take_payload(ws, data, len, &used, ret);
        }
    }
    assert(used <= len);
    *ret_used = used;
    return AT_OK;
}

size_t at_ws_head(char out[AT_WS_HEAD_BYTES_MAX], enum at_ws_opcode opcode, uint64_t len)
{
    size_t wide = len < 126 ? 0 : len < 65536 ? 2 : 8;
    out[0] = (char)(0x80 | opcode);
    out[1] = (char)(wide == 0 ? len : wide == 2 ? 126 : 127);
    for (size_t i = 0; i < wide; i++) {
        out[2 + i] = (char)(len >> (8 * (wide - 1 - i)));
    }
    return 2 + wide;
}

size_t at_ws_head_masked(char out[AT_WS_HEAD_BYTES_MAX + AT_WS_MASK_BYTES],
                         enum at_ws_opcode opcode, uint64_t len,
                         const uint8_t mask[AT_WS_MASK_BYTES])
{
    size_t n = at_ws_head(out, opcode, len);
    out[1] = (char)((uint8_t)out[1] | 0x80);
    memcpy(out + n, mask, AT_WS_MASK_BYTES);
    return n + AT_WS_MASK_BYTES;
}

void at_ws_mask(char *data, size_t len, size_t at, const uint8_t mask[AT_WS_MASK_BYTES])
{
    for (size_t i = 0; i < len; i++) {
        data[i] = (char)((uint8_t)data[i] ^ mask[(at + i) & 3]);
    }
}

enum at_rc at_ws_accept(const char *key, size_t len, char out[AT_WS_ACCEPT_BYTES],
                        struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf raw = {.max = 64};
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = 64};
    if (len != KEY_TEXT_BYTES || at_base64_decode(key, len, &raw) != AT_OK ||
        raw.len != KEY_BYTES) {
        return at_err_set(err, AT_BAD_REQUEST, "Sec-WebSocket-Key: not 16 bytes in base64");
    }
    char both[KEY_TEXT_BYTES + sizeof GUID];
    memcpy(both, key, KEY_TEXT_BYTES);
    memcpy(both + KEY_TEXT_BYTES, GUID, sizeof GUID);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_len = 0;
    if (EVP_Digest(both, sizeof both - 1, digest, &digest_len, EVP_sha1(), NULL) != 1 ||
        at_base64_encode(digest, digest_len, &text) != AT_OK ||
        text.len != AT_WS_ACCEPT_BYTES - 1) {
        return at_err_set(err, AT_INTERNAL, "SHA-1 is not to be had");
    }
    memcpy(out, text.data, AT_WS_ACCEPT_BYTES);
    return AT_OK;
}
