#include "package/sign.h"

#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#define PAYLOAD_BYTES_MAX ((size_t)64 << 10)
#define SIGNATURE_BYTES_MAX 512
#define TYPE_TEXT "cosign container image signature"

struct at_pkg_key {
    EVP_PKEY *pkey;
    char id[AT_PKG_KEY_ID_BYTES];
};

static bool is_ed25519(const EVP_PKEY *key)
{
    return EVP_PKEY_get_id(key) == EVP_PKEY_ED25519;
}

static bool is_p256(EVP_PKEY *key)
{
    char group[64] = "";
    return EVP_PKEY_get_id(key) == EVP_PKEY_EC &&
           EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1 &&
           strcmp(group, "prime256v1") == 0;
}

static enum at_rc key_new(EVP_PKEY *pkey_take, struct at_pkg_key **ret, struct at_err *err)
{
    unsigned char *der = NULL;
    char hex[AT_SHA256_HEX_BYTES];
    ERR_clear_error();
    if (pkey_take == NULL) {
        return at_err_set(err, AT_INVALID, "the key cannot be read");
    }
    if (!is_ed25519(pkey_take) && !is_p256(pkey_take)) {
        EVP_PKEY_free(pkey_take);
        return at_err_set(err, AT_INVALID, "the key is neither ECDSA over P-256 nor Ed25519");
    }
    int len = i2d_PUBKEY(pkey_take, &der);
    if (len <= 0) {
        EVP_PKEY_free(pkey_take);
        return at_err_set(err, AT_INVALID, "the key has no public half");
    }
    struct at_pkg_key *key = AT_NEW(struct at_pkg_key);
    key->pkey = pkey_take;
    at_sha256_hex(der, (size_t)len, hex);
    snprintf(key->id, sizeof key->id, "sha256:%s", hex);
    OPENSSL_free(der);
    *ret = key;
    return AT_OK;
}

enum at_rc at_pkg_key_public(const char *pem, struct at_pkg_key **ret, struct at_err *err)
{
    BIO *bio = BIO_new_mem_buf(pem, (int)strnlen(pem, PAYLOAD_BYTES_MAX));
    EVP_PKEY *pkey = bio != NULL ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    return key_new(pkey, ret, err);
}

static int on_password(char *out, int size, int rwflag, void *ctx)
{
    (void)rwflag;
    const char *password = ctx;
    int len = password != NULL ? (int)strlen(password) : 0;
    if (len > size) {
        return -1;
    }
    memcpy(out, password != NULL ? password : "", (size_t)len);
    return len;
}

enum at_rc at_pkg_key_private(const char *pem, const char *password, struct at_pkg_key **ret,
                              struct at_err *err)
{
    if (strstr(pem, "ENCRYPTED COSIGN PRIVATE KEY") != NULL ||
        strstr(pem, "ENCRYPTED SIGSTORE PRIVATE KEY") != NULL) {
        return at_err_set(err, AT_UNSUPPORTED,
                          "the key is in cosign's own format; make one with openssl genpkey "
                          "-algorithm ed25519, which cosign import-key-pair takes too");
    }
    BIO *bio = BIO_new_mem_buf(pem, (int)strnlen(pem, PAYLOAD_BYTES_MAX));
    EVP_PKEY *pkey =
        bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, on_password, (void *)password) : NULL;
    BIO_free(bio);
    if (pkey == NULL && strstr(pem, "ENCRYPTED") != NULL) {
        ERR_clear_error();
        return at_err_set(err, AT_UNAUTHENTICATED,
                          "the key is encrypted: its password is taken from $COSIGN_PASSWORD");
    }
    return key_new(pkey, ret, err);
}

void at_pkg_key_free(struct at_pkg_key *key)
{
    if (key != NULL) {
        EVP_PKEY_free(key->pkey);
        at_free(key);
    }
}

void at_pkg_key_id(const struct at_pkg_key *key, char out[AT_PKG_KEY_ID_BYTES])
{
    memcpy(out, key->id, AT_PKG_KEY_ID_BYTES);
}

void at_pkg_signature_tag(const char *digest, char *out, size_t size)
{
    snprintf(out, size, "sha256-%s.sig", digest + strlen("sha256:"));
}

/* --- signing --- */

static enum at_rc sign_bytes(const struct at_pkg_key *key, const struct at_buf *payload,
                             struct at_buf *ret_base64, struct at_err *err)
{
    unsigned char signature[SIGNATURE_BYTES_MAX];
    size_t len = sizeof signature;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    const EVP_MD *digest = is_ed25519(key->pkey) ? NULL : EVP_sha256();
    bool done = md != NULL && EVP_DigestSignInit(md, NULL, digest, NULL, key->pkey) == 1 &&
                EVP_DigestSign(md, signature, &len, (const unsigned char *)payload->data,
                               payload->len) == 1;
    EVP_MD_CTX_free(md);
    if (!done) {
        ERR_clear_error();
        return at_err_set(err, AT_INVALID, "the key cannot sign: is it a private one?");
    }
    return at_base64_encode(signature, len, ret_base64);
}

static enum at_rc payload_make(const char *digest, const char *reference, struct at_buf *out)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *json = json_pack("{s:{s:{s:s},s:{s:s},s:s},s:n}", "critical", "identity",
                             "docker-reference", reference, "image", "docker-manifest-digest",
                             digest, "type", TYPE_TEXT, "optional");
    return at_json_dump(json, out);
}

/* Layers of the image so far, less earlier copies of the same payload and signature. */
static enum at_rc layers_before(const struct at_pkg_store *store, const char *before,
                                json_t *layers, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    if (before[0] == '\0') {
        return AT_OK;
    }
    enum at_rc rc = at_pkg_store_read(store, before, PKG_DOCUMENT_BYTES_MAX, &text, err);
    rc = rc != AT_OK ? rc : at_json_parse(text.data, text.len, &json, err);
    if (rc != AT_OK) {
        json = NULL;
        return rc;
    }
    json_array_extend(layers, json_object_get(json, "layers"));
    while (json_array_size(layers) >= PKG_SIGNATURES_MAX) {
        json_array_remove(layers, 0); /* the oldest goes */
    }
    return AT_OK;
}

static enum at_rc put_json(const struct at_pkg_store *store, const json_t *json,
                           char digest[AT_PKG_DIGEST_BYTES], size_t *len, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_json_dump(json, &text);
    *len = text.len;
    return rc != AT_OK ? rc : at_pkg_store_put(store, text.data, text.len, digest, err);
}

/* An image, for registries that take nothing else: its configuration lists the payloads. */
static enum at_rc put_image(const struct at_pkg_store *store, json_t *layers,
                            char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *config = json_pack("{s:s,s:s,s:{},s:{s:s,s:[]}}", "architecture", "", "os", "",
                               "config", "rootfs", "type", "layers", "diff_ids");
    json_t *diff_ids = json_object_get(json_object_get(config, "rootfs"), "diff_ids");
    char digest[AT_PKG_DIGEST_BYTES];
    size_t i, len = 0;
    const json_t *layer;
    json_array_foreach(layers, i, layer)
    {
        json_array_append(diff_ids, json_object_get(layer, "digest"));
    }
    enum at_rc rc = put_json(store, config, digest, &len, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *manifest = json_pack(
        "{s:i,s:s,s:o,s:O}", "schemaVersion", 2, "mediaType", AT_PKG_TYPE_MANIFEST, "config",
        at_pkg_descriptor_json(AT_PKG_TYPE_IMAGE_CONFIG, digest, (int64_t)len, NULL), "layers",
        layers);
    return put_json(store, manifest, ret_digest, &len, err);
}

enum at_rc at_pkg_sign(const struct at_pkg_store *store, const struct at_pkg_key *key,
                       const char *digest, const char *reference, const char *before,
                       char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf payload = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf signature = {0};
    AT_CLEANUP(at_cleanup_json) json_t *layers = json_array();
    char payload_digest[AT_PKG_DIGEST_BYTES];
    enum at_rc rc = payload_make(digest, reference, &payload);
    rc = rc != AT_OK ? rc : sign_bytes(key, &payload, &signature, err);
    rc = rc != AT_OK ? rc : at_pkg_store_put(store, payload.data, payload.len, payload_digest, err);
    rc = rc != AT_OK ? rc : layers_before(store, before, layers, err);
    if (rc == AT_OK) {
        json_array_append_new(
            layers,
            at_pkg_descriptor_json(AT_PKG_TYPE_SIGNATURE, payload_digest, (int64_t)payload.len,
                                   json_pack("{s:s}", AT_PKG_NOTE_SIGNATURE, signature.data)));
        rc = put_image(store, layers, ret_digest, err);
    }
    return rc;
}

/* --- verifying --- */

static bool signature_fits(const struct at_pkg_key *key, const struct at_buf *payload,
                           const struct at_buf *signature)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    const EVP_MD *digest = is_ed25519(key->pkey) ? NULL : EVP_sha256();
    bool fits = md != NULL && EVP_DigestVerifyInit(md, NULL, digest, NULL, key->pkey) == 1 &&
                EVP_DigestVerify(md, (const unsigned char *)signature->data, signature->len,
                                 (const unsigned char *)payload->data, payload->len) == 1;
    EVP_MD_CTX_free(md);
    ERR_clear_error();
    return fits;
}

/* What was signed must be this digest, as what it is. */
static bool payload_names(const struct at_buf *payload, const char *digest)
{
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    if (at_json_parse(payload->data, payload->len, &json, NULL) != AT_OK) {
        json = NULL;
        return false;
    }
    const json_t *critical = json_object_get(json, "critical");
    const char *named = json_string_value(
        json_object_get(json_object_get(critical, "image"), "docker-manifest-digest"));
    const char *type = json_string_value(json_object_get(critical, "type"));
    return at_streq(named, digest) && at_streq(type, TYPE_TEXT);
}

struct verifying {
    const struct at_pkg_store *store;
    const char *digest;
    const struct at_pkg_key *const *keys;
    size_t n_keys;
    bool known_key, other_digest; /* what was seen, for the reason */
};

static bool layer_fits(struct verifying *v, const struct at_pkg_descriptor *layer, size_t *ret_key)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf payload = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf signature = {0};
    const char *coded = at_pkg_note(layer, AT_PKG_NOTE_SIGNATURE);
    if (coded == NULL || strlen(coded) > 2 * SIGNATURE_BYTES_MAX ||
        at_base64_decode(coded, strlen(coded), &signature) != AT_OK || signature.len == 0 ||
        at_pkg_store_read(v->store, layer->digest, PAYLOAD_BYTES_MAX, &payload, NULL) != AT_OK ||
        payload.len == 0) {
        return false;
    }
    for (size_t i = 0; i < v->n_keys; i++) {
        if (!signature_fits(v->keys[i], &payload, &signature)) {
            continue;
        }
        v->known_key = true;
        if (payload_names(&payload, v->digest)) {
            *ret_key = i;
            return true;
        }
        v->other_digest = true;
    }
    return false;
}

enum at_rc at_pkg_verify(const struct at_pkg_store *store, const char *signatures,
                         const char *digest, const struct at_pkg_key *const *keys, size_t n,
                         size_t *ret_key, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    struct at_pkg_manifest m = {0};
    struct verifying v = {.store = store, .digest = digest, .keys = keys, .n_keys = n};
    bool fits = false;
    enum at_rc rc = at_pkg_store_read(store, signatures, PKG_DOCUMENT_BYTES_MAX, &text, err);
    rc = rc != AT_OK ? rc : at_pkg_manifest_parse(text.data, text.len, arena, &m, err);
    if (rc != AT_OK) {
        return rc;
    }
    for (size_t i = 0; i < m.n_layers && i < PKG_SIGNATURES_MAX && !fits; i++) {
        fits = at_streq(m.layers[i].media_type, AT_PKG_TYPE_SIGNATURE) &&
               layer_fits(&v, &m.layers[i], ret_key);
    }
    at_pkg_manifest_done(&m);
    return fits ? AT_OK
                : at_err_set(err, AT_FORBIDDEN,
                             v.other_digest ? "%s: its signatures are for another package"
                                            : "%s: none of its signatures is by a trusted key",
                             digest);
}
