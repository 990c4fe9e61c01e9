/* The strict reader of dumps: what is not exactly as the writer makes it is refused. */
#include "core/digest.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/str.h"
#include "store/dump.h"

#include <string.h>

#define NAME_BYTES_MAX 128

enum stage { STAGE_HEAD, STAGE_FILES, STAGE_KEYS, STAGE_END };

struct at_dump_reader {
    struct at_dump_events events;
    enum stage stage;
    size_t line; /* of the one being read, from 1 */
    struct at_buf text;
    struct at_buf name, bytes;
    char *last_key;
    struct at_sha256_stream *hash;
    struct at_dump_summary summary;
};

struct at_dump_reader *at_dump_reader_new(const struct at_dump_events *events)
{
    struct at_dump_reader *r = AT_NEW(struct at_dump_reader);
    if (events != NULL) {
        r->events = *events;
    }
    r->line = 1;
    r->hash = at_sha256_stream_new();
    at_buf_init(&r->text, AT_DUMP_LINE_BYTES_MAX);
    return r;
}

void at_dump_reader_free(struct at_dump_reader *r)
{
    if (r != NULL) {
        at_buf_done(&r->text);
        at_buf_done(&r->name);
        at_buf_done(&r->bytes);
        at_free(r->last_key);
        at_sha256_stream_free(r->hash);
        at_free(r);
    }
}

static enum at_rc bad(struct at_err *err, const char *what)
{
    return at_err_set(err, AT_INVALID, "%s", what);
}

/* The field name or nameBase64, not both, into out, which ends with a NUL. */
static enum at_rc take_bytes(const json_t *line, const char *name, struct at_buf *out,
                             struct at_err *err)
{
    char name64[32];
    snprintf(name64, sizeof name64, "%sBase64", name);
    const json_t *text = json_object_get(line, name);
    const json_t *base64 = json_object_get(line, name64);
    if ((text == NULL) == (base64 == NULL) || !json_is_string(text != NULL ? text : base64)) {
        return at_err_set(err, AT_INVALID, "%s is not there, or no text", name);
    }
    at_buf_clear(out);
    const char *s = json_string_value(text != NULL ? text : base64);
    size_t len = json_string_length(text != NULL ? text : base64);
    enum at_rc rc = at_buf_append(out, "", 0); /* so that there are bytes to point at */
    if (rc == AT_OK) {
        rc = text != NULL ? at_buf_append(out, s, len) : at_base64_decode(s, len, out);
    }
    return rc == AT_OK ? AT_OK : at_err_set(err, AT_INVALID, "%s cannot be decoded", name);
}

static enum at_rc take_int(const json_t *line, const char *name, int64_t min, int64_t max,
                           int64_t *ret, struct at_err *err)
{
    const json_t *value = json_object_get(line, name);
    int64_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < min || n > max) {
        return at_err_set(err, AT_INVALID, "%s is no number from %lld to %lld", name,
                          (long long)min, (long long)max);
    }
    *ret = n;
    return AT_OK;
}

static enum at_rc take_head(struct at_dump_reader *r, const json_t *line, struct at_err *err)
{
    struct at_dump_head *head = &r->summary.head;
    int64_t version = 0;
    if (!json_is_integer(json_object_get(line, "atollStore"))) {
        return bad(err, "this is no backup and no export of a store");
    }
    enum at_rc rc = take_int(line, "atollStore", 1, INT64_MAX, &version, err);
    if (rc == AT_OK && version != AT_DUMP_VERSION) {
        rc = at_err_set(err, AT_INVALID, "format %lld is of another version of atoll",
                        (long long)version);
    }
    if (rc == AT_OK) {
        rc = take_int(line, "revision", 1, AT_DUMP_REV_MAX, &head->rev, err);
    }
    if (rc == AT_OK) {
        rc = take_int(line, "compactRevision", 0, head->rev, &head->compact_rev, err);
    }
    if (rc == AT_OK && json_object_size(line) != 3) {
        rc = bad(err, "a field is not known");
    }
    if (rc == AT_OK && r->events.head != NULL) {
        rc = r->events.head(r->events.ctx, head, err);
    }
    r->stage = STAGE_FILES;
    return rc;
}

/* "pki/ca.crt": plain names of letters, digits, '.', '_', '-', none of which begins with a dot. */
static bool name_ok(const char *name, size_t len)
{
    bool start = true;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '_' || c == '-';
        if (!plain && (start || (c != '.' && c != '/'))) {
            return false;
        }
        start = c == '/';
    }
    return len != 0 && len <= NAME_BYTES_MAX && !start;
}

static enum at_rc take_file(struct at_dump_reader *r, const json_t *line, struct at_err *err)
{
    if (r->stage != STAGE_FILES || r->summary.files == AT_DUMP_FILES_MAX) {
        return bad(err, "a file where none may be");
    }
    enum at_rc rc = take_bytes(line, "file", &r->name, err);
    if (rc == AT_OK && !name_ok(r->name.data, r->name.len)) {
        rc = bad(err, "the file's name cannot be");
    }
    if (rc == AT_OK) {
        rc = take_bytes(line, "text", &r->bytes, err);
    }
    if (rc == AT_OK && (json_object_size(line) != 2 || r->bytes.len > AT_DUMP_FILE_BYTES_MAX)) {
        rc = bad(err, "a field is not known, or the file is too large");
    }
    if (rc == AT_OK && r->events.file != NULL) {
        rc = r->events.file(r->events.ctx, r->name.data, r->bytes.data, r->bytes.len, err);
    }
    r->summary.files++;
    return rc;
}

static enum at_rc key_check(struct at_dump_reader *r, const struct at_store_kv *kv,
                            struct at_err *err)
{
    if (r->name.len == 0 || r->name.len > AT_STORE_KEY_BYTES_MAX ||
        strlen(kv->key) != r->name.len || kv->value_len > AT_STORE_VALUE_BYTES_MAX) {
        return bad(err, "the key or the value is empty or too long");
    }
    if (r->last_key != NULL && strcmp(r->last_key, kv->key) >= 0) {
        return bad(err, "the keys are not in order");
    }
    if (kv->create_rev > kv->mod_rev) {
        return bad(err, "the key was changed before it was made");
    }
    at_free(r->last_key);
    r->last_key = at_strdup(kv->key);
    return AT_OK;
}

static enum at_rc take_key(struct at_dump_reader *r, const json_t *line, struct at_err *err)
{
    struct at_store_kv kv = {0};
    int64_t newest = r->summary.head.rev;
    r->stage = STAGE_KEYS;
    enum at_rc rc = take_bytes(line, "key", &r->name, err);
    if (rc == AT_OK) {
        rc = take_int(line, "createRevision", 1, newest, &kv.create_rev, err);
    }
    if (rc == AT_OK) {
        rc = take_int(line, "revision", 1, newest, &kv.mod_rev, err);
    }
    if (rc == AT_OK) {
        rc = take_bytes(line, "value", &r->bytes, err);
    }
    bool ends = json_object_get(line, "ttlSeconds") != NULL;
    int64_t ttl_s = 0;
    if (rc == AT_OK && ends) {
        rc = take_int(line, "ttlSeconds", 1, AT_STORE_TTL_S_MAX, &ttl_s, err);
    }
    kv.ttl_s = (uint32_t)ttl_s;
    if (rc == AT_OK && json_object_size(line) != (ends ? 5 : 4)) {
        rc = bad(err, "a field is not known");
    }
    if (rc != AT_OK) {
        return rc;
    }
    kv.key = r->name.data;
    kv.value = r->bytes.data;
    kv.value_len = r->bytes.len;
    rc = key_check(r, &kv, err);
    if (rc == AT_OK && r->events.key != NULL) {
        rc = r->events.key(r->events.ctx, &kv, err);
    }
    r->summary.keys++;
    return rc;
}

static enum at_rc take_end(struct at_dump_reader *r, const json_t *line, struct at_err *err)
{
    struct at_dump_summary *s = &r->summary;
    int64_t n = 0;
    const char *digest = json_string_value(json_object_get(line, "sha256"));
    at_sha256_stream_hex(r->hash, s->sha256);
    r->stage = STAGE_END;
    if (!json_is_true(json_object_get(line, "end")) || json_object_size(line) != 4) {
        return bad(err, "the last line is not as it was written");
    }
    if (take_int(line, "files", (int64_t)s->files, (int64_t)s->files, &n, err) != AT_OK ||
        take_int(line, "keys", (int64_t)s->keys, (int64_t)s->keys, &n, err) != AT_OK) {
        return at_err_set(err, AT_INVALID,
                          "%zu files and %zu keys were read, but it tells of others", s->files,
                          s->keys);
    }
    return at_streq(digest, s->sha256)
               ? AT_OK
               : bad(err, "the digest is another: something above was changed");
}

static enum at_rc take_line(struct at_dump_reader *r, const char *text, size_t len,
                            struct at_err *err)
{
    json_t *line = NULL;
    if (r->stage == STAGE_END) {
        return bad(err, "there is something after the end");
    }
    enum at_rc rc = at_json_parse(text, len, &line, err);
    if (rc != AT_OK || !json_is_object(line)) {
        json_decref(line);
        return bad(err, r->stage == STAGE_HEAD ? "this is no backup and no export of a store"
                                               : "the line is damaged");
    }
    if (r->stage == STAGE_HEAD) {
        rc = take_head(r, line, err);
    } else if (json_object_get(line, "end") != NULL) {
        rc = take_end(r, line, err);
    } else if (json_object_get(line, "file") != NULL) {
        rc = take_file(r, line, err);
    } else {
        rc = take_key(r, line, err);
    }
    json_decref(line);
    if (rc == AT_OK && r->stage != STAGE_END) {
        at_sha256_stream_update(r->hash, text, len);
        at_sha256_stream_update(r->hash, "\n", 1);
    }
    return rc;
}

enum at_rc at_dump_reader_feed(struct at_dump_reader *r, const void *data, size_t len,
                               struct at_err *err)
{
    const char *rest = data;
    while (len != 0) {
        const char *newline = memchr(rest, '\n', len);
        size_t part = newline != NULL ? (size_t)(newline - rest) : len;
        enum at_rc rc = at_buf_append(&r->text, rest, part);
        if (rc != AT_OK) {
            rc = bad(err, "the line is too long");
        } else if (newline != NULL) {
            rc = take_line(r, r->text.data, r->text.len, err);
        }
        if (rc != AT_OK) {
            return at_err_wrap(err, rc, "line %zu", r->line);
        }
        if (newline == NULL) {
            return AT_OK;
        }
        at_buf_clear(&r->text);
        r->line++;
        rest += part + 1;
        len -= part + 1;
    }
    return AT_OK;
}

enum at_rc at_dump_reader_end(struct at_dump_reader *r, struct at_dump_summary *ret,
                              struct at_err *err)
{
    if (r->stage == STAGE_HEAD && r->text.len == 0) {
        return bad(err, "the file is empty");
    }
    if (r->stage != STAGE_END || r->text.len != 0) {
        return at_err_set(err, AT_INVALID, "line %zu: the file is cut off here", r->line);
    }
    *ret = r->summary;
    return AT_OK;
}
