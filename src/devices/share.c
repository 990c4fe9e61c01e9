#include "devices/share.h"

#include "core/buf.h"
#include "core/mem.h"
#include "core/str.h"
#include "devices/library.h"
#include "sys/file.h"

#include <stddef.h>
#include <string.h>

#define HOST_PRELOAD "/etc/ld.so.preload"
#define HOST_PRELOAD_BYTES_MAX ((size_t)64 << 10)
#define SAID_MAX (INT64_C(1) << 50) /* bytes, ns: more is no number */

bool at_share_is_enforceable(const char *id)
{
    uint8_t unused[AT_SHARE_UUID_BYTES];
    return at_share_parse_id(id, unused);
}

static uint64_t positive(int64_t value)
{
    return value > 0 ? (uint64_t)value : 0;
}

static char *path_of(const char *dir, const char *name)
{
    return at_asprintf("%s/%s", dir, name);
}

static enum at_rc write_limits(const char *dir, const struct at_share_want *wants, size_t n,
                               struct at_err *err)
{
    struct at_share_limits page = {
        .magic = AT_SHARE_MAGIC, .n_devices = n, .period_us = AT_SHARE_PERIOD_US};
    for (size_t d = 0; d < n; d++) {
        if (!at_share_parse_id(wants[d].id, page.devices[d].uuid)) {
            return at_err_set(err, AT_INVALID, "no share of a GPU called %s can be enforced",
                              wants[d].id);
        }
        page.devices[d].memory_bytes = positive(wants[d].memory_bytes);
        page.devices[d].spill_bytes = positive(wants[d].spill_bytes);
    }
    AT_CLEANUP(at_cleanup_free) char *path = path_of(dir, AT_SHARE_LIMITS_NAME);
    /* One that is mapped is changed in place: a new file would be a page that nobody reads. */
    return at_file_size(path) == (int64_t)sizeof page
               ? at_file_write_at(path, 0, &page, sizeof page, err)
               : at_file_write_atomic(path, &page, sizeof page, 0644, err);
}

static enum at_rc write_usage(const char *dir, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = path_of(dir, AT_SHARE_USAGE_NAME);
    if (at_file_size(path) == (int64_t)sizeof(struct at_share_usage)) {
        return AT_OK;
    }
    AT_CLEANUP(at_cleanup_free) struct at_share_usage *page = AT_NEW(struct at_share_usage);
    page->magic = AT_SHARE_MAGIC;
    enum at_rc rc = at_file_write_atomic(path, page, sizeof *page, 0666, err);
    return rc == AT_OK ? at_file_chmod(path, 0666, err) : rc;
}

/* What the machine preloads everywhere stays; ours comes after it. */
static enum at_rc write_preload(const char *dir, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_free) char *path = path_of(dir, "preload");
    if (at_file_exists(HOST_PRELOAD) &&
        at_file_read(HOST_PRELOAD, HOST_PRELOAD_BYTES_MAX, &text, NULL) != AT_OK) {
        text.len = 0;
    }
    enum at_rc rc = at_buf_printf(&text, "%s%s/" AT_SHARE_LIBRARY_NAME "\n",
                                  text.len > 0 && text.data[text.len - 1] != '\n' ? "\n" : "", dir);
    return rc == AT_OK ? at_file_write_atomic(path, text.data, text.len, 0644, err) : rc;
}

enum at_rc at_share_make(const char *dir, const struct at_share_want *wants, size_t n,
                         struct at_err *err)
{
    if (n > AT_SHARE_DEVICES_MAX) {
        return at_err_set(err, AT_INVALID, "a share of more than %d GPUs", AT_SHARE_DEVICES_MAX);
    }
    AT_CLEANUP(at_cleanup_free) char *library = path_of(dir, AT_SHARE_LIBRARY_NAME);
    enum at_rc rc = at_dir_make(dir, 0711, err);
    rc = rc == AT_OK ? write_limits(dir, wants, n, err) : rc;
    rc = rc == AT_OK ? write_usage(dir, err) : rc;
    rc = rc == AT_OK ? write_preload(dir, err) : rc;
    if (rc == AT_OK && at_file_size(library) != (int64_t)at_share_library_bytes) {
        rc = at_file_write_atomic(library, at_share_library, at_share_library_bytes, 0755, err);
    }
    return rc;
}

static enum at_rc put(const char *dir, size_t device, size_t at, const void *value, size_t len,
                      struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = path_of(dir, AT_SHARE_LIMITS_NAME);
    size_t offset =
        offsetof(struct at_share_limits, devices) + device * sizeof(struct at_share_limit) + at;
    return at_file_write_at(path, (int64_t)offset, value, len, err);
}

enum at_rc at_share_set_memory(const char *dir, size_t device, int64_t memory_bytes,
                               int64_t spill_bytes, struct at_err *err)
{
    uint64_t memory = positive(memory_bytes), spill = positive(spill_bytes);
    enum at_rc rc = put(dir, device, offsetof(struct at_share_limit, memory_bytes), &memory,
                        sizeof memory, err);
    return rc == AT_OK ? put(dir, device, offsetof(struct at_share_limit, spill_bytes), &spill,
                             sizeof spill, err)
                       : rc;
}

enum at_rc at_share_set_beside(const char *dir, size_t device, int64_t bytes, struct at_err *err)
{
    uint64_t value = positive(bytes);
    return put(dir, device, offsetof(struct at_share_limit, beside_bytes), &value, sizeof value,
               err);
}

enum at_rc at_share_set_slot(const char *dir, size_t device, int64_t offset_us, int64_t length_us,
                             struct at_err *err)
{
    uint64_t value = AT_SHARE_SLOT(offset_us, length_us);
    return put(dir, device, offsetof(struct at_share_limit, slot), &value, sizeof value, err);
}

enum at_rc at_share_set_mps(const char *dir, const char *pipe, int64_t percent,
                            int64_t memory_bytes, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = path_of(dir, AT_SHARE_LIMITS_NAME);
    struct at_share_mps mps = {0};
    size_t len = pipe != NULL ? strlen(pipe) : 0;
    if (len >= sizeof mps.pipe) {
        return at_err_set(err, AT_TOO_LARGE, "%s is too long a path", pipe);
    }
    if (pipe != NULL) {
        mps.percent = positive(percent);
        mps.memory_mib = (positive(memory_bytes) + (1 << 20) - 1) >> 20;
        memcpy(mps.pipe, pipe, len + 1);
    }
    return at_file_write_at(path, offsetof(struct at_share_limits, mps), &mps, sizeof mps, err);
}

static int64_t bounded(int64_t value)
{
    return value < 0 ? 0 : value > SAID_MAX ? SAID_MAX : value;
}

/* Read, not mapped: the instance may cut the file off under us. */
static bool read_part(const char *path, size_t offset, void *ret, size_t bytes)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    size_t len = 0;
    if (at_file_read_at(path, (int64_t)offset, bytes, &text, &len, NULL) != AT_OK || len != bytes) {
        return false;
    }
    memcpy(ret, text.data, bytes);
    return true;
}

void at_share_see(const char *dir, size_t n, struct at_share_seen ret[AT_SHARE_DEVICES_MAX])
{
    AT_CLEANUP(at_cleanup_free) char *path = path_of(dir, AT_SHARE_USAGE_NAME);
    AT_CLEANUP(at_cleanup_free) struct at_share_usage *page = AT_NEW(struct at_share_usage);
    size_t head = offsetof(struct at_share_usage, processes);
    memset(ret, 0, AT_SHARE_DEVICES_MAX * sizeof *ret);
    if (!read_part(path, 0, page, head)) {
        return;
    }
    size_t rows = page->rows < AT_SHARE_PROCESSES_MAX ? page->rows : AT_SHARE_PROCESSES_MAX;
    if (rows > 0 && !read_part(path, head, page->processes, rows * sizeof page->processes[0])) {
        return;
    }
    for (size_t d = 0; d < n && d < AT_SHARE_DEVICES_MAX; d++) {
        const struct at_share_count *c = &page->counts[d];
        ret[d] = (struct at_share_seen){.launches = bounded((int64_t)c->launches),
                                        .waited_ns = bounded((int64_t)c->waited_ns),
                                        .refused = bounded((int64_t)c->refused)};
        for (size_t row = 0; row < rows; row++) {
            const struct at_share_use *use = &page->processes[row].devices[d];
            ret[d].memory_bytes = bounded(ret[d].memory_bytes + bounded(use->memory_bytes));
            ret[d].spill_bytes = bounded(ret[d].spill_bytes + bounded(use->spill_bytes));
        }
    }
}
