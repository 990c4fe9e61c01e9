#include "security/ring.h"

#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "sys/file.h"

#include <assert.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define KEY_BYTES 32
#define NONCE_BYTES 12
#define TAG_BYTES 16
#define ID_DIGITS (AT_RING_ID_BYTES - 1)
#define MAGIC_BYTES (sizeof AT_RING_MAGIC - 1)
#define WRAPPED_BYTES (NONCE_BYTES + KEY_BYTES + TAG_BYTES)
#define HEAD_BYTES (MAGIC_BYTES + ID_DIGITS + WRAPPED_BYTES)
#define FILE_BYTES_MAX 16384
static const char COMMENT[] =
    "# Keys that Secrets are encrypted with, the newest first. Without this file they cannot be\n"
    "# read: keep a copy, apart from the backups of the store.\n";

struct ring_key {
    char id[AT_RING_ID_BYTES];
    unsigned char bytes[KEY_BYTES];
};
struct keys {
    struct ring_key items[AT_RING_KEYS_MAX];
    size_t n;
};

struct at_ring {
    const struct at_sys *sys;
    char *path;
    pthread_mutex_t lock;
    struct keys keys; /* under lock */
};

/* --- the file --- */

static enum at_rc line_read(struct at_str line, struct keys *keys, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf bytes = {0};
    struct at_str rest = line;
    struct at_str id = at_str_cut(&rest, ' ');
    if (keys->n == AT_RING_KEYS_MAX) {
        return at_err_set(err, AT_CORRUPT, "more than %d keys", AT_RING_KEYS_MAX);
    }
    enum at_rc rc = AT_CORRUPT;
    if (id.len == ID_DIGITS && strspn(id.ptr, "0123456789abcdef") == ID_DIGITS) {
        rest = at_str_trim(rest);
        rc = at_base64_decode(rest.ptr, rest.len, &bytes);
    }
    if (rc != AT_OK || bytes.len != KEY_BYTES) {
        rc = at_err_set(err, AT_CORRUPT, "it is no key");
    } else {
        struct ring_key *key = &keys->items[keys->n++];
        memcpy(key->id, id.ptr, ID_DIGITS);
        memcpy(key->bytes, bytes.data, KEY_BYTES);
    }
    if (bytes.data != NULL) {
        explicit_bzero(bytes.data, bytes.len);
    }
    return rc;
}

static enum at_rc file_read(const char *path, struct keys *ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    struct keys keys = {0};
    int mode = at_file_mode(path);
    if (mode >= 0 && (mode & 077) != 0) {
        return at_err_set(err, AT_FORBIDDEN,
                          "the key file %s may be read by others than its owner: chmod 600 it, and "
                          "rotate its key if somebody did",
                          path);
    }
    if (mode < 0 && !at_file_exists(path)) {
        *ret = keys;
        return AT_OK;
    }
    enum at_rc rc = at_file_read(path, FILE_BYTES_MAX, &text, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "the key file of Secrets");
    }
    struct at_str rest = {text.data, text.len};
    for (size_t line = 1; rc == AT_OK && rest.len > 0; line++) {
        struct at_str one = at_str_trim(at_str_cut(&rest, '\n'));
        if (one.len > 0 && one.ptr[0] != '#') {
            rc = line_read(one, &keys, err);
        }
        if (rc != AT_OK) {
            at_err_wrap(err, rc, "the key file %s: line %zu", path, line);
        }
    }
    if (rc == AT_OK && keys.n == 0) {
        rc = at_err_set(err, AT_CORRUPT, "the key file %s holds no key", path);
    }
    if (text.data != NULL) {
        explicit_bzero(text.data, text.len);
    }
    if (rc == AT_OK) {
        *ret = keys;
    }
    explicit_bzero(&keys, sizeof keys);
    return rc;
}

static enum at_rc file_write(const char *path, const struct keys *keys, struct at_err *err)
{
    struct at_buf text = {0};
    enum at_rc rc = at_buf_append_str(&text, COMMENT);
    for (size_t i = 0; rc == AT_OK && i < keys->n; i++) {
        rc = at_buf_printf(&text, "%s ", keys->items[i].id);
        rc = rc == AT_OK ? at_base64_encode(keys->items[i].bytes, KEY_BYTES, &text) : rc;
        rc = rc == AT_OK ? at_buf_append(&text, "\n", 1) : rc;
    }
    if (rc == AT_OK) {
        rc = at_file_write_atomic(path, text.data, text.len, 0600, err);
    }
    if (text.data != NULL) {
        explicit_bzero(text.data, text.len);
    }
    at_buf_done(&text);
    return rc;
}

/* --- the ring --- */

enum at_rc at_ring_open(const char *path, const struct at_sys *sys, struct at_ring **ret,
                        struct at_err *err)
{
    struct at_ring *ring = AT_NEW(struct at_ring);
    ring->sys = sys;
    ring->path = at_strdup(path);
    pthread_mutex_init(&ring->lock, NULL);
    enum at_rc rc = file_read(path, &ring->keys, err);
    if (rc != AT_OK) {
        at_ring_free(ring);
        return rc;
    }
    *ret = ring;
    return AT_OK;
}

void at_ring_free(struct at_ring *ring)
{
    if (ring != NULL) {
        explicit_bzero(&ring->keys, sizeof ring->keys);
        pthread_mutex_destroy(&ring->lock);
        at_free(ring->path);
        at_free(ring);
    }
}

size_t at_ring_count(struct at_ring *ring)
{
    pthread_mutex_lock(&ring->lock);
    size_t n = ring->keys.n;
    pthread_mutex_unlock(&ring->lock);
    return n;
}

void at_ring_id(struct at_ring *ring, size_t i, char out[AT_RING_ID_BYTES])
{
    pthread_mutex_lock(&ring->lock);
    snprintf(out, AT_RING_ID_BYTES, "%s", i < ring->keys.n ? ring->keys.items[i].id : "");
    pthread_mutex_unlock(&ring->lock);
}

void at_ring_current(struct at_ring *ring, char out[AT_RING_ID_BYTES])
{
    at_ring_id(ring, 0, out);
}

/* The file as it is now, not to be changed by anybody else meanwhile. own: at_file_unlock. */
static enum at_rc keys_lock(struct at_ring *ring, struct keys *ret, int *ret_fd, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s.lock", ring->path);
    enum at_rc rc = at_file_lock(path, ret_fd, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "another server changes the key file");
    }
    rc = file_read(ring->path, ret, err);
    if (rc != AT_OK) {
        at_file_unlock(*ret_fd);
    }
    return rc;
}

static enum at_rc keys_change(struct at_ring *ring, struct keys *next, int fd, struct at_err *err)
{
    enum at_rc rc = file_write(ring->path, next, err);
    at_file_unlock(fd);
    if (rc == AT_OK) {
        pthread_mutex_lock(&ring->lock);
        ring->keys = *next;
        pthread_mutex_unlock(&ring->lock);
    }
    explicit_bzero(next, sizeof *next);
    return rc;
}

enum at_rc at_ring_rotate(struct at_ring *ring, struct at_err *err)
{
    unsigned char id[ID_DIGITS / 2];
    struct keys have = {0};
    struct keys next = {.n = 1};
    int fd = -1;
    enum at_rc rc = keys_lock(ring, &have, &fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (have.n == AT_RING_KEYS_MAX) {
        at_file_unlock(fd);
        return at_err_set(err, AT_EXHAUSTED, "the key file holds %d keys already",
                          AT_RING_KEYS_MAX);
    }
    at_sys_random(ring->sys, id, sizeof id);
    at_sys_random(ring->sys, next.items[0].bytes, KEY_BYTES);
    at_hex_encode(id, sizeof id, next.items[0].id);
    memcpy(&next.items[1], have.items, have.n * sizeof next.items[0]);
    next.n += have.n;
    explicit_bzero(&have, sizeof have);
    return keys_change(ring, &next, fd, err);
}

enum at_rc at_ring_first(struct at_ring *ring, struct at_err *err)
{
    struct keys have = {0};
    enum at_rc rc = file_read(ring->path, &have, err);
    if (rc != AT_OK || have.n == 0) {
        return rc == AT_OK ? at_ring_rotate(ring, err) : rc;
    }
    pthread_mutex_lock(&ring->lock);
    ring->keys = have;
    pthread_mutex_unlock(&ring->lock);
    explicit_bzero(&have, sizeof have);
    return AT_OK;
}

enum at_rc at_ring_forget(struct at_ring *ring, struct at_err *err)
{
    char current[AT_RING_ID_BYTES];
    struct keys have = {0};
    int fd = -1;
    at_ring_current(ring, current);
    enum at_rc rc = keys_lock(ring, &have, &fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (have.n == 0 || memcmp(have.items[0].id, current, sizeof current) != 0) {
        at_file_unlock(fd);
        explicit_bzero(&have, sizeof have);
        return at_err_set(err, AT_CONFLICT, "the key file has a newer key than this server knows");
    }
    explicit_bzero(&have.items[1], (AT_RING_KEYS_MAX - 1) * sizeof have.items[0]);
    have.n = 1;
    return keys_change(ring, &have, fd, err);
}

/* --- sealing --- */

/* out: nonce, text, tag. */
static bool gcm_seal(const unsigned char key[KEY_BYTES], struct at_str bound,
                     const unsigned char nonce[NONCE_BYTES], const void *text, size_t len,
                     unsigned char *out)
{
    int n = 0;
    int end = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    memcpy(out, nonce, NONCE_BYTES);
    bool ok =
        ctx != NULL && EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce) == 1 &&
        EVP_EncryptUpdate(ctx, NULL, &n, (const unsigned char *)bound.ptr, (int)bound.len) == 1 &&
        EVP_EncryptUpdate(ctx, out + NONCE_BYTES, &n, text, (int)len) == 1 &&
        EVP_EncryptFinal_ex(ctx, out + NONCE_BYTES + n, &end) == 1 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, out + NONCE_BYTES + len) == 1;
    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

/* in: nonce, text of len bytes, tag. */
static bool gcm_open(const unsigned char key[KEY_BYTES], struct at_str bound,
                     const unsigned char *in, size_t len, unsigned char *out)
{
    int n = 0;
    int end = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok =
        ctx != NULL && EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, in) == 1 &&
        EVP_DecryptUpdate(ctx, NULL, &n, (const unsigned char *)bound.ptr, (int)bound.len) == 1 &&
        EVP_DecryptUpdate(ctx, out, &n, in + NONCE_BYTES, (int)len) == 1 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_BYTES,
                            (void *)(in + NONCE_BYTES + len)) == 1 &&
        EVP_DecryptFinal_ex(ctx, out + n, &end) == 1;
    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

/* What a data key is bound to: its own use, the ring key, and the name. */
static struct at_str wrap_bound(const char *id, const char *name, struct at_buf *out)
{
    enum at_rc rc = at_buf_printf(out, "data key %s %s", id, name);
    assert(rc == AT_OK); /* names are bounded */
    return (struct at_str){out->data, out->len};
}

static bool key_find(struct at_ring *ring, const char *id, struct ring_key *ret)
{
    bool found = false;
    pthread_mutex_lock(&ring->lock);
    for (size_t i = 0; !found && i < ring->keys.n; i++) {
        if (id == NULL || memcmp(ring->keys.items[i].id, id, ID_DIGITS) == 0) {
            *ret = ring->keys.items[i];
            found = true;
        }
    }
    pthread_mutex_unlock(&ring->lock);
    return found;
}

enum at_rc at_ring_seal(struct at_ring *ring, const char *name, const void *value, size_t len,
                        struct at_buf *out, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf bound = {0};
    unsigned char secret[KEY_BYTES];
    unsigned char nonces[2][NONCE_BYTES];
    struct ring_key key;
    char *place = NULL;
    if (!key_find(ring, NULL, &key)) {
        return at_err_set(err, AT_FORBIDDEN, "there is no key to seal Secrets with");
    }
    size_t total = HEAD_BYTES + NONCE_BYTES + len + TAG_BYTES;
    enum at_rc rc = at_buf_reserve(out, total, &place);
    if (rc != AT_OK) {
        return at_err_set(err, rc, "the Secret is too large to be sealed");
    }
    at_sys_random(ring->sys, secret, sizeof secret);
    at_sys_random(ring->sys, nonces, sizeof nonces);
    unsigned char *at = (unsigned char *)place;
    memcpy(at, AT_RING_MAGIC, MAGIC_BYTES);
    memcpy(at + MAGIC_BYTES, key.id, ID_DIGITS);
    bool ok = gcm_seal(key.bytes, wrap_bound(key.id, name, &bound), nonces[0], secret, KEY_BYTES,
                       at + MAGIC_BYTES + ID_DIGITS) &&
              gcm_seal(secret, at_str_of(name), nonces[1], value, len, at + HEAD_BYTES);
    explicit_bzero(secret, sizeof secret);
    explicit_bzero(&key, sizeof key);
    if (!ok) {
        return at_err_set(err, AT_INTERNAL, "a Secret could not be sealed");
    }
    at_buf_commit(out, total);
    return AT_OK;
}

/* Another server of the same store may have made a new key. */
static bool key_find_anew(struct at_ring *ring, const char *id, struct ring_key *ret)
{
    struct keys keys = {0};
    if (key_find(ring, id, ret)) {
        return true;
    }
    if (file_read(ring->path, &keys, NULL) != AT_OK || keys.n == 0) {
        return false;
    }
    pthread_mutex_lock(&ring->lock);
    ring->keys = keys;
    pthread_mutex_unlock(&ring->lock);
    explicit_bzero(&keys, sizeof keys);
    return key_find(ring, id, ret);
}

enum at_rc at_ring_unseal(struct at_ring *ring, const char *name, const void *value, size_t len,
                          struct at_buf *out, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf bound = {0};
    unsigned char secret[KEY_BYTES];
    char id[AT_RING_ID_BYTES] = {0};
    struct ring_key key;
    char *place = NULL;
    const unsigned char *in = value;
    if (len < HEAD_BYTES + NONCE_BYTES + TAG_BYTES) {
        return at_err_set(err, AT_CORRUPT, "a sealed Secret is cut off");
    }
    memcpy(id, in + MAGIC_BYTES, ID_DIGITS);
    if (!key_find_anew(ring, id, &key)) {
        return at_err_set(err, AT_FORBIDDEN,
                          "it is sealed with key %.8s, which the key file %s does not hold: put "
                          "back the file that was in use",
                          id, ring->path);
    }
    size_t text_len = len - HEAD_BYTES - NONCE_BYTES - TAG_BYTES;
    enum at_rc rc = at_buf_reserve(out, text_len + 1, &place);
    if (rc == AT_OK &&
        (!gcm_open(key.bytes, wrap_bound(id, name, &bound), in + MAGIC_BYTES + ID_DIGITS, KEY_BYTES,
                   secret) ||
         !gcm_open(secret, at_str_of(name), in + HEAD_BYTES, text_len, (unsigned char *)place))) {
        rc = at_err_set(err, AT_CORRUPT, "a sealed Secret was changed, or moved from another name");
    }
    explicit_bzero(secret, sizeof secret);
    explicit_bzero(&key, sizeof key);
    if (rc == AT_OK) {
        at_buf_commit(out, text_len);
    }
    return rc;
}
