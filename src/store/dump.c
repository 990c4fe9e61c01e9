#include "store/dump.h"

#include "core/digest.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <string.h>

struct at_dump_writer {
    struct at_buf *out;
    struct at_sha256_stream *hash;
    size_t files, keys;
    const struct at_store_seal *seal; /* NULL: none */
};

/* "name":"text", or "nameBase64":"...". */
static enum at_rc put_bytes(struct at_buf *out, const char *name, const void *data, size_t len)
{
    struct at_str bytes = {data, len};
    bool text = at_str_utf8_prefix(bytes) == len && (len == 0 || memchr(data, 0, len) == NULL);
    enum at_rc rc = at_buf_printf(out, "\"%s%s\":", name, text ? "" : "Base64");
    if (rc != AT_OK) {
        return rc;
    }
    if (text) {
        return at_json_dump_text(data, len, out);
    }
    rc = at_buf_append_str(out, "\"");
    if (rc == AT_OK) {
        rc = at_base64_encode(data, len, out);
    }
    return rc == AT_OK ? at_buf_append_str(out, "\"") : rc;
}

/* The line that begins at start is complete, or taken back. */
static enum at_rc line_end(struct at_dump_writer *w, size_t start, enum at_rc rc)
{
    if (rc == AT_OK) {
        rc = at_buf_append_str(w->out, "\n");
    }
    if (rc != AT_OK) {
        w->out->len = start;
        return rc;
    }
    at_sha256_stream_update(w->hash, w->out->data + start, w->out->len - start);
    return AT_OK;
}

enum at_rc at_dump_writer_new(int64_t rev, int64_t compact_rev, struct at_buf *out,
                              struct at_dump_writer **ret)
{
    struct at_dump_writer *w = AT_NEW(struct at_dump_writer);
    size_t start = out->len;
    w->out = out;
    w->hash = at_sha256_stream_new();
    enum at_rc rc = line_end(
        w, start,
        at_buf_printf(out, "{\"atollStore\":%d,\"revision\":%lld,\"compactRevision\":%lld}",
                      AT_DUMP_VERSION, (long long)rev, (long long)compact_rev));
    if (rc != AT_OK) {
        at_dump_writer_free(w);
        return rc;
    }
    *ret = w;
    return AT_OK;
}

enum at_rc at_dump_write_file(struct at_dump_writer *w, const char *name, const void *data,
                              size_t len)
{
    assert(w->keys == 0);
    size_t start = w->out->len;
    if (len > AT_DUMP_FILE_BYTES_MAX || w->files == AT_DUMP_FILES_MAX) {
        return AT_TOO_LARGE;
    }
    enum at_rc rc = at_buf_append_str(w->out, "{");
    if (rc == AT_OK) {
        rc = put_bytes(w->out, "file", name, strlen(name));
    }
    if (rc == AT_OK) {
        rc = at_buf_append_str(w->out, ",");
    }
    if (rc == AT_OK) {
        rc = put_bytes(w->out, "text", data, len);
    }
    if (rc == AT_OK) {
        rc = at_buf_append_str(w->out, "}");
    }
    rc = line_end(w, start, rc);
    w->files += rc == AT_OK;
    return rc;
}

void at_dump_writer_seal(struct at_dump_writer *w, const struct at_store_seal *seal)
{
    w->seal = seal;
}

enum at_rc at_dump_write_key(struct at_dump_writer *w, const struct at_store_kv *kv)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf sealed = {0};
    struct at_str value = {kv->value, kv->value_len};
    size_t start = w->out->len;
    enum at_rc rc = at_store_seal_value(w->seal, kv->key, value, &sealed, &value, NULL);
    if (rc == AT_OK) {
        rc = at_buf_append_str(w->out, "{");
    }
    if (rc == AT_OK) {
        rc = put_bytes(w->out, "key", kv->key, strlen(kv->key));
    }
    if (rc == AT_OK) {
        rc = at_buf_printf(w->out, ",\"createRevision\":%lld,\"revision\":%lld,",
                           (long long)kv->create_rev, (long long)kv->mod_rev);
    }
    if (rc == AT_OK && kv->ttl_s != 0) {
        rc = at_buf_printf(w->out, "\"ttlSeconds\":%u,", kv->ttl_s);
    }
    if (rc == AT_OK) {
        rc = put_bytes(w->out, "value", value.ptr, value.len);
    }
    if (rc == AT_OK) {
        rc = at_buf_append_str(w->out, "}");
    }
    rc = line_end(w, start, rc);
    w->keys += rc == AT_OK;
    return rc;
}

enum at_rc at_dump_write_end(struct at_dump_writer *w)
{
    char hex[AT_SHA256_HEX_BYTES];
    assert(w->hash != NULL);
    at_sha256_stream_hex(w->hash, hex);
    at_sha256_stream_free(w->hash);
    w->hash = NULL;
    return at_buf_printf(w->out, "{\"end\":true,\"files\":%zu,\"keys\":%zu,\"sha256\":\"%s\"}\n",
                         w->files, w->keys, hex);
}

void at_dump_writer_free(struct at_dump_writer *w)
{
    if (w != NULL) {
        at_sha256_stream_free(w->hash);
        at_free(w);
    }
}
