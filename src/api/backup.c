/* GET /admin/v1/backup: everything at one revision, and the certificate authority, as one dump. It
 * is made piece by piece while the client reads, of values that are held and cannot change, so that
 * other requests go on and writes need not wait. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "store/dump.h"
#include "sys/file.h"

#define PIECE_BYTES ((size_t)128 << 10)

struct api_backup {
    struct api_req *req; /* ex is NULL once the client is gone */
    struct at_store_snapshot *all;
    struct at_dump_writer *writer;
    struct at_buf piece;
    size_t next;
    at_timer_id timer;
    bool waiting; /* for the client to read: the timer is its patience */
    bool busy;    /* within a call that may tell that the client is gone */
};

static void parts_free(struct api_backup *b)
{
    at_store_snapshot_free(b->all);
    at_dump_writer_free(b->writer);
    at_buf_done(&b->piece);
    at_free(b);
}

static void backup_free(struct api_backup *b)
{
    struct api_req *req = b->req;
    at_loop_timer_cancel(req->api->options.loop, b->timer);
    req->api->backup = NULL;
    parts_free(b);
    api_req_free(req);
}

/* What was sent must not look complete. */
static void backup_cut(struct api_backup *b)
{
    struct at_http_exchange *ex = b->req->ex;
    b->req->ex = NULL;
    backup_free(b);
    if (ex != NULL) {
        at_http_abort(ex);
    }
}

static void client_gone(void *ctx)
{
    struct api_backup *b = ctx;
    b->req->ex = NULL;
    if (!b->busy) {
        backup_free(b);
    }
}

static void backup_end(struct api_backup *b)
{
    struct at_http_exchange *ex = b->req->ex;
    b->req->ex = NULL;
    backup_free(b);
    at_http_on_gone(ex, NULL, NULL);
    at_http_on_writable(ex, NULL, NULL);
    at_http_stream_end(ex);
}

static enum at_rc files_write(struct api_backup *b, struct at_err *err)
{
    const struct at_api_backup_file *file = b->req->api->options.backup_files;
    for (; file != NULL && file->name != NULL; file++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        enum at_rc rc = at_file_read(file->path, AT_DUMP_FILE_BYTES_MAX, &text, err);
        if (rc == AT_OK) {
            rc = at_dump_write_file(b->writer, file->name, text.data, text.len);
        }
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

/* One piece. *ret_end: it was the last. */
static enum at_rc piece_make(struct api_backup *b, bool *ret_end)
{
    enum at_rc rc = AT_OK;
    size_t n = at_store_snapshot_count(b->all);
    while (rc == AT_OK && b->next < n && b->piece.len < PIECE_BYTES) {
        struct at_store_kv kv = at_store_snapshot_at(b->all, b->next++);
        rc = at_dump_write_key(b->writer, &kv);
    }
    *ret_end = b->next == n;
    return rc == AT_OK && *ret_end ? at_dump_write_end(b->writer) : rc;
}

static void stalled(void *ctx)
{
    struct api_backup *b = ctx;
    b->timer = 0;
    backup_cut(b);
}

static void pump(void *ctx)
{
    struct api_backup *b = ctx;
    struct at_loop *loop = b->req->api->options.loop;
    bool end = false;
    at_loop_timer_cancel(loop, b->timer);
    b->timer = 0;
    b->waiting = false;
    enum at_rc rc = piece_make(b, &end);
    b->busy = true;
    if (rc == AT_OK) {
        rc = at_http_stream_write(b->req->ex, b->piece.data, b->piece.len);
        at_buf_clear(&b->piece);
    }
    b->busy = false;
    if (b->req->ex == NULL || rc != AT_OK) {
        backup_cut(b);
    } else if (end) {
        backup_end(b);
    } else if (at_http_stream_queued_bytes(b->req->ex) == 0) {
        b->timer = at_loop_timer(loop, 0, pump, b); /* others first */
    } else {
        b->waiting = true;
        b->timer = at_loop_timer(loop, AT_API_BACKUP_STALL_NS, stalled, b);
    }
}

static void on_writable(void *ctx)
{
    struct api_backup *b = ctx;
    if (b->waiting && !b->busy) {
        pump(b);
    }
}

static void begin(struct api_backup *b)
{
    struct api_req *req = b->req;
    req->api->backup = b;
    (void)api_req_audit(req, 200);
    api_req_measure(req, 200);
    at_http_on_gone(req->ex, client_gone, b);
    at_http_on_writable(req->ex, on_writable, b);
    at_http_stream_begin(req->ex, 200, "application/x-ndjson", NULL);
    b->timer = at_loop_timer(req->api->options.loop, 0, pump, b);
}

void api_backup(struct api_req *req)
{
    struct at_api *api = req->api;
    struct at_err err = {0};
    if (api->backup != NULL) {
        api_respond_error(req, AT_EXHAUSTED, "a backup is being made already, try again later");
        return;
    }
    struct api_backup *b = AT_NEW(struct api_backup);
    b->req = req;
    b->all = at_store_snapshot_new(api->options.store);
    enum at_rc rc =
        at_dump_writer_new(at_store_snapshot_rev(b->all), at_store_compact_rev(api->options.store),
                           &b->piece, &b->writer);
    if (rc == AT_OK) {
        at_dump_writer_seal(b->writer, api->options.seal);
        rc = files_write(b, &err);
    }
    if (rc == AT_OK) {
        begin(b);
        return;
    }
    parts_free(b);
    api_respond_error(req, AT_IO, "%s", err.msg);
}

void api_backup_cut(struct at_api *api)
{
    if (api->backup != NULL) {
        backup_cut(api->backup);
    }
}
