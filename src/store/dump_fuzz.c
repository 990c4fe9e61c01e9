#include "core/buf.h"
#include "store/dump.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum at_rc on_key(void *ctx, const struct at_store_kv *kv, struct at_err *err)
{
    (void)err;
    assert(strlen(kv->key) > 0);
    assert(kv->create_rev <= kv->mod_rev);
    return at_dump_write_key(*(struct at_dump_writer **)ctx, kv);
}

static enum at_rc on_file(void *ctx, const char *name, const char *text, size_t len,
                          struct at_err *err)
{
    (void)err;
    assert(name[0] != '/');
    assert(name[0] != '.');
    assert(strstr(name, "/.") == NULL);
    return at_dump_write_file(*(struct at_dump_writer **)ctx, name, text, len);
}

/* What is read, written again, reads the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_buf out = {0};
    struct at_dump_writer *writer = NULL;
    enum at_rc rc = at_dump_writer_new(INT64_C(1) << 53, 0, &out, &writer);
    assert(rc == AT_OK);
    struct at_dump_events events = {.ctx = &writer, .key = on_key, .file = on_file};
    struct at_dump_reader *reader = at_dump_reader_new(&events);
    struct at_dump_summary summary;
    size_t half = size / 2;
    struct at_err err = {0};
    rc = at_dump_reader_feed(reader, data, half, &err);
    if (rc == AT_OK) {
        rc = at_dump_reader_feed(reader, data + half, size - half, &err);
    }
    if (rc == AT_OK) {
        rc = at_dump_reader_end(reader, &summary, &err);
    }
    if (rc == AT_OK) {
        struct at_dump_summary again;
        struct at_dump_reader *second = at_dump_reader_new(NULL);
        rc = at_dump_write_end(writer);
        assert(rc == AT_OK);
        rc = at_dump_reader_feed(second, out.data, out.len, &err);
        assert(rc == AT_OK);
        rc = at_dump_reader_end(second, &again, &err);
        assert(rc == AT_OK);
        assert(again.keys == summary.keys);
        assert(again.files == summary.files);
        at_dump_reader_free(second);
    }
    at_dump_reader_free(reader);
    at_dump_writer_free(writer);
    at_buf_done(&out);
    return 0;
}
