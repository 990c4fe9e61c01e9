/* What the store's journal kept, put back at the end of audit.log where a power cut took it. Each
 * batch says where it lies in which file; it is put there only when it goes on with the chain. */
#include "audit/audit_priv.h"
#include "audit/journal.h"
#include "core/mem.h"
#include "core/str.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct batch {
    uint64_t synced_seq, file_first_seq, last_seq;
    int64_t offset;
    unsigned char last_hash[AT_SHA256_BYTES];
    char *text;
    size_t len;
};

struct at_audit_redo {
    struct batch *items;
    size_t n;
};

struct at_audit_redo *at_audit_redo_new(void)
{
    return AT_NEW(struct at_audit_redo);
}

void at_audit_redo_free(struct at_audit_redo *redo)
{
    if (redo != NULL) {
        for (size_t i = 0; i < redo->n; i++) {
            at_free(redo->items[i].text);
        }
        at_free(redo->items);
        at_free(redo);
    }
}

static bool head_read(struct at_str head, struct batch *b)
{
    uint64_t offset = 0;
    bool ok = at_str_eq(at_str_cut(&head, ' '), "J1") &&
              at_str_to_u64(at_str_cut(&head, ' '), &b->synced_seq) == AT_OK &&
              at_str_to_u64(at_str_cut(&head, ' '), &b->file_first_seq) == AT_OK &&
              at_str_to_u64(head, &offset) == AT_OK && offset <= INT64_MAX;
    b->offset = (int64_t)offset;
    return ok;
}

void at_audit_redo_add(void *ctx, const char *bytes, size_t len)
{
    struct at_audit_redo *redo = ctx;
    struct at_str rest = {bytes, len};
    struct batch b = {0};
    struct at_audit_line line;
    if (!head_read(at_str_cut(&rest, '\n'), &b) || rest.len == 0 ||
        rest.ptr[rest.len - 1] != '\n') {
        return;
    }
    size_t start = rest.len - 1;
    while (start > 0 && rest.ptr[start - 1] != '\n') {
        start--;
    }
    if (at_audit_line_parse(rest.ptr + start, rest.len - 1 - start, &line, NULL) != AT_OK) {
        return;
    }
    b.last_seq = line.seq;
    memcpy(b.last_hash, line.hash, sizeof b.last_hash);
    b.text = at_strndup(rest.ptr, rest.len);
    b.len = rest.len;
    redo->items = at_realloc(redo->items, (redo->n + 1) * sizeof *redo->items);
    redo->items[redo->n++] = b;
}

/* The batches that no sync made needless, as one text. False: there are none, or they do not go on
 * with each other. */
static bool needed(const struct at_audit_redo *redo, struct batch *ret, struct at_buf *text)
{
    uint64_t synced = 0;
    for (size_t i = 0; i < redo->n; i++) {
        synced = redo->items[i].synced_seq > synced ? redo->items[i].synced_seq : synced;
    }
    bool any = false;
    for (size_t i = 0; i < redo->n; i++) {
        const struct batch *b = &redo->items[i];
        if (b->last_seq <= synced) {
            continue;
        }
        if (any && (b->file_first_seq != ret->file_first_seq ||
                    b->offset != ret->offset + (int64_t)text->len)) {
            return false;
        }
        if (!any) {
            *ret = *b;
        }
        any = true;
        ret->last_seq = b->last_seq;
        memcpy(ret->last_hash, b->last_hash, sizeof ret->last_hash);
        if (at_buf_append(text, b->text, b->len) != AT_OK) {
            return false;
        }
    }
    return any;
}

/* The hash and number of the last record before offset. */
static bool before_read(const char *path, int64_t offset, struct at_audit_line *ret)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    int64_t from = offset > (int64_t)2 * (int64_t)AT_AUDIT_RECORD_BYTES_MAX
                       ? offset - (int64_t)2 * (int64_t)AT_AUDIT_RECORD_BYTES_MAX
                       : 0;
    size_t len = (size_t)(offset - from);
    size_t got = 0;
    if (at_file_read_at(path, from, len, &text, &got, NULL) != AT_OK || got != len ||
        text.data[len - 1] != '\n') {
        return false;
    }
    size_t start = len - 1;
    while (start > 0 && text.data[start - 1] != '\n') {
        start--;
    }
    return at_audit_line_parse(text.data + start, len - 1 - start, ret, NULL) == AT_OK;
}

/* Does text go on with the record before it, line by line? With none before, its own first one has
 * to be trusted to be: the newest seal is checked later. */
static bool chains(const struct at_audit_line *before, struct at_str text, uint64_t *ret_first_seq)
{
    struct at_audit_hasher *h = at_audit_hasher_new();
    struct at_audit_line line;
    unsigned char hash[AT_SHA256_BYTES];
    uint64_t seq = before->seq;
    bool ok = true;
    bool first = true;
    memcpy(hash, before->hash, sizeof hash);
    while (ok && text.len > 0) {
        struct at_str one = at_str_cut(&text, '\n');
        ok = at_audit_line_parse(one.ptr, one.len, &line, NULL) == AT_OK;
        if (ok && first) {
            *ret_first_seq = line.seq;
        }
        if (ok && (!first || before->seq != 0)) {
            at_audit_hasher_step(h, hash, one.ptr, line.text_len);
            ok = line.seq == seq + 1 && memcmp(hash, line.hash, sizeof hash) == 0;
        }
        memcpy(hash, line.hash, sizeof hash);
        seq = line.seq;
        first = false;
    }
    at_audit_hasher_free(h);
    return ok;
}

static enum at_rc end_put(const char *path, int64_t offset, const struct at_buf *text,
                          struct at_err *err)
{
    int fd = -1;
    size_t done = 0;
    enum at_rc rc = at_file_exists(path) ? at_file_truncate(path, offset, err) : AT_OK;
    rc = rc == AT_OK ? at_file_open_append(path, 0600, &fd, err) : rc;
    while (rc == AT_OK && done < text->len) {
        size_t n = 0;
        rc = at_fd_write(fd, text->data + done, text->len - done, &n);
        done += rc == AT_OK ? n : 0;
        if (rc != AT_OK) {
            rc = at_err_set(err, rc, "cannot write %s: the disk is full or fails", path);
        }
    }
    rc = rc == AT_OK ? at_fd_sync(fd, err) : rc;
    at_file_close(fd);
    return rc;
}

/* Lines of text that were not in old. */
static uint64_t lines_after(struct at_str old, struct at_str text, uint64_t first_seq,
                            uint64_t *ret_first)
{
    size_t same = 0;
    uint64_t n = 0;
    while (same < old.len && same < text.len && old.ptr[same] == text.ptr[same]) {
        first_seq += text.ptr[same] == '\n';
        same++;
    }
    for (size_t i = same; i < text.len; i++) {
        n += text.ptr[i] == '\n';
    }
    *ret_first = first_seq;
    return n;
}

enum at_rc at_audit_redo_apply(const struct at_audit_redo *redo, const char *dir,
                               struct at_audit_healed *ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/audit.log", dir);
    AT_CLEANUP(at_cleanup_free) char *head = at_asprintf("%s/audit.head", dir);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf have = {0};
    struct at_audit_healed out = {0};
    struct batch b = {0};
    if (redo == NULL || !at_file_exists(head) || !needed(redo, &b, &text)) {
        *ret = out; /* without a newest seal it is another log than the journal's, or none */
        return AT_OK;
    }
    out.last_seq = b.last_seq;
    memcpy(out.last_hash, b.last_hash, sizeof out.last_hash);
    int64_t size = at_file_size(path);
    size = size < 0 ? 0 : size;
    struct at_audit_line before = {0};
    size_t got = 0;
    uint64_t first = 0;
    uint64_t file_first = at_audit_file_first(path);
    bool same_file = file_first == b.file_first_seq || (b.offset == 0 && file_first == 0);
    bool fits = size >= b.offset && same_file &&
                (b.offset == 0 || before_read(path, b.offset, &before)) &&
                chains(&before, (struct at_str){text.data, text.len}, &first);
    enum at_rc rc = fits && size > b.offset
                        ? at_file_read_at(path, b.offset, text.len, &have, &got, err)
                        : AT_OK;
    if (rc == AT_OK && fits && (got != text.len || memcmp(have.data, text.data, got) != 0)) {
        out.records = lines_after((struct at_str){have.data, got},
                                  (struct at_str){text.data, text.len}, first, &out.first_seq);
        rc = end_put(path, b.offset, &text, err);
    }
    if (rc == AT_OK) {
        *ret = out;
    }
    return rc;
}
