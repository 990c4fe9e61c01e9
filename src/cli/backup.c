#include "cli/cli_priv.h"
#include "core/digest.h"
#include "core/str.h"
#include "sys/file.h"

#include <string.h>

#define LINE_BYTES_MAX ((size_t)16 << 20)

/* The last line tells the digest of all that is before it. */
struct backup {
    struct at_file_writer *file;
    struct at_sha256_stream *hash;
    struct at_buf last; /* the newest line; it is hashed once another one begins */
    size_t bytes;
    bool done;
    enum at_rc rc;
    struct at_err *err;
};

static enum at_rc take(struct backup *b, const char *data, size_t len)
{
    enum at_rc rc = at_file_writer_write(b->file, data, len, b->err);
    while (rc == AT_OK && len != 0) {
        if (b->last.len != 0 && b->last.data[b->last.len - 1] == '\n') {
            at_sha256_stream_update(b->hash, b->last.data, b->last.len);
            at_buf_clear(&b->last);
        }
        const char *newline = memchr(data, '\n', len);
        size_t part = newline != NULL ? (size_t)(newline - data) + 1 : len;
        rc = at_buf_append(&b->last, data, part);
        data += part;
        len -= part;
        b->bytes += part;
    }
    return rc;
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct backup *b = ctx;
    if (b->rc == AT_OK) {
        b->rc = take(b, data, len);
    }
}

static void on_done(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    struct backup *b = ctx;
    (void)status;
    (void)body;
    b->done = true;
    if (rc != AT_OK && b->rc == AT_OK) {
        b->rc = rc;
        *b->err = *err;
    }
}

static enum at_rc verify(struct backup *b, struct at_err *err)
{
    char hex[AT_SHA256_HEX_BYTES];
    AT_CLEANUP(at_cleanup_json) json_t *last = NULL;
    enum at_rc rc = at_json_parse(b->last.data, b->last.len, &last, NULL);
    at_sha256_stream_hex(b->hash, hex);
    if (rc != AT_OK || !at_json_bool_at(last, "end", false) ||
        !at_streq(at_json_str_at(last, "sha256", NULL), hex)) {
        return at_err_set(err, AT_UPSTREAM, "the backup arrived damaged; nothing was written");
    }
    return AT_OK;
}

enum at_rc cli_backup(struct cli *cli, struct at_err *err)
{
    struct backup b = {.err = err, .hash = at_sha256_stream_new()};
    at_buf_init(&b.last, LINE_BYTES_MAX);
    enum at_rc rc = cli_connect(cli, err);
    if (rc == AT_OK) {
        rc = at_file_writer_new(cli->args[0], 0600, &b.file, err);
    }
    if (rc == AT_OK) {
        at_client_call_id call =
            at_client_stream(cli->client, "/admin/v1/backup", on_body, on_done, &b);
        while (!b.done && b.rc == AT_OK && at_loop_turn(cli->loop, INT64_MAX)) {
        }
        if (!b.done) {
            at_client_cancel(cli->client, call);
        }
        rc = b.rc;
    }
    if (rc == AT_OK) {
        rc = verify(&b, err);
    }
    if (rc == AT_OK) {
        rc = at_file_writer_commit(b.file, err);
    }
    if (rc == AT_OK) {
        fprintf(cli->env->err, "backed up %zu bytes\n", b.bytes);
    }
    at_file_writer_free(b.file);
    at_sha256_stream_free(b.hash);
    at_buf_done(&b.last);
    return rc;
}
