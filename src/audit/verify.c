#include "audit/verify.h"

#include "audit/audit_priv.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/str.h"
#include "sys/file.h"

#include <openssl/evp.h>
#include <string.h>

#define PIECE_BYTES ((size_t)1 << 20)
#define LIVE_ROUNDS_MAX 3
#define LINE_BYTES_MAX (2 * AT_AUDIT_RECORD_BYTES_MAX)

struct walk {
    struct at_audit_report *report;
    EVP_PKEY *key;
    struct at_audit_hasher *hasher;
    unsigned char hash[AT_SHA256_BYTES];
    uint64_t seq, from_seq;
    bool begun;
    struct at_audit_seal head; /* audit.head */
    bool has_head, head_met;
    const char *path;
    uint64_t line;
    uint64_t noted_pruned; /* by the log */
};

static enum at_rc bad(const struct walk *w, struct at_err *err, const char *what)
{
    return at_err_set(err, AT_CORRUPT, "%s: line %llu: %s", w->path, (unsigned long long)w->line,
                      what);
}

/* Its members as JSON. own: caller decrefs; NULL: none. */
static json_t *members_of(const char *line, const struct at_audit_line *parsed)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    json_t *root = NULL;
    if (at_buf_append(&text, line, parsed->text_len) != AT_OK ||
        at_buf_append(&text, "}", 1) != AT_OK ||
        at_json_parse(text.data, text.len, &root, NULL) != AT_OK) {
        return NULL;
    }
    return root;
}

static enum at_rc seal_take(struct walk *w, const json_t *root, const struct at_audit_line *line,
                            struct at_err *err)
{
    struct at_audit_seal seal = {.seq = line->seq - 1};
    const char *prev = at_json_str_at(root, "prev", "");
    const char *chain = at_json_str_at(root, "chain", "");
    const char *signature = at_json_str_at(root, "signature", "");
    if (strlen(prev) != AT_SHA256_HEX_BYTES - 1 ||
        !at_audit_hex_decode(prev, AT_SHA256_BYTES, seal.hash) ||
        strlen(chain) >= sizeof seal.chain || strlen(signature) >= sizeof seal.signature_hex) {
        return bad(w, err, "its seal is malformed");
    }
    memcpy(seal.chain, chain, strlen(chain) + 1);
    memcpy(seal.signature_hex, signature, strlen(signature) + 1);
    if (!at_audit_seal_check(w->key, &seal)) {
        return bad(w, err, "its seal was not signed with this log's key");
    }
    if (!w->begun) {
        memcpy(w->hash, seal.hash, sizeof w->hash);
        w->seq = seal.seq;
        w->report->first_seq = line->seq;
        memcpy(w->report->chain, seal.chain, sizeof w->report->chain);
        w->begun = true;
    } else if (memcmp(seal.hash, w->hash, sizeof w->hash) != 0) {
        return bad(w, err, "its seal is for other records than those before it");
    } else if (!at_streq(w->report->chain, seal.chain)) {
        return bad(w, err, "its seal is of another log");
    }
    w->report->seals++;
    w->report->sealed_seq = line->seq;
    return AT_OK;
}

static enum at_rc event_take(struct walk *w, const json_t *root, const char *event,
                             struct at_err *err)
{
    if (at_streq(event, "broken")) {
        return at_err_set(err, AT_CORRUPT,
                          "%s: line %llu: a server found the log's end broken when it started: "
                          "record %lld was promised, %lld was there (look, then verify what came "
                          "after with --from %lld)",
                          w->path, (unsigned long long)w->line,
                          (long long)at_json_int_at(root, "expectedSeq", 0),
                          (long long)at_json_int_at(root, "foundSeq", 0), (long long)w->seq + 1);
    }
    if (at_streq(event, "pruned")) {
        w->noted_pruned = (uint64_t)at_json_int_at(root, "through", 0);
    } else if (at_streq(event, "lost")) {
        w->report->lost += (uint64_t)at_json_int_at(root, "records", 0);
    }
    return AT_OK;
}

static bool may_be_event(const char *line, size_t len)
{
    return memmem(line, len < 96 ? len : 96, "\"event\":\"", 9) != NULL;
}

static enum at_rc line_take(struct walk *w, const char *text, size_t len, struct at_err *err)
{
    struct at_audit_line line = {0};
    w->line++;
    if (at_audit_line_parse(text, len, &line, NULL) != AT_OK) {
        return bad(w, err, "it is no audit record");
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *root = may_be_event(text, len) ? members_of(text, &line) : NULL;
    const char *event = at_json_str_at(root, "event", NULL);
    if (!w->begun && (line.seq < w->from_seq || !at_streq(event, "seal"))) {
        /* The first line of all is no seal when the log begins with what was found broken. */
        return w->from_seq > 0 ? AT_OK : bad(w, err, "a file of the log begins with a seal");
    }
    if (at_streq(event, "seal")) {
        enum at_rc rc = seal_take(w, root, &line, err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    if (line.seq != w->seq + 1) {
        return at_err_set(err, AT_CORRUPT,
                          "%s: line %llu: record %llu follows record %llu: records are missing or "
                          "in another order",
                          w->path, (unsigned long long)w->line, (unsigned long long)line.seq,
                          (unsigned long long)w->seq);
    }
    at_audit_hasher_step(w->hasher, w->hash, text, line.text_len);
    if (memcmp(w->hash, line.hash, sizeof w->hash) != 0) {
        return bad(w, err, "it was changed, or does not follow from the record before it");
    }
    w->seq = line.seq;
    w->report->records++;
    w->report->last_seq = line.seq;
    enum at_rc rc = event != NULL ? event_take(w, root, event, err) : AT_OK;
    if (rc != AT_OK) {
        return rc;
    }
    if (w->has_head && line.seq == w->head.seq) {
        w->head_met = memcmp(w->hash, w->head.hash, sizeof w->hash) == 0;
        if (!w->head_met) {
            return bad(w, err, "it is not the record that audit.head promises");
        }
    }
    return AT_OK;
}

static enum at_rc file_walk(struct walk *w, bool newest, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PIECE_BYTES + 2 * LINE_BYTES_MAX};
    int64_t offset = 0;
    enum at_rc rc = AT_OK;
    w->line = 0;
    for (size_t got = 1; rc == AT_OK && got > 0;) {
        rc = at_file_read_at(w->path, offset, PIECE_BYTES, &text, &got, err);
        offset += (int64_t)got;
        size_t start = 0;
        const char *stop;
        while (rc == AT_OK && start < text.len &&
               (stop = memchr(text.data + start, '\n', text.len - start)) != NULL) {
            size_t len = (size_t)(stop - text.data) - start;
            rc = line_take(w, text.data + start, len, err);
            start += len + 1;
        }
        at_buf_consume(&text, start);
        if (rc == AT_OK && text.len > LINE_BYTES_MAX) {
            w->line++;
            return bad(w, err, "it is longer than any record");
        }
    }
    if (rc == AT_OK && text.len > 0 && !newest) {
        w->line++;
        return bad(w, err, "it is cut off");
    }
    return rc; /* the newest file's last line may be being written, or a crash's: see audit.head */
}

static enum at_rc key_read(const char *dir, const char *key_path, EVP_PKEY **ret,
                           struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free)
    char *path = key_path != NULL ? at_strdup(key_path) : at_asprintf("%s/audit.pub", dir);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_file_read(path, 4096, &text, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "the audit log's public key");
    }
    rc = at_audit_key_public(text.data, text.len, ret, err);
    return rc == AT_OK ? rc : at_err_wrap(err, rc, "%s", path);
}

static enum at_rc head_read(struct walk *w, const char *dir, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/audit.head", dir);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_file_read(path, 4096, &text, err);
    if (rc == AT_NOT_FOUND) {
        return at_err_set(err, AT_CORRUPT, "%s is missing: nothing says where the log should end",
                          path);
    }
    if (rc == AT_OK && at_audit_head_parse(text.data, text.len, &w->head, err) != AT_OK) {
        return at_err_wrap(err, AT_CORRUPT, "%s", path);
    }
    if (rc == AT_OK && !at_audit_seal_check(w->key, &w->head)) {
        return at_err_set(err, AT_CORRUPT, "%s was not signed with this log's key", path);
    }
    w->has_head = rc == AT_OK;
    return rc;
}

static enum at_rc end_check(const struct walk *w, const char *dir, struct at_err *err)
{
    const struct at_audit_report *r = w->report;
    if (!w->begun) {
        return at_err_set(err, AT_CORRUPT, "%s: no seal was found to begin with", dir);
    }
    if (r->last_seq < w->head.seq) {
        return at_err_set(
            err, AT_CORRUPT,
            "%s: the log ends at record %llu, but audit.head promises %llu: it was cut "
            "off",
            dir, (unsigned long long)r->last_seq, (unsigned long long)w->head.seq);
    }
    if (!at_streq(w->head.chain, r->chain)) {
        return at_err_set(err, AT_CORRUPT, "%s: audit.head is of another log", dir);
    }
    if (w->from_seq == 0 && r->first_seq != 1 && w->noted_pruned != r->first_seq - 1) {
        return at_err_set(err, AT_CORRUPT,
                          "%s: records 1 to %llu are missing, and the log does not say that it "
                          "deleted them",
                          dir, (unsigned long long)r->first_seq - 1);
    }
    return AT_OK;
}

static enum at_rc files_walk(struct walk *w, const struct at_audit_files *files, struct at_err *err)
{
    enum at_rc rc = AT_OK;
    for (size_t i = 0; rc == AT_OK && i < files->n; i++) {
        w->path = files->items[i].path;
        w->report->files++;
        if (w->from_seq > 0 && i + 1 < files->n && files->items[i + 1].first_seq <= w->from_seq) {
            continue;
        }
        rc = file_walk(w, i + 1 == files->n, err);
    }
    return rc;
}

static enum at_rc verify_once(const char *dir, const char *key_path, uint64_t from_seq,
                              struct at_audit_report *ret, size_t *ret_n, struct at_err *err)
{
    struct at_audit_files files = {0};
    *ret = (struct at_audit_report){0};
    struct walk w = {.report = ret, .from_seq = from_seq, .hasher = at_audit_hasher_new()};
    enum at_rc rc = at_audit_files_list(dir, &files, err);
    if (rc == AT_OK && files.n == 0) {
        rc = at_err_set(err, AT_NOT_FOUND, "%s holds no audit log (give a server's state folder)",
                        dir);
    }
    rc = rc == AT_OK ? key_read(dir, key_path, &w.key, err) : rc;
    /* The head first: a live log only grows beyond it. */
    rc = rc == AT_OK ? head_read(&w, dir, err) : rc;
    rc = rc == AT_OK ? files_walk(&w, &files, err) : rc;
    rc = rc == AT_OK ? end_check(&w, dir, err) : rc;
    ret->pruned_seq = w.noted_pruned;
    *ret_n = files.n;
    EVP_PKEY_free(w.key);
    at_audit_hasher_free(w.hasher);
    at_audit_files_done(&files);
    return rc;
}

enum at_rc at_audit_verify(const char *dir, const char *key_path, uint64_t from_seq,
                           struct at_audit_report *ret, struct at_err *err)
{
    enum at_rc rc = AT_OK;
    for (int i = 0; i < LIVE_ROUNDS_MAX; i++) {
        struct at_audit_files after = {0};
        size_t n = 0;
        rc = verify_once(dir, key_path, from_seq, ret, &n, err);
        if (rc == AT_OK || at_audit_files_list(dir, &after, NULL) != AT_OK) {
            return rc;
        }
        bool moved = after.n != n; /* a live log was turned over meanwhile */
        at_audit_files_done(&after);
        if (!moved) {
            return rc;
        }
    }
    return rc;
}
