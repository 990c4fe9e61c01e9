#include "net/spdy.h"

#include "core/mem.h"

#include <assert.h>
#include <string.h>
#include <zlib.h>

#define HEAD_BYTES 8
#define VERSION 3
#define FLAG_FIN 1
#define WINDOW_BITS 11 /* of our own few headers */
#define RESET_CANCEL 5
#define DATA_BYTES_MAX ((size_t)0xffffff)

enum frame {
    SYN_STREAM = 1,
    SYN_REPLY = 2,
    RST_STREAM = 3,
    SETTINGS = 4,
    PING = 6,
    GOAWAY = 7,
    HEADERS = 8,
    WINDOW_UPDATE = 9
};

/* The SPDY/3 draft, section 2.6.10.1. */
static const char DICTIONARY[] =
    "\000\000\000\007options\000\000\000\004head\000\000\000\004post\000\000\000\003put"
    "\000\000\000\006delete\000\000\000\005trace\000\000\000\006accept\000\000\000\016acc"
    "ept-charset\000\000\000\017accept-encoding\000\000\000\017accept-language\000\000"
    "\000\015accept-ranges\000\000\000\003age\000\000\000\005allow\000\000\000\015authori"
    "zation\000\000\000\015cache-control\000\000\000\012connection\000\000\000\014content"
    "-base\000\000\000\020content-encoding\000\000\000\020content-language\000\000\000"
    "\016content-length\000\000\000\020content-location\000\000\000\013content-md5\000"
    "\000\000\015content-range\000\000\000\014content-type\000\000\000\004date\000\000"
    "\000\004etag\000\000\000\006expect\000\000\000\007expires\000\000\000\004from\000"
    "\000\000\004host\000\000\000\010if-match\000\000\000\021if-modified-since\000\000"
    "\000\015if-none-match\000\000\000\010if-range\000\000\000\023if-unmodified-since\000"
    "\000\000\015last-modified\000\000\000\010location\000\000\000\014max-forwards\000"
    "\000\000\006pragma\000\000\000\022proxy-authenticate\000\000\000\023proxy-authorizat"
    "ion\000\000\000\005range\000\000\000\007referer\000\000\000\013retry-after\000\000"
    "\000\006server\000\000\000\002te\000\000\000\007trailer\000\000\000\021transfer-enco"
    "ding\000\000\000\007upgrade\000\000\000\012user-agent\000\000\000\004vary\000\000"
    "\000\003via\000\000\000\007warning\000\000\000\020www-authenticate\000\000\000\006me"
    "thod\000\000\000\003get\000\000\000\006status\000\000\000\006200 OK\000\000\000\007v"
    "ersion\000\000\000\010HTTP/1.1\000\000\000\003url\000\000\000\006public\000\000\000"
    "\012set-cookie\000\000\000\012keep-alive\000\000\000\006origin1001012012022052063003"
    "02303304305306307402405406407408409410411412413414415416417502504505203 Non-Authorit"
    "ative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized4"
    "03 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Una"
    "vailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu"
    ", Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,s"
    "dchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

struct at_spdy {
    z_stream inflater, deflater;
    bool deflater_made;
    unsigned char head[HEAD_BYTES];
    size_t head_len;
    bool in_data;         /* of a data frame: left bytes more */
    uint32_t data_stream; /* whose they are */
    bool data_last;
    size_t left;
    struct at_buf control; /* the control frame's payload so far */
    struct at_buf block;   /* its headers, inflated */
    struct at_spdy_header headers[AT_SPDY_HEADERS_MAX];
};

struct at_spdy *at_spdy_new(void)
{
    struct at_spdy *s = AT_NEW(struct at_spdy);
    at_buf_init(&s->control, AT_SPDY_CONTROL_BYTES_MAX);
    at_buf_init(&s->block, AT_SPDY_HEADERS_BYTES_MAX);
    int rc = inflateInit(&s->inflater);
    assert(rc == Z_OK); /* as at_alloc: without memory there is no program */
    (void)rc;
    return s;
}

void at_spdy_free(struct at_spdy *s)
{
    if (s == NULL) {
        return;
    }
    inflateEnd(&s->inflater);
    if (s->deflater_made) {
        deflateEnd(&s->deflater);
    }
    at_buf_done(&s->control);
    at_buf_done(&s->block);
    at_free(s);
}

static uint32_t get32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void set32(unsigned char *p, uint32_t value)
{
    p[0] = (unsigned char)(value >> 24);
    p[1] = (unsigned char)(value >> 16);
    p[2] = (unsigned char)(value >> 8);
    p[3] = (unsigned char)value;
}

/* --- header blocks --- */

static enum at_rc bad(struct at_err *err, const char *what)
{
    return at_err_set(err, AT_BAD_REQUEST, "SPDY: %s", what);
}

static enum at_rc block_inflate(struct at_spdy *s, const char *data, size_t len, struct at_err *err)
{
    z_stream *z = &s->inflater;
    at_buf_clear(&s->block);
    z->next_in = (Bytef *)(uintptr_t)data;
    z->avail_in = (uInt)len;
    while (z->avail_in > 0) {
        char *place;
        size_t room = 4096;
        if (at_buf_reserve(&s->block, room, &place) != AT_OK) {
            return at_err_set(err, AT_TOO_LARGE, "SPDY: headers of more than %d bytes",
                              AT_SPDY_HEADERS_BYTES_MAX - 4096);
        }
        z->next_out = (Bytef *)place;
        z->avail_out = (uInt)room;
        int rc = inflate(z, Z_SYNC_FLUSH);
        if (rc == Z_NEED_DICT) {
            rc = inflateSetDictionary(z, (const Bytef *)DICTIONARY, sizeof DICTIONARY - 1);
        }
        at_buf_commit(&s->block, room - z->avail_out);
        if (rc != Z_OK) {
            return bad(err, "headers cannot be inflated");
        }
    }
    return AT_OK;
}

/* A text of the block at *at, ended with NUL in place (over the next length's first byte, which is
 * read before: *ret_next). */
static bool text_take(struct at_buf *block, size_t *at, uint32_t len, char **ret)
{
    if (len > block->len - *at) {
        return false;
    }
    *ret = block->data + *at;
    *at += len;
    return memchr(*ret, '\0', len) == NULL;
}

static bool length_take(const struct at_buf *block, size_t *at, uint32_t *ret)
{
    if (block->len - *at < 4) {
        return false;
    }
    *ret = get32((const unsigned char *)block->data + *at);
    *at += 4;
    return true;
}

static enum at_rc block_read(struct at_spdy *s, struct at_spdy_event *ret, struct at_err *err)
{
    struct at_buf *b = &s->block;
    size_t at = 0;
    uint32_t n;
    if (!length_take(b, &at, &n) || n > AT_SPDY_HEADERS_MAX) {
        return bad(err, "no headers, or too many");
    }
    char *ends[2 * AT_SPDY_HEADERS_MAX];
    for (uint32_t i = 0; i < 2 * n; i++) {
        uint32_t len;
        char *text;
        if (!length_take(b, &at, &len) || !text_take(b, &at, len, &text)) {
            return bad(err, "headers are cut off or hold a NUL");
        }
        *(i % 2 == 0 ? &s->headers[i / 2].name : &s->headers[i / 2].value) = text;
        ends[i] = text + len;
    }
    for (uint32_t i = 0; i < 2 * n; i++) {
        *ends[i] = '\0'; /* lengths are read by now; the last byte is the buffer's own NUL */
    }
    ret->headers = s->headers;
    ret->n_headers = n;
    return AT_OK;
}

const char *at_spdy_header(const struct at_spdy_event *event, const char *name)
{
    for (size_t i = 0; i < event->n_headers; i++) {
        if (strcmp(event->headers[i].name, name) == 0) {
            return event->headers[i].value;
        }
    }
    return NULL;
}

/* --- frames in --- */

static enum at_rc headers_take(struct at_spdy *s, size_t skip, struct at_spdy_event *ret,
                               struct at_err *err)
{
    enum at_rc rc = block_inflate(s, s->control.data + skip, s->control.len - skip, err);
    return rc == AT_OK ? block_read(s, ret, err) : rc;
}

/* The control frame is whole. */
static enum at_rc control_done(struct at_spdy *s, struct at_spdy_event *ret, struct at_err *err)
{
    enum frame type = (enum frame)(s->head[2] << 8 | s->head[3]);
    const unsigned char *p = (const unsigned char *)s->control.data;
    size_t len = s->control.len;
    bool is_open = type == SYN_STREAM;
    if (len < 4 && type != SETTINGS) {
        return bad(err, "a control frame is too short");
    }
    uint32_t id = len >= 4 ? get32(p) & 0x7fffffff : 0;
    switch (type) {
    case SYN_STREAM:
    case SYN_REPLY:
    case HEADERS:
        if (len < (is_open ? 10 : 4) || id == 0) {
            return bad(err, "a frame with headers is too short, or names no stream");
        }
        *ret = (struct at_spdy_event){
            .type = AT_SPDY_OPEN, .id = id, .last = (s->head[4] & FLAG_FIN) != 0};
        /* All blocks go through the one inflater, whether anyone wants them or not. */
        enum at_rc rc = headers_take(s, is_open ? 10 : 4, ret, err);
        if (!is_open) {
            *ret = (struct at_spdy_event){.type = AT_SPDY_NONE};
        }
        return rc;
    case RST_STREAM:
        ret->type = AT_SPDY_RESET;
        ret->id = id;
        return AT_OK;
    case PING:
        ret->type = AT_SPDY_PING;
        ret->id = get32(p);
        return AT_OK;
    case GOAWAY:
        ret->type = AT_SPDY_GOAWAY;
        return AT_OK;
    case SETTINGS:
    case WINDOW_UPDATE:
        break;
    }
    return AT_OK; /* what is not known is to be ignored, section 2.2.1 */
}

static enum at_rc head_done(struct at_spdy *s, struct at_err *err)
{
    s->left = (size_t)s->head[5] << 16 | (size_t)s->head[6] << 8 | s->head[7];
    s->in_data = (s->head[0] & 0x80) == 0;
    at_buf_clear(&s->control);
    if (s->in_data) {
        s->data_stream = get32(s->head);
        s->data_last = (s->head[4] & FLAG_FIN) != 0;
        return s->data_stream != 0 ? AT_OK : bad(err, "data of no stream");
    }
    if ((s->head[0] & 0x7f) != 0 || s->head[1] != VERSION) {
        return bad(err, "another version than 3");
    }
    return s->left <= AT_SPDY_CONTROL_BYTES_MAX
               ? AT_OK
               : at_err_set(err, AT_TOO_LARGE, "SPDY: a control frame of %zu bytes", s->left);
}

enum at_rc at_spdy_take(struct at_spdy *s, const char *data, size_t len, size_t *ret_used,
                        struct at_spdy_event *ret, struct at_err *err)
{
    size_t used = 0;
    *ret = (struct at_spdy_event){.type = AT_SPDY_NONE};
    while (ret->type == AT_SPDY_NONE && (used < len || s->head_len == HEAD_BYTES)) {
        enum at_rc rc = AT_OK;
        if (s->head_len < HEAD_BYTES) {
            s->head[s->head_len++] = (unsigned char)data[used++];
            if (s->head_len < HEAD_BYTES) {
                continue;
            }
            rc = head_done(s, err);
            if (rc != AT_OK) {
                return rc;
            }
        }
        size_t n = len - used < s->left ? len - used : s->left;
        bool whole = n == s->left;
        if (!whole && n == 0) {
            break;
        }
        s->left -= n;
        if (whole) {
            s->head_len = 0;
        }
        if (s->in_data) {
            *ret = (struct at_spdy_event){.type = AT_SPDY_DATA,
                                          .id = s->data_stream,
                                          .data = data + used,
                                          .len = n,
                                          .last = whole && s->data_last};
        } else {
            rc = at_buf_append(&s->control, data + used, n);
            if (rc == AT_OK && whole) {
                rc = control_done(s, ret, err);
            }
        }
        used += n;
        if (rc != AT_OK) {
            return rc;
        }
    }
    *ret_used = used;
    return AT_OK;
}

/* --- frames out --- */

static void control_head(unsigned char head[HEAD_BYTES], enum frame type, size_t len)
{
    set32(head, UINT32_C(0x80000000) | VERSION << 16 | (uint32_t)type);
    set32(head + 4, (uint32_t)len);
}

static void deflater_make(struct at_spdy *s)
{
    int rc =
        deflateInit2(&s->deflater, Z_BEST_SPEED, Z_DEFLATED, WINDOW_BITS, 1, Z_DEFAULT_STRATEGY);
    assert(rc == Z_OK);
    rc = deflateSetDictionary(&s->deflater, (const Bytef *)DICTIONARY, sizeof DICTIONARY - 1);
    assert(rc == Z_OK);
    (void)rc;
    s->deflater_made = true;
}

static enum at_rc text_put(struct at_buf *out, const char *text)
{
    unsigned char len[4];
    set32(len, (uint32_t)strlen(text));
    enum at_rc rc = at_buf_append(out, len, sizeof len);
    return rc == AT_OK ? at_buf_append_str(out, text) : rc;
}

static enum at_rc block_deflate(struct at_spdy *s, const struct at_spdy_header *headers, size_t n,
                                struct at_buf *out)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf plain = {.max = AT_SPDY_CONTROL_BYTES_MAX / 2};
    unsigned char count[4];
    set32(count, (uint32_t)n);
    enum at_rc rc = at_buf_append(&plain, count, sizeof count);
    for (size_t i = 0; rc == AT_OK && i < n; i++) {
        rc = text_put(&plain, headers[i].name);
        rc = rc == AT_OK ? text_put(&plain, headers[i].value) : rc;
    }
    if (!s->deflater_made) {
        deflater_make(s);
    }
    char *place = NULL;
    size_t room = plain.len + plain.len / 8 + 64; /* more than a sync flush can need */
    rc = rc == AT_OK ? at_buf_reserve(out, room, &place) : rc;
    if (rc != AT_OK) {
        return rc;
    }
    s->deflater.next_in = (Bytef *)plain.data;
    s->deflater.avail_in = (uInt)plain.len;
    s->deflater.next_out = (Bytef *)place;
    s->deflater.avail_out = (uInt)room;
    int done = deflate(&s->deflater, Z_SYNC_FLUSH);
    assert(done == Z_OK);
    assert(s->deflater.avail_out > 0);
    (void)done;
    at_buf_commit(out, room - s->deflater.avail_out);
    return AT_OK;
}

/* payload: what stands before the headers. */
static enum at_rc put_block(struct at_spdy *s, enum frame type, uint32_t stream, size_t payload,
                            const struct at_spdy_header *headers, size_t n, struct at_buf *out)
{
    unsigned char head[HEAD_BYTES + 10] = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf block = {0};
    enum at_rc rc = block_deflate(s, headers, n, &block);
    control_head(head, type, payload + block.len);
    set32(head + HEAD_BYTES, stream);
    rc = rc == AT_OK ? at_buf_append(out, head, HEAD_BYTES + payload) : rc;
    return rc == AT_OK ? at_buf_append(out, block.data, block.len) : rc;
}

enum at_rc at_spdy_put_reply(struct at_spdy *s, uint32_t stream, struct at_buf *out)
{
    return put_block(s, SYN_REPLY, stream, 4, NULL, 0, out);
}

enum at_rc at_spdy_put_open(struct at_spdy *s, uint32_t stream,
                            const struct at_spdy_header *headers, size_t n, struct at_buf *out)
{
    return put_block(s, SYN_STREAM, stream, 10, headers, n, out);
}

enum at_rc at_spdy_put_data(uint32_t stream, const char *data, size_t len, bool last,
                            struct at_buf *out)
{
    assert(len <= DATA_BYTES_MAX);
    unsigned char head[HEAD_BYTES];
    set32(head, stream);
    set32(head + 4, (uint32_t)len);
    head[4] = last ? FLAG_FIN : 0;
    enum at_rc rc = at_buf_append(out, head, sizeof head);
    return rc == AT_OK && len > 0 ? at_buf_append(out, data, len) : rc;
}

enum at_rc at_spdy_put_reset(uint32_t stream, struct at_buf *out)
{
    unsigned char frame[HEAD_BYTES + 8];
    control_head(frame, RST_STREAM, 8);
    set32(frame + HEAD_BYTES, stream);
    set32(frame + HEAD_BYTES + 4, RESET_CANCEL);
    return at_buf_append(out, frame, sizeof frame);
}

enum at_rc at_spdy_put_ping(uint32_t id, struct at_buf *out)
{
    unsigned char frame[HEAD_BYTES + 4];
    control_head(frame, PING, 4);
    set32(frame + HEAD_BYTES, id);
    return at_buf_append(out, frame, sizeof frame);
}
