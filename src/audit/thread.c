/* The writer: takes what waits, numbers and chains it, writes it in one go, turns files over,
 * seals. On failure the lines stay in w->out and are tried again; the file is cut back to whole
 * lines. */
#include "audit/audit_priv.h"
#include "core/mem.h"
#include "core/units.h"
#include "sys/fd.h"
#include "sys/file.h"
#include "sys/wake.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static enum at_rc line_append(struct at_audit_writer *w, const char *members, size_t len)
{
    char hex[AT_SHA256_HEX_BYTES];
    size_t start = w->out.len;
    enum at_rc rc = at_buf_printf(&w->out, "{\"seq\":%llu,", (unsigned long long)(w->seq + 1));
    if (rc == AT_OK) {
        rc = at_buf_append(&w->out, members, len);
    }
    if (rc == AT_OK) {
        unsigned char hash[AT_SHA256_BYTES];
        memcpy(hash, w->hash, sizeof hash);
        at_audit_hasher_step(w->hasher, hash, w->out.data + start, w->out.len - start);
        at_hex_encode(hash, sizeof hash, hex);
        rc = at_buf_printf(&w->out, ",\"hash\":\"%s\"}\n", hex);
        if (rc == AT_OK) {
            w->seq++;
            w->since_seal++;
            memcpy(w->hash, hash, sizeof hash);
        }
    }
    if (rc != AT_OK) {
        w->out.len = start;
    }
    return rc;
}

static enum at_rc event_append(struct at_audit_writer *w, int64_t wall_ns, const char *event,
                               const char *members)
{
    char when[AT_UNITS_TEXT_BYTES_MAX];
    AT_CLEANUP(at_cleanup_free)
    char *text =
        at_asprintf("\"time\":\"%s\",\"event\":\"%s\"%s%s", at_time_format_micro(wall_ns, when),
                    event, members[0] != '\0' ? "," : "", members);
    return line_append(w, text, strlen(text));
}

static enum at_rc seal_append(struct at_audit_writer *w, int64_t wall_ns, const char *why,
                              struct at_err *err)
{
    struct at_audit_seal seal = {.seq = w->seq};
    char prev[AT_SHA256_HEX_BYTES];
    memcpy(seal.chain, w->chain, sizeof seal.chain);
    memcpy(seal.hash, w->hash, sizeof seal.hash);
    enum at_rc rc = at_audit_seal_sign(w->key, &seal, err);
    if (rc != AT_OK) {
        return rc;
    }
    at_hex_encode(seal.hash, sizeof seal.hash, prev);
    AT_CLEANUP(at_cleanup_free)
    char *members =
        at_asprintf("\"why\":\"%s\",\"chain\":\"%s\",\"prev\":\"%s\",\"signature\":\"%s\"", why,
                    w->chain, prev, seal.signature_hex);
    rc = event_append(w, wall_ns, "seal", members);
    w->since_seal = 0;
    return rc == AT_OK ? rc : at_err_set(err, rc, "the audit log's buffer is full");
}

static enum at_rc out_write(struct at_audit_writer *w, struct at_err *err)
{
    enum at_rc rc = AT_OK;
    if (w->fd < 0) {
        rc = at_file_open_append(w->path, 0600, &w->fd, err);
    }
    size_t done = 0;
    while (rc == AT_OK && done < w->out.len) {
        size_t n = 0;
        rc = at_fd_write(w->fd, w->out.data + done, w->out.len - done, &n);
        done += rc == AT_OK ? n : 0;
    }
    if (rc == AT_OK) {
        w->unsynced = w->unsynced || w->out.len > 0;
        w->unsynced_bytes += w->out.len;
        at_audit_rides_written(w->a, w->out.data, w->out.len, w->file_bytes);
        w->file_bytes += (int64_t)w->out.len;
        at_buf_clear(&w->out);
        return AT_OK;
    }
    if (done > 0 && at_file_truncate(w->path, w->file_bytes, NULL) != AT_OK) {
        /* The rest is appended after a half line at the next try: damage, but none that hides. */
        at_buf_consume(&w->out, done);
        w->file_bytes += (int64_t)done;
    }
    at_file_close(w->fd);
    w->fd = -1;
    return err != NULL && err->rc != AT_OK
               ? rc
               : at_err_set(err, rc, "cannot write %s: the disk is full or fails", w->path);
}

/* What audit.head is to promise once all that is written is on the disk. */
static enum at_rc head_make(struct at_audit_writer *w, struct at_audit_seal *ret,
                            struct at_err *err)
{
    *ret = (struct at_audit_seal){.seq = w->seq};
    memcpy(ret->chain, w->chain, sizeof ret->chain);
    memcpy(ret->hash, w->hash, sizeof ret->hash);
    return at_audit_seal_sign(w->key, ret, err);
}

/* Delete old files until what is left, with a new one that is full, keeps the limit. Those that a
 * sink has not got stay, unless the newest records are worth more. */
static enum at_rc prune(struct at_audit_writer *w, uint64_t keep_seq, int64_t wall_ns,
                        struct at_err *err)
{
    struct at_audit_files files = {0};
    enum at_rc rc = at_audit_files_list(w->dir, &files, err);
    int64_t total = 0;
    uint64_t through = 0;
    for (size_t i = 0; rc == AT_OK && i < files.n; i++) {
        total += files.items[i].bytes;
    }
    for (size_t i = 0; rc == AT_OK && i + 1 < files.n; i++) {
        uint64_t last = files.items[i + 1].first_seq - 1;
        if (total + w->file_bytes_max <= w->bytes_max || (last >= keep_seq && !w->drop_oldest)) {
            break;
        }
        rc = at_file_remove(files.items[i].path, err);
        total -= rc == AT_OK ? files.items[i].bytes : 0;
        through = rc == AT_OK ? last : through;
    }
    at_audit_files_done(&files);
    w->older_bytes = total - w->file_bytes;
    if (through != 0) {
        char text[64];
        snprintf(text, sizeof text, "\"through\":%llu", (unsigned long long)through);
        enum at_rc noted = event_append(w, wall_ns, "pruned", text);
        rc = rc == AT_OK ? noted : rc;
    }
    return rc;
}

static enum at_rc turn_over(struct at_audit_writer *w, int64_t wall_ns, struct at_err *err)
{
    enum at_rc rc = seal_append(w, wall_ns, "end of file", err);
    rc = rc == AT_OK ? out_write(w, err) : rc;
    AT_CLEANUP(at_cleanup_free)
    char *to = at_asprintf("%s.%020llu", w->path, (unsigned long long)w->file_first_seq);
    rc = rc == AT_OK ? at_file_replace(w->path, to, err) : rc; /* it and its name are durable */
    if (rc != AT_OK) {
        return rc;
    }
    pthread_mutex_lock(&w->a->lock);
    at_audit_rides_synced(w->a, w->seq);
    pthread_mutex_unlock(&w->a->lock);
    at_file_close(w->fd);
    w->fd = -1;
    w->older_bytes += w->file_bytes;
    w->file_bytes = 0;
    w->file_first_seq = w->seq + 1;
    return seal_append(w, wall_ns, "new file", err);
}

static enum at_rc batch_lines(struct at_audit_writer *w, const struct at_audit_batch *b,
                              struct at_err *err)
{
    enum at_rc rc = AT_OK;
    if (w->lost > 0) {
        char text[64];
        snprintf(text, sizeof text, "\"records\":%llu", (unsigned long long)w->lost);
        rc = event_append(w, b->wall_ns, "lost", text);
        w->lost = rc == AT_OK ? 0 : w->lost;
    }
    const char *at = b->records.data;
    const char *end = at + b->records.len;
    while (rc == AT_OK && at < end) {
        size_t len = 0;
        memcpy(&len, at, sizeof len);
        rc = line_append(w, at + sizeof len, len);
        at += sizeof len + len;
    }
    for (; at < end && rc != AT_OK; w->lost++) { /* no memory for more of what cannot be written */
        size_t len = 0;
        memcpy(&len, at, sizeof len);
        at += sizeof len + len;
    }
    if (rc == AT_OK && w->since_seal > AT_AUDIT_SEAL_RECORDS) {
        rc = seal_append(w, b->wall_ns, "many records", err);
    }
    return rc;
}

static enum at_rc batch_sync(struct at_audit_writer *w, const struct at_audit_batch *b, bool sealed,
                             struct at_err *err)
{
    struct at_audit_seal head;
    bool many = w->a->journaled && w->unsynced_bytes > AT_AUDIT_UNSYNCED_BYTES_MAX;
    if (!b->sync && !many && !(b->seal && w->unsynced)) {
        return AT_OK;
    }
    enum at_rc rc = sealed ? head_make(w, &head, err) : AT_OK;
    return rc == AT_OK ? at_audit_sync_ask(w->a, b->last_ticket, sealed ? &head : NULL, err) : rc;
}

/* What was taken is written, as far as the disk lets it. */
static enum at_rc batch_write(struct at_audit_writer *w, const struct at_audit_batch *b,
                              uint64_t keep_seq, struct at_err *err)
{
    bool seal = b->seal && w->since_seal > 0;
    enum at_rc rc = batch_lines(w, b, err);
    if (rc == AT_OK && seal) {
        rc = seal_append(w, b->wall_ns, b->seal_why, err);
    }
    rc = rc == AT_OK ? out_write(w, err) : rc;
    rc = rc == AT_OK ? batch_sync(w, b, seal, err) : rc;
    if (rc == AT_OK && w->file_bytes >= w->file_bytes_max) {
        rc = turn_over(w, b->wall_ns, err);
        rc = rc == AT_OK ? prune(w, keep_seq, b->wall_ns, err) : rc;
        rc = rc == AT_OK ? out_write(w, err) : rc;
    } else if (rc == AT_OK && w->file_bytes + w->older_bytes >= w->bytes_max) {
        rc = prune(w, keep_seq, b->wall_ns, err);
        rc = rc == AT_OK ? out_write(w, err) : rc;
    }
    if (rc == AT_OK && w->file_bytes + w->older_bytes >= w->bytes_max && !w->drop_oldest) {
        rc = at_err_set(err, AT_EXHAUSTED,
                        "the audit log holds all it may (%lld bytes) and its sinks have not got "
                        "what is oldest",
                        (long long)w->bytes_max);
    }
    return rc;
}

static bool batch_take(struct at_audit *a, struct at_audit_batch *ret, uint64_t *ret_keep)
{
    pthread_mutex_lock(&a->lock);
    while (a->pending.n == 0 && !a->pending.seal && !a->pending.sync && !a->stop) {
        pthread_cond_wait(&a->changed, &a->lock);
    }
    bool more = !a->stop || a->pending.n > 0 || a->pending.seal || a->pending.sync;
    struct at_buf spare = ret->records;
    at_buf_clear(&spare);
    *ret = a->pending;
    a->pending = (struct at_audit_batch){.records = spare};
    a->pending.last_ticket = ret->last_ticket;
    a->pending.wall_ns = ret->wall_ns;
    a->w.lost += a->lost;
    a->lost = 0;
    *ret_keep = a->keep_seq;
    pthread_mutex_unlock(&a->lock);
    return more;
}

static void batch_tell(struct at_audit *a, const struct at_audit_batch *b, enum at_rc rc,
                       const struct at_err *err)
{
    pthread_mutex_lock(&a->lock);
    bool ring = (b->waited && a->no_sync) || rc != a->rc || rc != AT_OK || b->n == 0;
    a->rc = rc;
    a->bytes = a->w.file_bytes + a->w.older_bytes;
    if (rc == AT_OK || rc == AT_EXHAUSTED) { /* written, whatever comes next */
        a->written_ticket = b->last_ticket;
    }
    a->tried_ticket = b->last_ticket;
    pthread_cond_broadcast(&a->tried);
    if (a->no_sync) {
        a->done_ticket = a->written_ticket;
        a->done_seq = a->w.seq;
    }
    if (rc != AT_OK) {
        a->err = *err;
    }
    pthread_mutex_unlock(&a->lock);
    if (ring) {
        at_wake_ring(a->wake_fd);
    }
}

void *at_audit_thread(void *audit)
{
    struct at_audit *a = audit;
    struct at_audit_batch batch = {0};
    uint64_t keep_seq = 0;
    while (batch_take(a, &batch, &keep_seq)) {
        struct at_err err = {0};
        enum at_rc rc = batch_write(&a->w, &batch, keep_seq, &err);
        batch_tell(a, &batch, rc, &err);
    }
    at_buf_done(&batch.records);
    return NULL;
}

/* What an opened log says first, when its end is not what the newest seal promises. */
static enum at_rc broken_append(struct at_audit_writer *w, const struct at_audit_tail *tail,
                                const struct at_audit_seal *head, int64_t wall_ns)
{
    char expected[AT_SHA256_HEX_BYTES];
    char found[AT_SHA256_HEX_BYTES];
    char text[320];
    at_hex_encode(head->hash, sizeof head->hash, expected);
    at_hex_encode(tail->hash, sizeof tail->hash, found);
    snprintf(text, sizeof text,
             "\"expectedSeq\":%llu,\"expectedHash\":\"%s\",\"foundSeq\":%llu,\"foundHash\":\"%s\"",
             (unsigned long long)head->seq, expected, (unsigned long long)tail->seq, found);
    w->seq = head->seq > tail->seq ? head->seq : tail->seq;
    return event_append(w, wall_ns, "broken", text);
}

/* Lines of the start that say what was mended. */
static enum at_rc mended_append(struct at_audit_writer *w, const struct at_audit_tail *tail,
                                const struct at_audit_healed *healed, int64_t wall_ns)
{
    char text[96];
    enum at_rc rc = AT_OK;
    if (healed->records > 0) {
        snprintf(text, sizeof text, "\"records\":%llu,\"from\":%llu",
                 (unsigned long long)healed->records, (unsigned long long)healed->first_seq);
        rc = event_append(w, wall_ns, "recovered", text);
    }
    if (rc == AT_OK && tail->cut_bytes > 0) {
        snprintf(text, sizeof text, "\"halfLineBytes\":%lld", (long long)tail->cut_bytes);
        rc = event_append(w, wall_ns, "recovered", text);
    }
    return rc;
}

static enum at_rc begin_sync(struct at_audit_writer *w, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/audit.head", w->dir);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    struct at_audit_seal head;
    enum at_rc rc = at_fd_sync(w->fd, err);
    rc = rc == AT_OK ? head_make(w, &head, err) : rc;
    rc = rc == AT_OK ? at_audit_head_write(&head, &text) : rc;
    w->unsynced = false;
    w->unsynced_bytes = 0;
    return rc == AT_OK ? at_file_write_atomic(path, text.data, text.len, 0600, err) : rc;
}

enum at_rc at_audit_writer_begin(struct at_audit *a, const struct at_audit_tail *tail,
                                 const struct at_audit_healed *healed, int64_t wall_ns,
                                 struct at_err *err)
{
    struct at_audit_writer *w = &a->w;
    AT_CLEANUP(at_cleanup_free) char *head_path = at_asprintf("%s/audit.head", w->dir);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    struct at_audit_seal head = {0};
    bool sealed = at_file_read(head_path, 4096, &text, NULL) == AT_OK &&
                  at_audit_head_parse(text.data, text.len, &head, NULL) == AT_OK &&
                  at_audit_seal_check(w->key, &head);
    enum at_rc rc = AT_OK;
    w->seq = tail->seq;
    memcpy(w->hash, tail->hash, sizeof w->hash);
    w->file_first_seq = tail->file_first_seq;
    if (sealed) {
        memcpy(w->chain, head.chain, sizeof w->chain);
    }
    if (sealed && healed->last_seq > head.seq) { /* the journal promises more */
        head.seq = healed->last_seq;
        memcpy(head.hash, healed->last_hash, sizeof head.hash);
    }
    bool cut_off =
        sealed && (tail->seq < head.seq ||
                   (tail->seq == head.seq && memcmp(tail->hash, head.hash, sizeof head.hash) != 0));
    bool head_gone = !sealed && tail->seq > 1; /* 1: ended before it could be written */
    if (tail->damaged || cut_off || head_gone) {
        rc = broken_append(w, tail, &head, wall_ns);
    }
    if (w->file_first_seq == 0) {
        w->file_first_seq = w->seq + (w->out.len > 0 ? 0 : 1);
    }
    rc = rc == AT_OK ? mended_append(w, tail, healed, wall_ns) : rc;
    rc = rc == AT_OK ? seal_append(w, wall_ns, "start", err) : rc;
    rc = rc == AT_OK ? out_write(w, err) : rc;
    return rc == AT_OK ? begin_sync(w, err) : rc;
}
