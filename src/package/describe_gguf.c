/* The key-value pairs at the head of a GGUF file (version 2 and 3, little-endian). */
#include "core/mem.h"
#include "core/str.h"
#include "package/describe.h"

#include <stdio.h>
#include <string.h>

#define PAIRS_MAX 100000
#define TENSORS_MAX 1000000
#define KEY_BYTES_MAX 256
#define TEXT_BYTES_MAX 512
#define TYPE_STRING 8
#define TYPE_ARRAY 9

struct head {
    struct at_pkg_source *source;
    int64_t at;
    struct at_err *err;
};

static enum at_rc take(struct head *h, void *out, size_t len)
{
    enum at_rc rc = at_pkg_source_read(h->source, h->at, out, len, h->err);
    h->at += (int64_t)len;
    return rc;
}

static enum at_rc skip(struct head *h, uint64_t bytes)
{
    if (bytes > (uint64_t)(h->source->bytes - h->at)) {
        return at_err_set(h->err, AT_CORRUPT, "the model file is cut off");
    }
    h->at += (int64_t)bytes;
    return AT_OK;
}

static size_t size_of(uint32_t type)
{
    static const uint8_t SIZES[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof SIZES ? SIZES[type] : 0;
}

static enum at_rc bad_type(struct head *h)
{
    return at_err_set(h->err, AT_CORRUPT, "its description has a value of no known type");
}

/* A string; what is longer than the place is passed over, and out is empty. */
static enum at_rc take_text(struct head *h, char *out, size_t size)
{
    uint64_t len = 0;
    enum at_rc rc = take(h, &len, sizeof len);
    out[0] = '\0';
    if (rc != AT_OK || len >= size) {
        return rc != AT_OK ? rc : skip(h, len);
    }
    rc = take(h, out, (size_t)len);
    out[rc == AT_OK ? len : 0] = '\0';
    return rc;
}

static enum at_rc skip_array(struct head *h)
{
    uint32_t type = 0;
    uint64_t n = 0;
    char text[1];
    enum at_rc rc = take(h, &type, sizeof type);
    rc = rc != AT_OK ? rc : take(h, &n, sizeof n);
    if (rc != AT_OK || n > (uint64_t)h->source->bytes) {
        return rc != AT_OK ? rc : at_err_set(h->err, AT_CORRUPT, "the model file is cut off");
    }
    if (type != TYPE_STRING) {
        return size_of(type) == 0 ? bad_type(h) : skip(h, n * size_of(type));
    }
    for (uint64_t i = 0; i < n && rc == AT_OK; i++) {
        rc = take_text(h, text, sizeof text);
    }
    return rc;
}

static bool ends(const char *key, const char *end)
{
    size_t n = strlen(key), m = strlen(end);
    return n > m && strcmp(key + n - m, end) == 0;
}

static void set_text(json_t *out, const char *name, const char *text)
{
    json_t *value = text[0] != '\0' ? json_string(text) : NULL; /* NULL: no UTF-8 */
    if (value != NULL) {
        json_object_set_new(out, name, value);
    }
}

/* general.file_type, as llama.cpp numbers it. */
static const char *quantization(uint64_t type)
{
    static const char *const NAMES[] = {
        [0] = "F32",     [1] = "F16",     [2] = "Q4_0",    [3] = "Q4_1",    [7] = "Q8_0",
        [8] = "Q5_0",    [9] = "Q5_1",    [10] = "Q2_K",   [11] = "Q3_K_S", [12] = "Q3_K_M",
        [13] = "Q3_K_L", [14] = "Q4_K_S", [15] = "Q4_K_M", [16] = "Q5_K_S", [17] = "Q5_K_M",
        [18] = "Q6_K",   [32] = "BF16"};
    return type < AT_ARRAY_LEN(NAMES) && NAMES[type] != NULL ? NAMES[type] : "";
}

static enum at_rc pair(struct head *h, json_t *out)
{
    char key[KEY_BYTES_MAX], text[TEXT_BYTES_MAX];
    uint32_t type = 0;
    uint64_t number = 0;
    enum at_rc rc = take_text(h, key, sizeof key);
    rc = rc != AT_OK ? rc : take(h, &type, sizeof type);
    if (rc != AT_OK) {
        return rc;
    }
    if (type == TYPE_STRING) {
        rc = take_text(h, text, sizeof text);
        if (rc == AT_OK && strcmp(key, "general.architecture") == 0) {
            set_text(out, "architecture", text);
        } else if (rc == AT_OK && strcmp(key, "general.name") == 0) {
            set_text(out, "name", text);
        }
        return rc;
    }
    if (type == TYPE_ARRAY) {
        return skip_array(h);
    }
    if (size_of(type) == 0) {
        return bad_type(h);
    }
    rc = take(h, &number, size_of(type));
    if (rc == AT_OK && strcmp(key, "general.file_type") == 0) {
        set_text(out, "quantization", quantization(number));
    } else if (rc == AT_OK && ends(key, ".context_length") && number <= INT32_MAX) {
        json_object_set_new(out, "contextTokens", json_integer((json_int_t)number));
    }
    return rc;
}

/* Elements of all tensors: what people call parameters. */
static enum at_rc tensors(struct head *h, uint64_t n, json_t *out)
{
    char name[KEY_BYTES_MAX];
    uint64_t sum = 0;
    enum at_rc rc = AT_OK;
    for (uint64_t i = 0; i < n && rc == AT_OK; i++) {
        uint32_t dims = 0, type = 0;
        uint64_t elements = 1, dim = 0, offset = 0;
        rc = take_text(h, name, sizeof name);
        rc = rc != AT_OK ? rc : take(h, &dims, sizeof dims);
        if (rc == AT_OK && dims > 8) {
            return at_err_set(h->err, AT_CORRUPT, "a tensor has %u dimensions", dims);
        }
        for (uint32_t k = 0; k < dims && rc == AT_OK; k++) {
            rc = take(h, &dim, sizeof dim);
            if (rc == AT_OK && __builtin_mul_overflow(elements, dim, &elements)) {
                return at_err_set(h->err, AT_CORRUPT, "a tensor has an impossible size");
            }
        }
        rc = rc != AT_OK ? rc : take(h, &type, sizeof type);
        rc = rc != AT_OK ? rc : take(h, &offset, sizeof offset);
        if (rc == AT_OK && offset > (uint64_t)h->source->bytes) {
            rc = at_err_set(h->err, AT_CORRUPT, "the model file is cut off");
        }
        if (__builtin_add_overflow(sum, elements, &sum)) {
            sum = UINT64_MAX;
        }
    }
    if (rc == AT_OK && sum <= INT64_MAX) {
        json_object_set_new(out, "parameters", json_integer((json_int_t)sum));
    }
    return rc;
}

enum at_rc at_pkg_describe_gguf(struct at_pkg_source *source, json_t **ret, struct at_err *err)
{
    struct head h = {.source = source, .err = err};
    char magic[4];
    uint32_t version = 0;
    uint64_t n_tensors = 0, n_pairs = 0;
    AT_CLEANUP(at_cleanup_json) json_t *out = json_object();
    enum at_rc rc = take(&h, magic, sizeof magic);
    if (rc != AT_OK || memcmp(magic, "GGUF", 4) != 0) {
        return at_err_set(err, AT_CORRUPT, "it is no GGUF file");
    }
    rc = take(&h, &version, sizeof version);
    rc = rc != AT_OK ? rc : take(&h, &n_tensors, sizeof n_tensors);
    rc = rc != AT_OK ? rc : take(&h, &n_pairs, sizeof n_pairs);
    if (rc == AT_OK && (version < 2 || version > 3)) {
        return at_err_set(err, AT_UNSUPPORTED, "it is GGUF of version %u; 2 and 3 are known",
                          version);
    }
    if (rc == AT_OK && (n_pairs > PAIRS_MAX || n_tensors > TENSORS_MAX)) {
        return at_err_set(err, AT_CORRUPT, "its description is impossibly large");
    }
    for (uint64_t i = 0; i < n_pairs && rc == AT_OK; i++) {
        rc = pair(&h, out);
    }
    rc = rc != AT_OK ? rc : tensors(&h, n_tensors, out);
    if (rc != AT_OK) {
        return rc;
    }
    json_object_set_new(
        out, "inputs",
        json_pack("[{s:s,s:s,s:[i]}]", "name", "prompt", "datatype", "BYTES", "shape", 1));
    json_object_set_new(
        out, "outputs",
        json_pack("[{s:s,s:s,s:[i]}]", "name", "text", "datatype", "BYTES", "shape", 1));
    *ret = json_incref(out);
    return AT_OK;
}
