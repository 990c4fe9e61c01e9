#include "metering/record.h"

#include "metering/checksum.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#define HEAD sizeof(struct at_meter_head)

static size_t rounded(size_t len)
{
    return (len + 7) & ~(size_t)7;
}

static size_t body_bytes(enum at_meter_type type)
{
    switch (type) {
    case AT_METER_START:
        return sizeof(struct at_meter_start);
    case AT_METER_MARK:
        return sizeof(struct at_meter_mark);
    case AT_METER_USE:
        return sizeof(struct at_meter_use);
    case AT_METER_SUM:
        return sizeof(struct at_meter_sum);
    case AT_METER_END:
    case AT_METER_KEY:
    case AT_METER_MODEL:
    case AT_METER_TYPES:
        break;
    }
    return 0;
}

/* A length of two bytes and the text. */
static bool take_text(const unsigned char *body, size_t len, size_t *at, struct at_str *ret)
{
    uint16_t n;
    if (len - *at < sizeof n) {
        return false;
    }
    memcpy(&n, body + *at, sizeof n);
    *at += sizeof n;
    if (len - *at < n || n > AT_METER_TEXT_BYTES_MAX) {
        return false;
    }
    *ret = (struct at_str){(const char *)body + *at, n};
    *at += n;
    return true;
}

static bool take_names(const unsigned char *body, size_t len, struct at_meter_record *r)
{
    size_t at = sizeof r->id;
    if (len < at) {
        return false;
    }
    memcpy(&r->id, body, sizeof r->id);
    if (r->type == AT_METER_MODEL) {
        return take_text(body, len, &at, &r->name);
    }
    return take_text(body, len, &at, &r->uid) && take_text(body, len, &at, &r->ns) &&
           take_text(body, len, &at, &r->name) && take_text(body, len, &at, &r->team);
}

static bool is_sound(const struct at_meter_record *r)
{
    switch (r->type) {
    case AT_METER_START:
        return memchr(r->start.meter, '\0', sizeof r->start.meter) != NULL;
    case AT_METER_USE:
        return r->use.cost_nanousd >= 0;
    case AT_METER_SUM:
        return r->sum.cost_nanousd >= 0;
    case AT_METER_END:
    case AT_METER_MARK:
    case AT_METER_KEY:
    case AT_METER_MODEL:
    case AT_METER_TYPES:
        break;
    }
    return true;
}

enum at_rc at_meter_record_read(const unsigned char *data, size_t len, size_t *at,
                                struct at_meter_record *ret)
{
    struct at_meter_head head;
    size_t left = len - *at;
    if (left < HEAD) {
        return AT_NOT_FOUND;
    }
    memcpy(&head, data + *at, HEAD);
    if (head.len == 0 && head.crc == 0 && head.type == AT_METER_END) {
        return AT_NOT_FOUND;
    }
    if (head.len < HEAD || head.len > left || head.len > AT_METER_RECORD_BYTES_MAX ||
        head.len % 8 != 0 || head.type == AT_METER_END || head.type >= AT_METER_TYPES ||
        at_meter_crc(data + *at + 8, head.len - 8) != head.crc) {
        return AT_CORRUPT;
    }
    const unsigned char *body = data + *at + HEAD;
    size_t body_len = head.len - HEAD;
    struct at_meter_record r = {.type = (enum at_meter_type)head.type};
    size_t fixed = body_bytes(r.type);
    if (fixed == 0) {
        if (!take_names(body, body_len, &r)) {
            return AT_CORRUPT;
        }
    } else if (body_len != rounded(fixed)) {
        return AT_CORRUPT;
    } else {
        memcpy(&r.start, body, fixed);
    }
    if (!is_sound(&r)) {
        return AT_CORRUPT;
    }
    *ret = r;
    *at += head.len;
    return AT_OK;
}

/* len is stored last. Whoever looks meanwhile, or after a kill, sees none. */
static void finish(unsigned char *out, size_t len, enum at_meter_type type)
{
    struct at_meter_head head = {.len = (uint32_t)len, .type = type};
    memcpy(out + 8, (const char *)&head + 8, HEAD - 8);
    head.crc = at_meter_crc(out + 8, len - 8);
    memcpy(out + 4, &head.crc, sizeof head.crc);
    atomic_signal_fence(memory_order_release);
    memcpy(out, &head.len, sizeof head.len);
}

static size_t text_bytes(const char *text)
{
    size_t len = strlen(text);
    return sizeof(uint16_t) + (len < AT_METER_TEXT_BYTES_MAX ? len : AT_METER_TEXT_BYTES_MAX);
}

static unsigned char *put_text(unsigned char *out, const char *text)
{
    uint16_t n = (uint16_t)(text_bytes(text) - sizeof n);
    memcpy(out, &n, sizeof n);
    memcpy(out + sizeof n, text, n);
    return out + sizeof n + n;
}

size_t at_meter_key_bytes(const struct at_meter_who *who)
{
    return HEAD + rounded(sizeof who->id + text_bytes(who->uid) + text_bytes(who->ns) +
                          text_bytes(who->name) + text_bytes(who->team));
}

void at_meter_key_write(const struct at_meter_who *who, unsigned char *out)
{
    size_t len = at_meter_key_bytes(who);
    unsigned char *p = out + HEAD;
    memset(out, 0, len);
    memcpy(p, &who->id, sizeof who->id);
    p = put_text(p + sizeof who->id, who->uid);
    p = put_text(p, who->ns);
    p = put_text(p, who->name);
    put_text(p, who->team);
    finish(out, len, AT_METER_KEY);
}

size_t at_meter_model_bytes(const char *model)
{
    return HEAD + rounded(sizeof(uint32_t) + text_bytes(model));
}

void at_meter_model_write(uint32_t id, const char *model, unsigned char *out)
{
    size_t len = at_meter_model_bytes(model);
    memset(out, 0, len);
    memcpy(out + HEAD, &id, sizeof id);
    put_text(out + HEAD + sizeof id, model);
    finish(out, len, AT_METER_MODEL);
}

size_t at_meter_fixed_bytes(enum at_meter_type type)
{
    return HEAD + rounded(body_bytes(type));
}

void at_meter_fixed_write(enum at_meter_type type, const void *body, unsigned char *out)
{
    size_t len = at_meter_fixed_bytes(type), n = body_bytes(type);
    assert(n > 0);
    memset(out + HEAD + n, 0, len - HEAD - n);
    memcpy(out + HEAD, body, n);
    finish(out, len, type);
}
