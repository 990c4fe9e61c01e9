#include "runners/gguf.h"

#include "core/mem.h"
#include "runners/limits.h"
#include "sys/file.h"

#include <string.h>

#define ALIGNMENT_DEFAULT 32
#define STRING_TYPE 8
#define ARRAY_TYPE 9

/* Elements of one block, and its bytes, by number of type; 0: a number that nobody uses (any more).
 */
static const struct {
    uint16_t elements, bytes;
} TYPES[] = {
    [0] = {1, 4},      [1] = {1, 2},      [2] = {32, 18},    [3] = {32, 20},    [6] = {32, 22},
    [7] = {32, 24},    [8] = {32, 34},    [9] = {32, 36},    [10] = {256, 84},  [11] = {256, 110},
    [12] = {256, 144}, [13] = {256, 176}, [14] = {256, 210}, [15] = {256, 292}, [16] = {256, 66},
    [17] = {256, 74},  [18] = {256, 98},  [19] = {256, 50},  [20] = {32, 18},   [21] = {256, 110},
    [22] = {256, 82},  [23] = {256, 136}, [24] = {1, 1},     [25] = {1, 2},     [26] = {1, 4},
    [27] = {1, 8},     [28] = {1, 8},     [29] = {256, 56},  [30] = {1, 2},
};

static const uint8_t SCALAR_BYTES[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

struct reader {
    const char *data;
    size_t len, at;
    struct at_err *err;
    uint64_t alignment;
    bool has_architecture;
    bool has_unknown; /* tensors of a type that is not in the table */
};

static enum at_rc past_end(const struct reader *r)
{
    return at_err_set(r->err, AT_TOO_LARGE, "the model's description goes on past %zu bytes",
                      r->len);
}

static enum at_rc take(struct reader *r, void *ret, size_t n)
{
    if (r->len - r->at < n) {
        return past_end(r);
    }
    memcpy(ret, r->data + r->at, n);
    r->at += n;
    return AT_OK;
}

static enum at_rc skip(struct reader *r, uint64_t n)
{
    if (r->len - r->at < n) {
        return past_end(r);
    }
    r->at += n;
    return AT_OK;
}

static enum at_rc take_string(struct reader *r, const char **ret, uint64_t *ret_len)
{
    enum at_rc rc = take(r, ret_len, sizeof *ret_len);
    if (rc == AT_OK && *ret_len > AT_GGUF_HEAD_BYTES_MAX) {
        return at_err_set(r->err, AT_CORRUPT, "a text of its description claims %llu bytes",
                          (unsigned long long)*ret_len);
    }
    if (rc == AT_OK) {
        *ret = r->data + r->at;
        rc = skip(r, *ret_len);
    }
    return rc;
}

static enum at_rc skip_value(struct reader *r, uint32_t type)
{
    const char *text;
    uint64_t len = 0;
    if (type == STRING_TYPE) {
        return take_string(r, &text, &len);
    }
    if (type >= sizeof SCALAR_BYTES || SCALAR_BYTES[type] == 0) {
        return at_err_set(r->err, AT_CORRUPT,
                          "a value of its description has type %u, which is "
                          "none",
                          type);
    }
    return skip(r, SCALAR_BYTES[type]);
}

static enum at_rc skip_array(struct reader *r)
{
    uint32_t type = 0;
    uint64_t n = 0;
    enum at_rc rc = take(r, &type, sizeof type);
    rc = rc != AT_OK ? rc : take(r, &n, sizeof n);
    if (rc == AT_OK && type == ARRAY_TYPE) {
        return at_err_set(r->err, AT_CORRUPT, "a list of its description holds lists");
    }
    if (rc == AT_OK && n > AT_GGUF_HEAD_BYTES_MAX) {
        return at_err_set(r->err, AT_CORRUPT, "a list of its description claims %llu values",
                          (unsigned long long)n);
    }
    if (rc == AT_OK && type != STRING_TYPE && type < sizeof SCALAR_BYTES) {
        return n > r->len ? past_end(r) : skip(r, n * SCALAR_BYTES[type]);
    }
    for (uint64_t i = 0; i < n && rc == AT_OK; i++) {
        rc = skip_value(r, type);
    }
    return rc;
}

static enum at_rc read_pair(struct reader *r)
{
    const char *key = NULL;
    uint64_t len = 0;
    uint32_t type = 0, alignment = 0;
    enum at_rc rc = take_string(r, &key, &len);
    rc = rc != AT_OK ? rc : take(r, &type, sizeof type);
    if (rc != AT_OK) {
        return rc;
    }
    if (len == strlen("general.alignment") && memcmp(key, "general.alignment", len) == 0) {
        rc = take(r, &alignment, sizeof alignment);
        if (rc == AT_OK && (alignment == 0 || (alignment & (alignment - 1)) != 0)) {
            return at_err_set(r->err, AT_CORRUPT, "general.alignment is %u, no power of two",
                              alignment);
        }
        r->alignment = alignment;
        return rc;
    }
    r->has_architecture =
        r->has_architecture || (len == strlen("general.architecture") && type == STRING_TYPE &&
                                memcmp(key, "general.architecture", len) == 0);
    return type == ARRAY_TYPE ? skip_array(r) : skip_value(r, type);
}

/* The end of a tensor's bytes, counted from where tensors begin. */
static enum at_rc read_tensor(struct reader *r, uint64_t *ret_end)
{
    const char *name = NULL;
    uint64_t len = 0, dim = 0, offset = 0, elements = 1;
    uint32_t n_dims = 0, type = 0;
    enum at_rc rc = take_string(r, &name, &len);
    rc = rc != AT_OK ? rc : take(r, &n_dims, sizeof n_dims);
    if (rc == AT_OK && (n_dims == 0 || n_dims > 4 || len > 256)) {
        return at_err_set(r->err, AT_CORRUPT, "a tensor has %u dimensions", n_dims);
    }
    for (uint32_t i = 0; i < n_dims && rc == AT_OK; i++) {
        rc = take(r, &dim, sizeof dim);
        if (rc == AT_OK && (dim == 0 || __builtin_mul_overflow(elements, dim, &elements))) {
            return at_err_set(r->err, AT_CORRUPT, "tensor %.*s has an impossible size", (int)len,
                              name);
        }
    }
    rc = rc != AT_OK ? rc : take(r, &type, sizeof type);
    rc = rc != AT_OK ? rc : take(r, &offset, sizeof offset);
    if (rc != AT_OK) {
        return rc;
    }
    if (elements > (uint64_t)1 << 48 || offset > (uint64_t)1 << 56) {
        return at_err_set(r->err, AT_CORRUPT, "tensor %.*s has an impossible size", (int)len, name);
    }
    /* Types newer than this table are libllama's to judge. */
    bool known = type < AT_ARRAY_LEN(TYPES) && TYPES[type].elements != 0;
    r->has_unknown = r->has_unknown || !known;
    *ret_end = known ? offset + elements / TYPES[type].elements * TYPES[type].bytes : offset;
    return AT_OK;
}

static enum at_rc read_head(struct reader *r, uint64_t *ret_tensors, uint64_t *ret_pairs)
{
    char magic[4] = {0};
    uint32_t version = 0;
    enum at_rc rc = take(r, magic, sizeof magic);
    if (rc != AT_OK || memcmp(magic, "GGUF", sizeof magic) != 0) {
        return at_err_set(r->err, AT_CORRUPT, "this is no GGUF file");
    }
    rc = take(r, &version, sizeof version);
    if (rc == AT_OK && version != 2 && version != 3) {
        return at_err_set(r->err, AT_CORRUPT, "GGUF version %u: versions 2 and 3 are known",
                          version);
    }
    rc = rc != AT_OK ? rc : take(r, ret_tensors, sizeof *ret_tensors);
    rc = rc != AT_OK ? rc : take(r, ret_pairs, sizeof *ret_pairs);
    if (rc == AT_OK && (*ret_tensors > AT_GGUF_ENTRIES_MAX || *ret_pairs > AT_GGUF_ENTRIES_MAX)) {
        return at_err_set(r->err, AT_CORRUPT, "it claims %llu tensors and %llu values",
                          (unsigned long long)*ret_tensors, (unsigned long long)*ret_pairs);
    }
    return rc;
}

enum at_rc at_gguf_check(const void *head, size_t len, int64_t file_bytes, struct at_err *err)
{
    struct reader r = {.data = head, .len = len, .err = err, .alignment = ALIGNMENT_DEFAULT};
    uint64_t n_tensors = 0, n_pairs = 0, most = 0, end = 0;
    enum at_rc rc = read_head(&r, &n_tensors, &n_pairs);
    for (uint64_t i = 0; i < n_pairs && rc == AT_OK; i++) {
        rc = read_pair(&r);
    }
    for (uint64_t i = 0; i < n_tensors && rc == AT_OK; i++) {
        rc = read_tensor(&r, &end);
        most = end > most ? end : most;
    }
    if (rc == AT_TOO_LARGE && (uint64_t)file_bytes <= len) {
        return at_err_set(err, AT_CORRUPT, "the file ends within its description: it is cut off");
    }
    if (rc != AT_OK) {
        return rc;
    }
    if (!r.has_architecture || n_tensors == 0) {
        return at_err_set(err, AT_CORRUPT, "it describes no model");
    }
    uint64_t begin = (r.at + r.alignment - 1) / r.alignment * r.alignment;
    if (begin + most > (uint64_t)file_bytes) {
        return at_err_set(err, AT_CORRUPT,
                          "its tensors need %llu bytes, the file has %lld: it is cut off",
                          (unsigned long long)(begin + most), (long long)file_bytes);
    }
    if (!r.has_unknown &&
        (uint64_t)file_bytes - begin - most > r.alignment + AT_GGUF_TAIL_BYTES_MAX) {
        return at_err_set(err, AT_CORRUPT, "its tensors end at %llu, and the file goes on to %lld",
                          (unsigned long long)(begin + most), (long long)file_bytes);
    }
    return AT_OK;
}

enum at_rc at_gguf_check_file(const char *path, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf head = {0};
    int64_t size = at_file_size(path);
    at_buf_init(&head, AT_GGUF_HEAD_BYTES_MAX);
    enum at_rc rc = AT_TOO_LARGE;
    for (size_t want = AT_GGUF_HEAD_BYTES_FIRST; rc == AT_TOO_LARGE; want *= 8) {
        size_t got = 0;
        want = want < AT_GGUF_HEAD_BYTES_MAX ? want : AT_GGUF_HEAD_BYTES_MAX;
        at_buf_clear(&head);
        rc = at_file_read_at(path, 0, want, &head, &got, err);
        if (rc != AT_OK) {
            return rc;
        }
        rc = at_gguf_check(head.data != NULL ? head.data : "", head.len, size, err);
        if (rc == AT_TOO_LARGE && want == AT_GGUF_HEAD_BYTES_MAX) {
            rc = at_err_set(err, AT_CORRUPT, "its description is longer than %zu MiB", want >> 20);
        }
    }
    return rc != AT_OK ? at_err_wrap(err, rc, "%s", path) : AT_OK;
}
