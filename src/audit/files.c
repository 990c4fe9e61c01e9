/* The files of a log: which there are, and where the newest one ends. */
#include "audit/audit_priv.h"
#include "core/mem.h"
#include "core/str.h"
#include "sys/file.h"

#include <stdlib.h>
#include <string.h>

#define CURRENT "audit.log"
#define ROTATED "audit.log."
#define SEQ_DIGITS 20
#define TAIL_BYTES (4 * AT_AUDIT_RECORD_BYTES_MAX)

static bool rotated_seq(const char *name, uint64_t *ret)
{
    size_t head = sizeof ROTATED - 1;
    return strncmp(name, ROTATED, head) == 0 && strlen(name) == head + SEQ_DIGITS &&
           at_str_to_u64(at_str_of(name + head), ret) == AT_OK;
}

uint64_t at_audit_file_first(const char *path)
{
    static const char HEAD[] = "{\"seq\":";
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    size_t got = 0;
    if (at_file_read_at(path, 0, 64, &text, &got, NULL) != AT_OK || got < sizeof HEAD ||
        memcmp(text.data, HEAD, sizeof HEAD - 1) != 0) {
        return 0;
    }
    return strtoull(text.data + sizeof HEAD - 1, NULL, 10);
}

static void file_add(struct at_audit_files *files, char *path_take, uint64_t first_seq)
{
    files->items = at_realloc(files->items, (files->n + 1) * sizeof *files->items);
    files->items[files->n++] = (struct at_audit_file){
        .path = path_take, .first_seq = first_seq, .bytes = at_file_size(path_take)};
}

enum at_rc at_audit_files_list(const char *dir, struct at_audit_files *ret, struct at_err *err)
{
    char **names = NULL;
    size_t n = 0;
    struct at_audit_files files = {0};
    enum at_rc rc = at_dir_list(dir, &names, &n, err);
    if (rc != AT_OK) {
        return rc;
    }
    bool current = false;
    for (size_t i = 0; i < n; i++) { /* sorted, so rotated ones come by number */
        uint64_t seq = 0;
        if (rotated_seq(names[i], &seq) && files.n < AT_AUDIT_FILES_MAX) {
            file_add(&files, at_asprintf("%s/%s", dir, names[i]), seq);
        } else if (rotated_seq(names[i], &seq)) {
            rc = at_err_set(err, AT_EXHAUSTED, "more than %d files of the audit log in %s",
                            AT_AUDIT_FILES_MAX, dir);
        }
        current = current || strcmp(names[i], CURRENT) == 0;
        at_free(names[i]);
    }
    at_free(names);
    if (current) {
        char *path = at_asprintf("%s/" CURRENT, dir);
        file_add(&files, path, at_audit_file_first(path));
    }
    if (rc != AT_OK) {
        at_audit_files_done(&files);
        return rc;
    }
    *ret = files;
    return AT_OK;
}

void at_audit_files_done(struct at_audit_files *files)
{
    for (size_t i = 0; i < files->n; i++) {
        at_free(files->items[i].path);
    }
    at_free(files->items);
    *files = (struct at_audit_files){0};
}

/* The last whole line of text and, when it is there, the one before. */
static void last_lines(struct at_str text, struct at_str *ret_last, struct at_str *ret_before)
{
    struct at_str *out[2] = {ret_last, ret_before};
    size_t end = text.len;
    for (size_t i = 0; i < 2 && end > 0; i++) {
        size_t stop = end - 1; /* its \n */
        size_t start = stop;
        while (start > 0 && text.ptr[start - 1] != '\n') {
            start--;
        }
        *out[i] = (struct at_str){text.ptr + start, stop - start};
        end = start;
    }
}

static enum at_rc file_tail(const char *path, struct at_audit_tail *t, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    int64_t size = at_file_size(path);
    int64_t from = size > (int64_t)TAIL_BYTES ? size - (int64_t)TAIL_BYTES : 0;
    size_t got = 0;
    enum at_rc rc = size > 0 ? at_file_read_at(path, from, TAIL_BYTES, &text, &got, err) : AT_OK;
    if (rc != AT_OK || got == 0) {
        return rc;
    }
    size_t len = text.len;
    while (len > 0 && text.data[len - 1] != '\n') {
        len--;
    }
    t->cut_bytes = (int64_t)(text.len - len);
    t->bytes = size - t->cut_bytes;
    struct at_str last = {0};
    struct at_str before = {0};
    struct at_audit_line line = {0};
    struct at_audit_line line_before = {0};
    last_lines((struct at_str){text.data, len}, &last, &before);
    if (last.ptr == NULL) {
        return AT_OK; /* nothing but a half line */
    }
    if (at_audit_line_parse(last.ptr, last.len, &line, NULL) != AT_OK) {
        t->damaged = true;
        return AT_OK;
    }
    t->seq = line.seq;
    memcpy(t->hash, line.hash, sizeof t->hash);
    if (before.ptr != NULL && (from == 0 || before.ptr > text.data)) {
        t->damaged = at_audit_line_parse(before.ptr, before.len, &line_before, NULL) != AT_OK;
        struct at_audit_hasher *h = at_audit_hasher_new();
        unsigned char hash[AT_SHA256_BYTES];
        memcpy(hash, line_before.hash, sizeof hash);
        at_audit_hasher_step(h, hash, last.ptr, line.text_len);
        t->damaged = t->damaged || memcmp(hash, line.hash, sizeof hash) != 0;
        at_audit_hasher_free(h);
    }
    return AT_OK;
}

enum at_rc at_audit_tail_read(const char *dir, struct at_audit_tail *ret, struct at_err *err)
{
    struct at_audit_files files = {0};
    struct at_audit_tail t = {0};
    enum at_rc rc = at_audit_files_list(dir, &files, err);
    if (rc != AT_OK) {
        return rc;
    }
    size_t i = files.n;
    AT_CLEANUP(at_cleanup_free) char *current = at_asprintf("%s/" CURRENT, dir);
    if (i > 0 && strcmp(files.items[i - 1].path, current) == 0) {
        i--;
        rc = file_tail(files.items[i].path, &t, err);
        t.file_first_seq = t.seq != 0 ? files.items[i].first_seq : 0;
    }
    if (rc == AT_OK && t.seq == 0 && !t.damaged && i > 0) {
        struct at_audit_tail older = {0}; /* turned over, and nothing written since */
        rc = file_tail(files.items[i - 1].path, &older, err);
        t.seq = older.seq;
        t.damaged = older.damaged;
        memcpy(t.hash, older.hash, sizeof t.hash);
    }
    at_audit_files_done(&files);
    if (rc == AT_OK) {
        *ret = t;
    }
    return rc;
}
