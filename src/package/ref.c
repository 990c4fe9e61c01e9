#include "package/ref.h"

#include "core/str.h"

#include <stdio.h>
#include <string.h>

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static bool all_of(const char *text, size_t len, const char *allowed)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\0' || strchr(allowed, text[i]) == NULL) {
            return false;
        }
    }
    return len > 0;
}

bool at_pkg_digest_is(const char *text, size_t len)
{
    return len == 71 && memcmp(text, "sha256:", 7) == 0 && all_of(text + 7, 64, DIGITS "abcdef");
}

bool at_pkg_tag_is(const char *tag, size_t len)
{
    return len <= 128 && all_of(tag, len, LOWER UPPER DIGITS "_.-") && tag[0] != '.' &&
           tag[0] != '-';
}

/* OCI distribution specification 1.1: lower-case words joined by ".", "_", "__" or dashes. */
static bool component_is(const char *text, size_t len)
{
    bool word = false;
    if (!all_of(text, len, LOWER DIGITS "._-")) {
        return false;
    }
    for (size_t i = 0; i < len;) {
        size_t run = strspn(text + i, LOWER DIGITS);
        if (run > 0) {
            word = true;
            i += run;
            continue;
        }
        char c = text[i];
        run = 0;
        while (i + run < len && text[i + run] == c) {
            run++;
        }
        if (!word || i + run >= len || (c == '.' && run > 1) || (c == '_' && run > 2)) {
            return false;
        }
        i += run;
        word = false;
    }
    return word;
}

static bool repository_is(struct at_str path)
{
    if (path.len == 0 || path.ptr[path.len - 1] == '/') {
        return false;
    }
    while (path.len > 0) {
        struct at_str one = at_str_cut(&path, '/');
        if (!component_is(one.ptr, one.len)) {
            return false;
        }
    }
    return true;
}

static bool host_is(const char *host, size_t len)
{
    const char *colon = memchr(host, ':', len);
    if (len > 0 && host[0] == '[') {
        const char *close = memchr(host, ']', len);
        if (close == NULL ||
            !all_of(host + 1, (size_t)(close - host) - 1, DIGITS "abcdefABCDEF:.")) {
            return false;
        }
        size_t rest = len - (size_t)(close - host) - 1;
        return rest == 0 || (close[1] == ':' && rest < 7 && all_of(close + 2, rest - 1, DIGITS));
    }
    size_t name = colon != NULL ? (size_t)(colon - host) : len;
    if (!all_of(host, name, LOWER UPPER DIGITS ".-") || host[0] == '-' || host[0] == '.') {
        return false;
    }
    return colon == NULL || (len - name - 1 < 6 && all_of(colon + 1, len - name - 1, DIGITS));
}

static enum at_rc copy(char *out, size_t size, const char *text, size_t len, struct at_err *err)
{
    if (len >= size) {
        return at_err_set(err, AT_INVALID, "a part of the package's name is too long");
    }
    memcpy(out, text, len);
    out[len] = '\0';
    return AT_OK;
}

/* Cuts "@sha256:..." off the end. */
static enum at_rc take_digest(const char *text, size_t *len, struct at_pkg_ref *ref,
                              struct at_err *err)
{
    const char *at = memrchr(text, '@', *len);
    if (at == NULL) {
        return AT_OK;
    }
    size_t n = *len - (size_t)(at - text) - 1;
    if (!at_pkg_digest_is(at + 1, n)) {
        return at_err_set(err, AT_INVALID,
                          "%.200s: what follows @ must be sha256: and 64 hex digits", text);
    }
    *len = (size_t)(at - text);
    return copy(ref->digest, sizeof ref->digest, at + 1, n, err);
}

static enum at_rc parse_registry(const char *text, struct at_pkg_ref *ref, struct at_err *err)
{
    size_t len = strlen(text);
    enum at_rc rc = take_digest(text, &len, ref, err);
    if (rc != AT_OK) {
        return rc;
    }
    const char *slash = memchr(text, '/', len);
    if (slash == NULL || !host_is(text, (size_t)(slash - text))) {
        return at_err_set(err, AT_INVALID,
                          "%.200s: write oci://HOST[:PORT]/REPOSITORY:TAG or @sha256:...", text);
    }
    const char *path = slash + 1;
    size_t path_len = len - (size_t)(path - text);
    const char *colon = memrchr(path, ':', path_len);
    if (colon != NULL) {
        size_t n = path_len - (size_t)(colon - path) - 1;
        if (!at_pkg_tag_is(colon + 1, n)) {
            return at_err_set(err, AT_INVALID,
                              "%.200s: a tag has up to 128 letters, digits, dots, dashes and "
                              "underscores",
                              text);
        }
        rc = copy(ref->tag, sizeof ref->tag, colon + 1, n, err);
        path_len = (size_t)(colon - path);
    }
    if (rc == AT_OK && (path_len > 255 || !repository_is((struct at_str){path, path_len}))) {
        return at_err_set(err, AT_INVALID,
                          "%.200s: a repository is lower-case words with . _ - between them, "
                          "joined by slashes",
                          text);
    }
    rc = rc != AT_OK ? rc : copy(ref->path, sizeof ref->path, path, path_len, err);
    return rc != AT_OK ? rc : copy(ref->host, sizeof ref->host, text, (size_t)(slash - text), err);
}

static enum at_rc parse_local(const char *text, struct at_pkg_ref *ref, struct at_err *err)
{
    if (strncmp(text, "///", 3) == 0) {
        text += 2; /* as in file:///path */
    }
    size_t len = strlen(text);
    enum at_rc rc = take_digest(text, &len, ref, err);
    const char *colon = memchr(text, ':', len);
    if (rc == AT_OK && colon != NULL) {
        rc = copy(ref->tag, sizeof ref->tag, colon + 1, len - (size_t)(colon - text) - 1, err);
        len = (size_t)(colon - text);
    }
    if (rc == AT_OK && len == 0) {
        rc = at_err_set(err, AT_INVALID, "a path must follow oci-layout: and oci-archive:");
    }
    return rc != AT_OK ? rc : copy(ref->path, sizeof ref->path, text, len, err);
}

enum at_rc at_pkg_ref_parse(const char *text, struct at_pkg_ref *ret, struct at_err *err)
{
    struct at_pkg_ref ref = {0};
    enum at_rc rc;
    if (strlen(text) >= PKG_REF_BYTES_MAX) {
        return at_err_set(err, AT_INVALID, "a package's name has at most %d bytes",
                          PKG_REF_BYTES_MAX - 1);
    }
    for (const char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            return at_err_set(err, AT_INVALID, "a package's name has no control characters");
        }
    }
    if (strncmp(text, "oci-layout:", 11) == 0) {
        ref.place = AT_PKG_LAYOUT;
        rc = parse_local(text + 11, &ref, err);
    } else if (strncmp(text, "oci-archive:", 12) == 0) {
        ref.place = AT_PKG_ARCHIVE;
        rc = parse_local(text + 12, &ref, err);
    } else {
        const char *rest = strncmp(text, "oci://", 6) == 0      ? text + 6
                           : strncmp(text, "docker://", 9) == 0 ? text + 9
                                                                : text;
        size_t host = strcspn(rest, "/");
        bool looks_like_host = rest != text || memchr(rest, '.', host) != NULL ||
                               memchr(rest, ':', host) != NULL ||
                               at_str_eq((struct at_str){rest, host}, "localhost");
        if (!looks_like_host || rest[0] == '.') {
            return at_err_set(
                err, AT_INVALID,
                "%.200s: write oci://HOST[:PORT]/REPOSITORY:TAG, oci-layout:FOLDER or "
                "oci-archive:FILE.tar",
                text);
        }
        rc = parse_registry(rest, &ref, err);
    }
    if (rc == AT_OK) {
        *ret = ref;
    }
    return rc;
}

void at_pkg_ref_format(const struct at_pkg_ref *ref, char *out, size_t size)
{
    static const char *const PREFIXES[] = {
        [AT_PKG_REGISTRY] = "", [AT_PKG_LAYOUT] = "oci-layout:", [AT_PKG_ARCHIVE] = "oci-archive:"};
    snprintf(out, size, "%s%s%s%s%s%s%s%s", PREFIXES[ref->place], ref->host,
             ref->place == AT_PKG_REGISTRY ? "/" : "", ref->path, ref->tag[0] != '\0' ? ":" : "",
             ref->tag, ref->digest[0] != '\0' ? "@" : "", ref->digest);
}

const char *at_pkg_ref_wanted(const struct at_pkg_ref *ref)
{
    return ref->digest[0] != '\0' ? ref->digest : ref->tag[0] != '\0' ? ref->tag : "latest";
}
