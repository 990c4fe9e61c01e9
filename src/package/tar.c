#include "package/tar.h"

#include "core/mem.h"
#include "core/str.h"
#include "package/limits.h"
#include "package/oci.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define META_BYTES_MAX ((size_t)64 << 10) /* of a pax header or long name */

/* ustar, POSIX.1-2001 (pax, "ustar Interchange Format"). */
struct ustar {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8];
    char type, link[100], magic[6], version[2], uname[32], gname[32], major[8], minor[8];
    char prefix[155], padding[12];
};
_Static_assert(sizeof(struct ustar) == AT_TAR_BLOCK, "a tar header is one block");

enum tar_state { HEAD, META, FILE_BYTES, PADDING, AFTER_END, BROKEN };

struct at_tar_reader {
    struct at_tar_events events;
    enum tar_state state;
    char block[AT_TAR_BLOCK];
    size_t block_len;
    int64_t left;       /* of the entry's bytes */
    size_t padding;     /* after them */
    int64_t bytes_left; /* of all */
    size_t entries, zero_blocks;
    char meta_type;
    struct at_buf meta;
    char *next_path;   /* by a pax header or a long name; NULL: none */
    int64_t next_size; /* -1: none */
};

struct at_tar_reader *at_tar_reader_new(const struct at_tar_events *events, int64_t bytes_max)
{
    struct at_tar_reader *r = AT_NEW(struct at_tar_reader);
    r->events = *events;
    r->bytes_left = bytes_max;
    r->next_size = -1;
    at_buf_init(&r->meta, META_BYTES_MAX);
    return r;
}

void at_tar_reader_free(struct at_tar_reader *reader)
{
    if (reader != NULL) {
        at_buf_done(&reader->meta);
        at_free(reader->next_path);
        at_free(reader);
    }
}

/* Octal with blanks or NULs around, or base 256 with the first bit set. -1: neither. */
static int64_t number(const char *field, size_t len)
{
    const unsigned char *p = (const unsigned char *)field;
    uint64_t value = 0;
    size_t i = 0;
    if (p[0] == 0x80) {
        for (i = 1; i < len; i++) {
            if (value >> 55 != 0) {
                return -1;
            }
            value = value << 8 | p[i];
        }
        return (int64_t)value;
    }
    while (i < len && p[i] == ' ') {
        i++;
    }
    for (; i < len && p[i] >= '0' && p[i] <= '7'; i++) {
        value = value << 3 | (uint64_t)(p[i] - '0');
    }
    for (; i < len; i++) {
        if (p[i] != ' ' && p[i] != '\0') {
            return -1;
        }
    }
    return (int64_t)value;
}

static bool checksum_fits(const char *block)
{
    const struct ustar *h = (const struct ustar *)block;
    int64_t sum = 0;
    for (size_t i = 0; i < AT_TAR_BLOCK; i++) {
        bool inside = i >= offsetof(struct ustar, checksum) &&
                      i < offsetof(struct ustar, checksum) + sizeof h->checksum;
        sum += inside ? ' ' : (unsigned char)block[i];
    }
    return number(h->checksum, sizeof h->checksum) == sum;
}

/* path and size of the next entry from "LENGTH key=value\n" records. */
static enum at_rc read_pax(struct at_tar_reader *r, struct at_err *err)
{
    struct at_str rest = {r->meta.data, r->meta.len};
    while (rest.len > 0) {
        struct at_str all = rest;
        uint64_t len = 0;
        struct at_str digits = at_str_cut(&rest, ' ');
        if (at_str_to_u64(digits, &len) != AT_OK || len > all.len || len < digits.len + 4 ||
            all.ptr[len - 1] != '\n') {
            return at_err_set(err, AT_CORRUPT, "a pax header of the archive is broken");
        }
        struct at_str value = {all.ptr + digits.len + 1, len - digits.len - 2};
        struct at_str key = at_str_cut(&value, '=');
        int64_t size = 0;
        if (at_str_eq(key, "path")) {
            at_free(r->next_path);
            r->next_path = at_strndup(value.ptr, value.len);
            if (strlen(r->next_path) != value.len) {
                return at_err_set(err, AT_CORRUPT, "a path in the archive has a NUL in it");
            }
        } else if (at_str_eq(key, "size")) {
            if (at_str_to_i64(value, &size) != AT_OK || size < 0) {
                return at_err_set(err, AT_CORRUPT, "a size in the archive is no number");
            }
            r->next_size = size;
        } else if (at_str_starts(key, "GNU.sparse")) {
            return at_err_set(err, AT_UNSUPPORTED, "the archive has sparse files");
        }
        rest = (struct at_str){all.ptr + len, all.len - len};
    }
    return AT_OK;
}

static enum at_rc meta_done(struct at_tar_reader *r, struct at_err *err)
{
    enum at_rc rc = AT_OK;
    if (r->meta_type == 'x') {
        rc = read_pax(r, err);
    } else if (r->meta_type == 'L') {
        at_free(r->next_path);
        r->next_path = at_strndup(r->meta.data != NULL ? r->meta.data : "",
                                  strnlen(r->meta.data != NULL ? r->meta.data : "", r->meta.len));
    }
    at_buf_clear(&r->meta);
    return rc;
}

static char *own_path(const struct ustar *h)
{
    int name = (int)strnlen(h->name, sizeof h->name);
    int prefix = memcmp(h->magic, "ustar", 6) == 0 ? (int)strnlen(h->prefix, sizeof h->prefix) : 0;
    return at_asprintf("%.*s%s%.*s", prefix, h->prefix, prefix > 0 ? "/" : "", name, h->name);
}

static const char *type_name(char type)
{
    switch (type) {
    case '1':
        return "a hard link";
    case '2':
        return "a symbolic link";
    case '3':
    case '4':
        return "a device";
    case '6':
        return "a pipe";
    default:
        return "of a kind that is not known";
    }
}

/* A folder or a file begins; path is owned here. */
static enum at_rc entry_begin(struct at_tar_reader *r, const struct ustar *h, char *path,
                              int64_t size, struct at_err *err)
{
    char why[64];
    bool folder = h->type == '5';
    char *at = path;
    size_t len = strlen(path);
    if (h->type != '0' && h->type != '\0' && h->type != '5' && h->type != '7') {
        return at_err_set(err, AT_FORBIDDEN, "the archive has %.200s, which is %s", path,
                          type_name(h->type));
    }
    while (at[0] == '.' && at[1] == '/') {
        at += 2;
        len -= 2;
    }
    if (folder && len > 0 && at[len - 1] == '/') {
        at[--len] = '\0';
    }
    if (folder && (len == 0 || strcmp(at, ".") == 0)) {
        return AT_OK;
    }
    if (!at_pkg_path_is_safe(at, why, sizeof why)) {
        return at_err_set(err, AT_FORBIDDEN, "the archive has the path %.200s: %s", path, why);
    }
    if (++r->entries > PKG_TAR_ENTRIES_MAX || size > r->bytes_left) {
        return at_err_set(err, AT_TOO_LARGE, "the archive has too many files, or too large ones");
    }
    r->bytes_left -= size;
    int64_t mode = number(h->mode, sizeof h->mode);
    struct at_tar_entry entry = {.path = at,
                                 .bytes = folder ? 0 : size,
                                 .is_folder = folder,
                                 .executable = mode > 0 && (mode & 0111) != 0};
    enum at_rc rc = r->events.on_entry(r->events.ctx, &entry, err);
    if (rc == AT_OK && size == 0) {
        rc = r->events.on_entry_end(r->events.ctx, err);
    }
    return rc;
}

static enum at_rc head(struct at_tar_reader *r, struct at_err *err)
{
    static const char ZEROS[AT_TAR_BLOCK];
    const struct ustar *h = (const struct ustar *)r->block;
    r->block_len = 0;
    if (memcmp(r->block, ZEROS, AT_TAR_BLOCK) == 0) {
        r->state = ++r->zero_blocks == 2 ? AFTER_END : HEAD;
        return AT_OK;
    }
    int64_t size = number(h->size, sizeof h->size);
    if (!checksum_fits(r->block) || size < 0 || r->zero_blocks > 0) {
        return at_err_set(err, AT_CORRUPT, "it is no tar archive, or a broken one");
    }
    bool meta = h->type == 'x' || h->type == 'g' || h->type == 'L' || h->type == 'K';
    if (meta) {
        if (size > (int64_t)META_BYTES_MAX) {
            return at_err_set(err, AT_TOO_LARGE, "a header of the archive is too large");
        }
        r->meta_type = h->type;
        r->left = size;
        r->padding = at_tar_padding(size);
        r->state = META;
        return AT_OK;
    }
    size = r->next_size >= 0 ? r->next_size : size;
    size = h->type == '5' ? 0 : size;
    AT_CLEANUP(at_cleanup_free) char *path = r->next_path != NULL ? r->next_path : own_path(h);
    r->next_path = NULL;
    r->next_size = -1;
    enum at_rc rc = entry_begin(r, h, path, size, err);
    r->left = size;
    r->padding = at_tar_padding(size);
    r->state = size > 0 ? FILE_BYTES : HEAD;
    return rc;
}

/* Some bytes of what is under way; *used: how many. */
static enum at_rc step(struct at_tar_reader *r, const char *data, size_t len, size_t *used,
                       struct at_err *err)
{
    size_t n;
    enum at_rc rc = AT_OK;
    switch (r->state) {
    case HEAD:
        n = AT_TAR_BLOCK - r->block_len;
        n = n < len ? n : len;
        memcpy(r->block + r->block_len, data, n);
        r->block_len += n;
        *used = n;
        return r->block_len == AT_TAR_BLOCK ? head(r, err) : AT_OK;
    case META:
    case FILE_BYTES:
        n = (int64_t)len < r->left ? len : (size_t)r->left;
        rc = r->state == META ? at_buf_append(&r->meta, data, n)
                              : r->events.on_data(r->events.ctx, data, n, err);
        r->left -= (int64_t)n;
        *used = n;
        if (rc == AT_OK && r->left == 0) {
            rc = r->state == META ? meta_done(r, err) : r->events.on_entry_end(r->events.ctx, err);
            r->state = r->padding > 0 ? PADDING : HEAD;
        }
        return rc;
    case PADDING:
        n = len < r->padding ? len : r->padding;
        r->padding -= n;
        *used = n;
        r->state = r->padding == 0 ? HEAD : PADDING;
        return AT_OK;
    default:
        *used = len; /* blocks after the end belong to the medium */
        return AT_OK;
    }
}

enum at_rc at_tar_reader_feed(struct at_tar_reader *r, const char *data, size_t len,
                              struct at_err *err)
{
    if (r->state == BROKEN) {
        return at_err_set(err, AT_CORRUPT, "it is no tar archive, or a broken one");
    }
    while (len > 0) {
        size_t used = 0;
        enum at_rc rc = step(r, data, len, &used, err);
        /* An empty header has nothing to wait for. */
        if (rc == AT_OK && r->state == META && r->left == 0) {
            rc = meta_done(r, err);
            r->state = HEAD;
        }
        if (rc != AT_OK) {
            r->state = BROKEN;
            return rc;
        }
        data += used;
        len -= used;
    }
    return AT_OK;
}

enum at_rc at_tar_reader_end(struct at_tar_reader *r, struct at_err *err)
{
    bool whole = r->state == AFTER_END || (r->state == HEAD && r->block_len == 0);
    return whole && (r->entries > 0 || r->zero_blocks > 0)
               ? AT_OK
               : at_err_set(err, AT_CORRUPT, "the archive is cut off");
}

/* --- writing --- */

size_t at_tar_padding(int64_t bytes)
{
    return (size_t)((AT_TAR_BLOCK - bytes % AT_TAR_BLOCK) % AT_TAR_BLOCK);
}

static enum at_rc put_block(struct ustar *h, const char *name, int64_t bytes, char type,
                            unsigned mode, struct at_buf *out)
{
    memset(h, 0, sizeof *h);
    snprintf(h->name, sizeof h->name, "%s", name);
    if (strlen(name) == sizeof h->name) {
        memcpy(h->name, name, sizeof h->name); /* no NUL is needed */
    }
    snprintf(h->mode, sizeof h->mode, "%07o", mode & 07777);
    snprintf(h->uid, sizeof h->uid, "%07o", 0);
    snprintf(h->gid, sizeof h->gid, "%07o", 0);
    snprintf(h->size, sizeof h->size, "%011llo",
             (unsigned long long)(bytes < (INT64_C(1) << 33) ? bytes : 0));
    snprintf(h->mtime, sizeof h->mtime, "%011o", 0);
    h->type = type;
    memcpy(h->magic, "ustar", 6);
    memcpy(h->version, "00", 2);
    memset(h->checksum, ' ', sizeof h->checksum);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof *h; i++) {
        sum += ((unsigned char *)h)[i];
    }
    snprintf(h->checksum, sizeof h->checksum, "%06o", sum);
    return at_buf_append(out, h, sizeof *h);
}

/* "LENGTH key=value\n", where LENGTH counts itself. */
static enum at_rc pax_record(struct at_buf *out, const char *key, const char *value)
{
    size_t rest = strlen(key) + strlen(value) + 3;
    size_t len = rest + 1;
    char digits[24];
    for (int i = 0; i < 3; i++) {
        len = rest + (size_t)snprintf(digits, sizeof digits, "%zu", len);
    }
    return at_buf_printf(out, "%zu %s=%s\n", len, key, value);
}

enum at_rc at_tar_head(const char *path, int64_t bytes, bool is_folder, unsigned mode,
                       struct at_buf *out)
{
    static const char ZEROS[AT_TAR_BLOCK];
    struct ustar h;
    AT_CLEANUP(at_cleanup_buf) struct at_buf pax = {0};
    char size[24];
    enum at_rc rc = AT_OK;
    assert(bytes >= 0);
    AT_CLEANUP(at_cleanup_free)
    char *name = at_asprintf("%s%s", path, is_folder ? "/" : "");
    if (strlen(name) > sizeof h.name) {
        rc = pax_record(&pax, "path", name);
    }
    if (rc == AT_OK && bytes >= (INT64_C(1) << 33)) {
        snprintf(size, sizeof size, "%lld", (long long)bytes);
        rc = pax_record(&pax, "size", size);
    }
    if (rc == AT_OK && pax.len > 0) {
        rc = put_block(&h, "pax", (int64_t)pax.len, 'x', 0644, out);
        rc = rc != AT_OK ? rc : at_buf_append(out, pax.data, pax.len);
        rc = rc != AT_OK ? rc : at_buf_append(out, ZEROS, at_tar_padding((int64_t)pax.len));
    }
    return rc != AT_OK ? rc : put_block(&h, name, bytes, is_folder ? '5' : '0', mode, out);
}
