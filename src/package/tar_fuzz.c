/* Archives in pieces of any size: the same entries, all of them safe, or the same error. */
#include "core/mem.h"
#include "package/oci.h"
#include "package/tar.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    size_t entries, ends;
    int64_t promised, bytes;
};

static enum at_rc on_entry(void *ctx, const struct at_tar_entry *e, struct at_err *err)
{
    struct seen *s = ctx;
    char why[64];
    (void)err;
    if (!at_pkg_path_is_safe(e->path, why, sizeof why) || e->bytes < 0) {
        abort();
    }
    s->entries++;
    s->promised += e->bytes;
    return AT_OK;
}

static enum at_rc on_data(void *ctx, const char *data, size_t len, struct at_err *err)
{
    struct seen *s = ctx;
    (void)data;
    (void)err;
    s->bytes += (int64_t)len;
    return AT_OK;
}

static enum at_rc on_entry_end(void *ctx, struct at_err *err)
{
    struct seen *s = ctx;
    (void)err;
    s->ends++;
    return AT_OK;
}

static enum at_rc read_in(const uint8_t *data, size_t size, size_t piece, struct seen *ret)
{
    const struct at_tar_events events = {
        .ctx = ret, .on_entry = on_entry, .on_data = on_data, .on_entry_end = on_entry_end};
    struct at_tar_reader *r = at_tar_reader_new(&events, 1 << 20);
    enum at_rc rc = AT_OK;
    for (size_t at = 0; at < size && rc == AT_OK; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        rc = at_tar_reader_feed(r, (const char *)data + at, n, NULL);
    }
    rc = rc != AT_OK ? rc : at_tar_reader_end(r, NULL);
    at_tar_reader_free(r);
    if (ret->bytes > ret->promised || (rc == AT_OK && ret->ends != ret->entries)) {
        abort();
    }
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen whole = {0}, pieces = {0};
    enum at_rc a = read_in(data, size, size > 0 ? size : 1, &whole);
    enum at_rc b = read_in(data, size, 7, &pieces);
    if (a != b || (a == AT_OK && memcmp(&whole, &pieces, sizeof whole) != 0)) {
        abort();
    }
    return 0;
}
