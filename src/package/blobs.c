/* Manifests and blobs, to and from a registry. */
#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "package/registry_priv.h"
#include "sys/entry.h"
#include "sys/fd.h"

#include <stdio.h>
#include <string.h>

#define ACCEPT                                                                                     \
    "Accept: " AT_PKG_TYPE_MANIFEST ", " AT_PKG_TYPE_INDEX ", " AT_PKG_TYPE_DOCKER_MANIFEST        \
    ", " AT_PKG_TYPE_DOCKER_LIST

static void told(const struct at_pkg_session *s, int64_t bytes)
{
    const struct at_pkg_registry_options *o = &s->registry->options;
    if (o->on_bytes != NULL && bytes != 0) {
        o->on_bytes(o->ctx, bytes);
    }
}

/* --- manifests --- */

static enum at_rc collect(void *ctx, const char *data, size_t len, struct at_err *err)
{
    return at_buf_append(ctx, data, len) == AT_OK
               ? AT_OK
               : at_err_set(err, AT_TOO_LARGE, "a manifest is larger than %zu bytes",
                            PKG_DOCUMENT_BYTES_MAX);
}

static enum at_rc manifest_try(struct at_pkg_session *s, const char *wanted, struct at_buf *text,
                               struct at_err *err)
{
    const struct at_pkg_registry_options *o = &s->registry->options;
    AT_CLEANUP(at_cleanup_free)
    char *url = at_asprintf("/v2/%s/manifests/%s", o->repository, wanted);
    AT_CLEANUP(at_cleanup_free) char *what = at_asprintf("%s:%s", o->repository, wanted);
    struct at_pkg_http_request q = {
        .method = "GET", .url = url, .headers = {ACCEPT}, .ctx = text, .on_body = collect};
    at_buf_clear(text);
    enum at_rc rc = at_pkg_call(s, &q, err);
    if (rc == AT_OK && s->answer.status != 200) {
        rc = at_pkg_refusal(s, what, err);
    }
    return rc;
}

enum at_rc at_pkg_manifest_get(struct at_pkg_session *s, const char *wanted, struct at_buf *out,
                               char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    unsigned tries = 0;
    enum at_rc rc;
    do {
        rc = manifest_try(s, wanted, &text, err);
    } while (rc != AT_OK && at_pkg_again(s, rc, &tries));
    if (rc != AT_OK) {
        return rc;
    }
    char hex[AT_SHA256_HEX_BYTES], digest[AT_PKG_DIGEST_BYTES];
    at_sha256_hex(text.data != NULL ? text.data : "", text.len, hex);
    snprintf(digest, sizeof digest, "sha256:%s", hex);
    const char *promised = at_pkg_digest_is(wanted, strlen(wanted)) ? wanted : s->answer.digest;
    if (promised[0] != '\0' && strcmp(promised, digest) != 0) {
        return at_err_set(err, AT_CORRUPT,
                          "registry %s answers with a manifest of digest %s, %s is wanted",
                          s->registry->options.host, digest, promised);
    }
    memcpy(ret_digest, digest, sizeof digest);
    return at_buf_append(out, text.data, text.len);
}

enum at_rc at_pkg_manifest_put(struct at_pkg_session *s, const char *wanted, const char *media_type,
                               const void *text, size_t len, struct at_err *err)
{
    const struct at_pkg_registry_options *o = &s->registry->options;
    AT_CLEANUP(at_cleanup_free)
    char *url = at_asprintf("/v2/%s/manifests/%s", o->repository, wanted);
    AT_CLEANUP(at_cleanup_free) char *type = at_asprintf("Content-Type: %s", media_type);
    AT_CLEANUP(at_cleanup_free)
    char *what = at_asprintf("putting %s:%s", o->repository, wanted);
    struct at_pkg_http_request q = {
        .method = "PUT", .url = url, .headers = {type}, .body = text, .body_len = (int64_t)len};
    unsigned tries = 0;
    enum at_rc rc;
    do {
        rc = at_pkg_call(s, &q, err);
        if (rc == AT_OK && s->answer.status != 201 && s->answer.status != 200) {
            rc = at_pkg_refusal(s, what, err);
        }
    } while (rc != AT_OK && at_pkg_again(s, rc, &tries));
    return rc;
}

/* --- blobs, in --- */

struct download {
    struct at_pkg_session *session;
    const struct at_pkg_descriptor *blob;
    int fd;
    int64_t have;
    int64_t arrived; /* in this try */
};

/* 206 goes on where we are, 200 begins anew whatever was asked for. */
static enum at_rc get_head(void *ctx, int status, struct at_err *err)
{
    struct download *d = ctx;
    const struct at_pkg_http_answer *a = &d->session->answer;
    int64_t wanted = d->blob->bytes;
    if (status == 206 && a->range_from != d->have) {
        return at_err_set(err, AT_CORRUPT, "it sends bytes from %lld, from %lld was asked",
                          (long long)a->range_from, (long long)d->have);
    }
    if (status != 206 && d->have > 0) {
        told(d->session, -d->have);
        d->have = 0;
        enum at_rc rc = at_entry_cut(d->fd, 0, err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    if (a->length >= 0 && a->length != wanted - d->have) {
        return at_err_set(err, AT_CORRUPT, "it says that %s has %lld bytes, the manifest says %lld",
                          d->blob->digest, (long long)(a->length + d->have), (long long)wanted);
    }
    return AT_OK;
}

static enum at_rc get_body(void *ctx, const char *data, size_t len, struct at_err *err)
{
    struct download *d = ctx;
    if ((int64_t)len > d->blob->bytes - d->have) {
        return at_err_set(err, AT_CORRUPT,
                          "it sends more for %s than the %lld bytes of the manifest",
                          d->blob->digest, (long long)d->blob->bytes);
    }
    enum at_rc rc = at_entry_write(d->fd, data, len, err);
    if (rc == AT_OK) {
        d->have += (int64_t)len;
        d->arrived += (int64_t)len;
        told(d->session, (int64_t)len);
    }
    return rc;
}

static enum at_rc get_try(struct download *d, struct at_err *err)
{
    struct at_pkg_session *s = d->session;
    const struct at_pkg_registry_options *o = &s->registry->options;
    char range[64];
    AT_CLEANUP(at_cleanup_free)
    char *url = at_asprintf("/v2/%s/blobs/%s", o->repository, d->blob->digest);
    struct at_pkg_http_request q = {
        .method = "GET", .url = url, .ctx = d, .on_head = get_head, .on_body = get_body};
    d->arrived = 0;
    if (d->have > 0) {
        snprintf(range, sizeof range, "Range: bytes=%lld-", (long long)d->have);
        q.headers[0] = range;
    }
    enum at_rc rc = at_pkg_call(s, &q, err);
    if (rc == AT_OK && s->answer.status == 416 && d->have > 0) {
        told(s, -d->have);
        d->have = 0; /* it has another opinion of what there is: all of it again */
        rc = at_entry_cut(d->fd, 0, err);
        return rc != AT_OK
                   ? rc
                   : at_err_set(err, AT_UNAVAILABLE, "registry %s has no such range", o->host);
    }
    if (rc == AT_OK && s->answer.status != 200 && s->answer.status != 206) {
        return at_pkg_refusal(s, d->blob->digest, err);
    }
    if (rc == AT_OK && d->have < d->blob->bytes) {
        rc = at_err_set(err, AT_UNAVAILABLE, "registry %s ended %s after %lld of %lld bytes",
                        o->host, d->blob->digest, (long long)d->have, (long long)d->blob->bytes);
    }
    return rc;
}

/* An empty blob and a complete part need no question. */
static enum at_rc fetch(struct download *d, struct at_err *err)
{
    unsigned tries = 0;
    enum at_rc rc = AT_OK;
    while (d->have < d->blob->bytes) {
        rc = get_try(d, err);
        tries = d->arrived >= PKG_PROGRESS_BYTES ? 0 : tries;
        if (rc != AT_OK && !at_pkg_again(d->session, rc, &tries)) {
            return rc;
        }
    }
    return AT_OK;
}

enum at_rc at_pkg_blob_get(struct at_pkg_session *s, const struct at_pkg_descriptor *blob,
                           const struct at_pkg_store *store, struct at_err *err)
{
    struct download d = {.session = s, .blob = blob, .fd = -1};
    int64_t resumed = 0;
    enum at_rc rc = at_pkg_store_part(store, blob->digest, blob->bytes,
                                      s->registry->options.http.cancel, &d.fd, &d.have, err);
    if (rc != AT_OK) {
        return rc;
    }
    told(s, d.have);
    resumed = d.have;
    if (d.fd < 0) {
        return AT_OK;
    }
    rc = fetch(&d, err);
    rc = rc != AT_OK ? rc : at_pkg_store_part_keep(store, blob->digest, blob->bytes, d.fd, err);
    if (rc == AT_CORRUPT && resumed > 0) {
        /* The beginning may be what is wrong: once more from there. */
        told(s, -d.have);
        d.have = 0;
        rc = at_entry_cut(d.fd, 0, err);
        rc = rc != AT_OK ? rc : fetch(&d, err);
        rc = rc != AT_OK ? rc : at_pkg_store_part_keep(store, blob->digest, blob->bytes, d.fd, err);
    }
    if (rc == AT_IO && at_entry_cut(d.fd, 0, NULL) != AT_OK) {
        rc = AT_IO; /* a full disk: at least our part of it is given back */
    }
    at_pkg_store_part_done(d.fd);
    return rc != AT_OK ? at_err_wrap(err, rc, "%s", s->registry->options.host) : AT_OK;
}

/* --- blobs, out --- */

struct upload {
    struct at_pkg_session *session;
    const struct at_pkg_descriptor *blob;
    int fd;
    char *location; /* absolute */
    int64_t sent;   /* that the registry has */
    int64_t shown;  /* that was told to whoever watches */
};

static void put_sent(void *ctx, int64_t bytes)
{
    struct upload *u = ctx;
    int64_t at = u->sent + bytes;
    told(u->session, at - u->shown);
    u->shown = at;
}

static void keep_location(struct upload *u, const char *asked)
{
    char *next = at_pkg_location(u->session, asked);
    if (next != NULL) {
        at_free(u->location);
        u->location = next;
    }
}

static enum at_rc there(struct upload *u, bool *ret, struct at_err *err)
{
    const struct at_pkg_registry_options *o = &u->session->registry->options;
    AT_CLEANUP(at_cleanup_free)
    char *url = at_asprintf("/v2/%s/blobs/%s", o->repository, u->blob->digest);
    struct at_pkg_http_request q = {.method = "HEAD", .url = url};
    enum at_rc rc = at_pkg_call(u->session, &q, err);
    *ret = rc == AT_OK && u->session->answer.status == 200;
    if (rc == AT_OK && u->session->answer.status != 200 && u->session->answer.status != 404) {
        rc = at_pkg_refusal(u->session, "asking for a blob", err);
    }
    return rc;
}

/* 201: the blob was mounted; 202: where to send it. */
static enum at_rc begin(struct upload *u, const char *mount_from, bool *ret_mounted,
                        struct at_err *err)
{
    struct at_pkg_session *s = u->session;
    const struct at_pkg_registry *r = s->registry;
    AT_CLEANUP(at_cleanup_free)
    char *url = mount_from != NULL
                    ? at_asprintf("%s/v2/%s/blobs/uploads/?mount=%s&from=%s", r->base,
                                  r->options.repository, u->blob->digest, mount_from)
                    : at_asprintf("%s/v2/%s/blobs/uploads/", r->base, r->options.repository);
    struct at_pkg_http_request q = {.method = "POST", .url = url};
    enum at_rc rc = at_pkg_call(s, &q, err);
    if (rc != AT_OK) {
        return rc;
    }
    *ret_mounted = s->answer.status == 201 && mount_from != NULL;
    if (s->answer.status != 202 && !*ret_mounted) {
        return at_pkg_refusal(s, "beginning an upload", err);
    }
    keep_location(u, url);
    u->sent = 0;
    return u->location != NULL || *ret_mounted
               ? AT_OK
               : at_err_set(err, AT_UPSTREAM, "registry %s does not say where to send a blob",
                            r->options.host);
}

/* After a failure: how much of it the registry has ("Range: 0-99"). */
static enum at_rc catch_up(struct upload *u, struct at_err *err)
{
    struct at_pkg_session *s = u->session;
    struct at_pkg_http_request q = {.method = "GET", .url = u->location};
    uint64_t last = 0;
    enum at_rc rc = at_pkg_call(s, &q, err);
    if (rc != AT_OK || s->answer.status != 204 || strncmp(s->answer.range, "0-", 2) != 0 ||
        at_str_to_u64(at_str_of(s->answer.range + 2), &last) != AT_OK ||
        (int64_t)last >= u->blob->bytes) {
        return at_err_set(err, AT_UNAVAILABLE, "the upload is lost");
    }
    AT_CLEANUP(at_cleanup_free) char *asked = at_strdup(u->location);
    keep_location(u, asked);
    u->sent = last > 0 ? (int64_t)last + 1 : 0;
    return AT_OK;
}

static enum at_rc send_chunk(struct upload *u, int64_t len, struct at_err *err)
{
    struct at_pkg_session *s = u->session;
    char range[80];
    snprintf(range, sizeof range, "Content-Range: %lld-%lld", (long long)u->sent,
             (long long)(u->sent + len - 1));
    AT_CLEANUP(at_cleanup_free) char *asked = at_strdup(u->location);
    struct at_pkg_http_request q = {.method = "PATCH",
                                    .url = asked,
                                    .headers = {"Content-Type: application/octet-stream", range},
                                    .body_is_file = true,
                                    .body_fd = u->fd,
                                    .body_offset = u->sent,
                                    .body_len = len,
                                    .ctx = u,
                                    .on_sent = put_sent};
    enum at_rc rc = at_pkg_call(s, &q, err);
    if (rc == AT_OK && s->answer.status != 202) {
        rc = at_pkg_refusal(s, "sending a blob", err);
    }
    if (rc == AT_OK) {
        keep_location(u, asked);
        u->sent += len;
    }
    return rc;
}

/* The rest, and what its digest is. */
static enum at_rc finish(struct upload *u, struct at_err *err)
{
    struct at_pkg_session *s = u->session;
    AT_CLEANUP(at_cleanup_free)
    char *url = at_asprintf("%s%sdigest=%s", u->location,
                            strchr(u->location, '?') != NULL ? "&" : "?", u->blob->digest);
    struct at_pkg_http_request q = {.method = "PUT",
                                    .url = url,
                                    .headers = {"Content-Type: application/octet-stream"},
                                    .body_is_file = true,
                                    .body_fd = u->fd,
                                    .body_offset = u->sent,
                                    .body_len = u->blob->bytes - u->sent,
                                    .ctx = u,
                                    .on_sent = put_sent};
    enum at_rc rc = at_pkg_call(s, &q, err);
    if (rc == AT_OK && s->answer.status != 201 && s->answer.status != 204) {
        rc = at_pkg_refusal(s, "ending an upload", err);
    }
    return rc;
}

static enum at_rc send_all(struct upload *u, struct at_err *err)
{
    int64_t chunk = u->session->registry->options.chunk_bytes;
    unsigned tries = 0;
    enum at_rc rc = AT_OK;
    while (rc == AT_OK && u->blob->bytes > chunk && u->sent < u->blob->bytes) {
        int64_t left = u->blob->bytes - u->sent;
        rc = send_chunk(u, left < chunk ? left : chunk, err);
        if (rc != AT_OK && at_pkg_again(u->session, rc, &tries) && catch_up(u, err) == AT_OK) {
            rc = AT_OK;
        }
    }
    return rc != AT_OK ? rc : finish(u, err);
}

enum at_rc at_pkg_blob_put(struct at_pkg_session *s, const struct at_pkg_descriptor *blob,
                           const struct at_pkg_store *store, const char *mount_from, bool *ret_sent,
                           struct at_err *err)
{
    struct upload u = {.session = s, .blob = blob, .fd = -1};
    AT_CLEANUP(at_cleanup_free) char *path = at_pkg_store_path(store, blob->digest);
    int64_t bytes = 0;
    unsigned tries = 0;
    bool done = false, mounted = false;
    enum at_rc rc = at_entry_open(path, &u.fd, &bytes, err);
    if (rc == AT_OK && bytes != blob->bytes) {
        rc = at_err_set(err, AT_CORRUPT, "%s has %lld bytes, its manifest says %lld", path,
                        (long long)bytes, (long long)blob->bytes);
    }
    if (rc != AT_OK) {
        at_fd_close(u.fd);
        return rc;
    }
    do {
        rc = there(&u, &done, err);
        rc = rc != AT_OK || done ? rc : begin(&u, mount_from, &mounted, err);
        rc = rc != AT_OK || done || mounted ? rc : send_all(&u, err);
    } while (rc != AT_OK && at_pkg_again(s, rc, &tries));
    if (rc == AT_OK) {
        told(s, blob->bytes - u.shown);
        *ret_sent = !done && !mounted;
    }
    at_fd_close(u.fd);
    at_free(u.location);
    return rc != AT_OK ? at_err_wrap(err, rc, "%s", blob->digest) : AT_OK;
}
