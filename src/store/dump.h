/* A whole store as text, for moving it between back ends and for backups. JSON lines:
 *
 *     {"atollStore":1,"revision":R,"compactRevision":C}
 *     {"file":"pki/ca.crt","text":"..."}                                      (backups only)
 *     {"key":"...","createRevision":N,"revision":N,"value":"..."}             (in key order)
 *         ,"ttlSeconds":N before value where the key has one, which counts anew when it is put back
 *     {"end":true,"files":N,"keys":N,"sha256":"..."}
 *
 * sha256 is of all bytes before the last line. Bytes that are no text stand in base64 under the
 * field's name with Base64 behind it. The digest shows damage and slips of the hand, not malice:
 * whoever can edit the file can compute it anew. */
#ifndef AT_STORE_DUMP_H
#define AT_STORE_DUMP_H

#include "store/seal.h"

#define AT_DUMP_VERSION 1
#define AT_DUMP_LINE_BYTES_MAX ((size_t)8 << 20)
#define AT_DUMP_FILE_BYTES_MAX ((size_t)1 << 20)
#define AT_DUMP_FILES_MAX 64
#define AT_DUMP_REV_MAX (INT64_C(1) << 53) /* what every client can hold */

/* --- writing --- */
struct at_dump_writer;
/* Whole lines are appended to out, which the caller may empty between calls. own:
 * at_dump_writer_free. */
enum at_rc at_dump_writer_new(int64_t rev, int64_t compact_rev, struct at_buf *out,
                              struct at_dump_writer **ret) AT_WARN_UNUSED;
/* err: AT_TOO_LARGE out is full, or the file is too large; nothing is appended then. */
enum at_rc at_dump_write_file(struct at_dump_writer *w, const char *name, const void *data,
                              size_t len) AT_WARN_UNUSED;
enum at_rc at_dump_write_key(struct at_dump_writer *w, const struct at_store_kv *kv) AT_WARN_UNUSED;
enum at_rc at_dump_write_end(struct at_dump_writer *w) AT_WARN_UNUSED;
/* Values are sealed before they are written; seal is kept by pointer. */
void at_dump_writer_seal(struct at_dump_writer *w, const struct at_store_seal *seal);
void at_dump_writer_free(struct at_dump_writer *w); /* accepts NULL */

/* --- reading: strict, every error names the line --- */
struct at_dump_head {
    int64_t rev, compact_rev;
};
/* Each may be NULL. What is given is borrowed until return, and is not covered by the digest before
 * at_dump_reader_end: read once without, then again to act. An error ends the reading. */
struct at_dump_events {
    void *ctx;
    enum at_rc (*head)(void *ctx, const struct at_dump_head *head, struct at_err *err);
    /* name: a relative path of plain names. */
    enum at_rc (*file)(void *ctx, const char *name, const char *data, size_t len,
                       struct at_err *err);
    enum at_rc (*key)(void *ctx, const struct at_store_kv *kv, struct at_err *err);
};
struct at_dump_summary {
    struct at_dump_head head;
    size_t files, keys;
    char sha256[65];
};
struct at_dump_reader;
struct at_dump_reader *at_dump_reader_new(const struct at_dump_events *events); /* copied */
/* Any pieces. err: AT_INVALID no such file, edited, or of a later version; what events return. */
enum at_rc at_dump_reader_feed(struct at_dump_reader *r, const void *data, size_t len,
                               struct at_err *err) AT_WARN_UNUSED;
/* err: AT_INVALID it is cut off. */
enum at_rc at_dump_reader_end(struct at_dump_reader *r, struct at_dump_summary *ret,
                              struct at_err *err) AT_WARN_UNUSED;
void at_dump_reader_free(struct at_dump_reader *r); /* accepts NULL */

#endif
