/* Packages between here and elsewhere. */
#include "cli/model_priv.h"
#include "core/str.h"
#include "package/sign.h"
#include "sys/file.h"

#include <string.h>

static void say(const struct cli *cli, const char *done, const char *name, const char *digest)
{
    fprintf(cli->env->out, "%s ", done);
    cli_print_text(cli->env->out, name);
    fprintf(cli->env->out, "@%s\n", digest);
}

/* host/path:tag, as it is called in the store. own: arena */
static const char *store_name(const struct cli *cli, const struct at_pkg_ref *ref)
{
    if (ref->place != AT_PKG_REGISTRY) {
        return ref->tag[0] != '\0' ? ref->tag : NULL;
    }
    return at_arena_printf(cli->arena, "%s/%s:%s", ref->host, ref->path,
                           ref->tag[0] != '\0'      ? ref->tag
                           : ref->digest[0] != '\0' ? "untagged"
                                                    : "latest");
}

/* --- pull --- */

enum at_rc model_signatures(struct model_work *w, struct at_pkg_registry *registry,
                            const char *digest, char ret_digest[AT_PKG_DIGEST_BYTES],
                            struct at_err *err)
{
    char tag[96];
    at_pkg_signature_tag(digest, tag, sizeof tag);
    if (registry == NULL) {
        return at_pkg_store_find(w->store, tag, ret_digest, err);
    }
    struct at_pkg_transfer transfer = {.cancel = &w->cancel};
    enum at_rc rc = at_pkg_pull(registry, tag, w->store, &transfer, ret_digest, err);
    return rc != AT_OK ? rc : model_name(w, tag, ret_digest, err);
}

static enum at_rc pull_registry(struct model_work *w, const struct at_pkg_ref *ref,
                                char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    struct at_pkg_registry *registry = NULL;
    struct at_pkg_transfer transfer = model_transfer(w);
    char signatures[AT_PKG_DIGEST_BYTES];
    enum at_rc rc = model_registry(w, ref, false, &registry, err);
    if (rc != AT_OK) {
        return rc;
    }
    model_progress_begin(w, "pulling");
    rc = at_pkg_pull(registry, at_pkg_ref_wanted(ref), w->store, &transfer, ret_digest, err);
    model_progress_end(w);
    if (rc == AT_OK) {
        struct at_err why = {0};
        enum at_rc has = model_signatures(w, registry, ret_digest, signatures, &why);
        if (has != AT_OK && has != AT_NOT_FOUND && w->cli->values[OPT_KEY].n != 0) {
            rc = has;
            *err = why;
        }
    }
    at_pkg_registry_free(registry);
    return rc;
}

/* A layout's package, and its signatures. */
static enum at_rc pull_layout(struct model_work *w, const struct at_pkg_ref *ref,
                              char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    struct at_pkg_store *from = NULL;
    char tag[96], signatures[AT_PKG_DIGEST_BYTES];
    enum at_rc rc = at_pkg_store_open(ref->path, false, &from, err);
    rc = rc != AT_OK ? rc
                     : at_pkg_store_find(from, ref->digest[0] != '\0' ? ref->digest : ref->tag,
                                         ret_digest, err);
    rc = rc != AT_OK ? rc : at_pkg_copy(from, w->store, ret_digest, &w->cancel, err);
    if (rc == AT_OK) {
        at_pkg_signature_tag(ret_digest, tag, sizeof tag);
        if (at_pkg_store_find(from, tag, signatures, NULL) == AT_OK) {
            rc = at_pkg_copy(from, w->store, signatures, &w->cancel, err);
            rc = rc != AT_OK ? rc : model_name(w, tag, signatures, err);
        }
    }
    at_pkg_store_free(from);
    return rc;
}

/* The package of an archive's index that ref names, or its only one. */
static enum at_rc choose(const struct at_pkg_index *index, const struct at_pkg_ref *ref,
                         const struct at_pkg_descriptor **ret, struct at_err *err)
{
    const struct at_pkg_descriptor *found = NULL;
    size_t n = 0;
    for (size_t i = 0; i < index->n_manifests; i++) {
        const struct at_pkg_descriptor *d = &index->manifests[i];
        const char *name = at_pkg_note(d, AT_PKG_NOTE_NAME);
        bool is = ref->digest[0] != '\0' ? strcmp(d->digest, ref->digest) == 0
                  : ref->tag[0] != '\0'  ? at_streq(name, ref->tag)
                                         : name == NULL || strncmp(name, "sha256-", 7) != 0;
        found = is ? d : found;
        n += is;
    }
    if (n == 1) {
        *ret = found;
        return AT_OK;
    }
    return at_err_set(err, n == 0 ? AT_NOT_FOUND : AT_INVALID,
                      "%s holds %zu packages of that name; write oci-archive:FILE:NAME", ref->path,
                      n);
}

static enum at_rc pull_archive(struct model_work *w, const struct at_pkg_ref *ref,
                               char ret_digest[AT_PKG_DIGEST_BYTES], const char **ret_name,
                               struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    struct at_pkg_index index = {0};
    const struct at_pkg_descriptor *found = NULL;
    enum at_rc rc = at_pkg_archive_load(ref->path, w->store, &w->cancel, &text, err);
    rc = rc != AT_OK ? rc : at_pkg_index_parse(text.data, text.len, w->cli->arena, &index, err);
    rc = rc != AT_OK ? rc : choose(&index, ref, &found, err);
    if (rc == AT_OK) {
        const char *name = at_pkg_note(found, AT_PKG_NOTE_NAME);
        *ret_name = name != NULL ? at_arena_strdup(w->cli->arena, name) : NULL;
        memcpy(ret_digest, found->digest, AT_PKG_DIGEST_BYTES);
        /* All that it needs must have been in it. */
        rc = at_pkg_copy(w->store, w->store, ret_digest, &w->cancel, err);
    }
    at_pkg_index_done(&index);
    return rc;
}

enum at_rc model_fetch(struct model_work *w, const char *text, const char *as,
                       char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    struct at_pkg_ref ref;
    const char *own = NULL;
    enum at_rc rc = at_pkg_ref_parse(text, &ref, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = ref.place == AT_PKG_REGISTRY ? pull_registry(w, &ref, ret_digest, err)
         : ref.place == AT_PKG_LAYOUT ? pull_layout(w, &ref, ret_digest, err)
                                      : pull_archive(w, &ref, ret_digest, &own, err);
    if (rc != AT_OK) {
        return rc;
    }
    const char *name = as != NULL ? as : own != NULL ? own : store_name(w->cli, &ref);
    name = name != NULL ? name : at_arena_printf(w->cli->arena, "%.19s", ret_digest);
    return model_name(w, name, ret_digest, err);
}

enum at_rc model_pull(struct cli *cli, struct at_err *err)
{
    struct model_work w;
    char digest[AT_PKG_DIGEST_BYTES];
    const char *what = cli->args[1];
    const char *to = cli_value(cli, OPT_TO, NULL);
    size_t parallel;
    if (strcmp(cli->args[0], "load") == 0 && strncmp(what, "oci-", 4) != 0) {
        what = at_arena_printf(cli->arena, "oci-archive:%s", what);
    }
    enum at_rc rc = model_parallel(cli, &parallel, err);
    rc = rc != AT_OK ? rc : model_open(cli, &w, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = model_fetch(&w, what, cli_value(cli, OPT_TAG, NULL), digest, err);
    if (rc == AT_OK && cli->values[OPT_KEY].n != 0) {
        char signatures[AT_PKG_DIGEST_BYTES] = "";
        enum at_rc has = model_signatures(&w, NULL, digest, signatures, NULL);
        rc = has == AT_OK ? model_verify(&w, digest, signatures, err)
                          : at_err_set(err, AT_FORBIDDEN, "%s has no signature", digest);
    }
    rc = rc != AT_OK || to == NULL ? rc : at_pkg_unpack(w.store, digest, to, false, err);
    if (rc == AT_OK) {
        say(cli, "pulled", what, digest);
    }
    model_close(&w);
    return rc;
}

/* --- push --- */

/* What the registry has of signatures gives way to what is here. */
static enum at_rc push_registry(struct model_work *w, const struct at_pkg_ref *ref,
                                const char *digest, struct at_err *err)
{
    struct at_pkg_registry *registry = NULL;
    struct at_pkg_transfer transfer = model_transfer(w);
    const char *mount = cli_value(w->cli, OPT_MOUNT_FROM, NULL);
    char tag[96], signatures[AT_PKG_DIGEST_BYTES];
    const char *wanted = ref->tag[0] != '\0'      ? ref->tag
                         : ref->digest[0] != '\0' ? digest
                                                  : "latest";
    size_t sent = 0;
    enum at_rc rc = model_registry(w, ref, true, &registry, err);
    if (rc != AT_OK) {
        return rc;
    }
    model_progress_begin(w, "pushing");
    rc = at_pkg_push(registry, w->store, digest, wanted, mount, &transfer, &sent, err);
    model_progress_end(w);
    at_pkg_signature_tag(digest, tag, sizeof tag);
    if (rc == AT_OK && at_pkg_store_find(w->store, tag, signatures, NULL) == AT_OK) {
        transfer.on_total = NULL;
        rc = at_pkg_push(registry, w->store, signatures, tag, NULL, &transfer, &sent, err);
    }
    at_pkg_registry_free(registry);
    return rc;
}

static enum at_rc push_layout(struct model_work *w, const struct at_pkg_ref *ref, const char *name,
                              const char *digest, struct at_err *err)
{
    struct at_pkg_store *to = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *descriptor = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *second = NULL;
    char tag[96], signatures[AT_PKG_DIGEST_BYTES];
    enum at_rc rc = at_pkg_store_open(ref->path, true, &to, err);
    rc = rc != AT_OK ? rc : at_pkg_copy(w->store, to, digest, &w->cancel, err);
    rc = rc != AT_OK ? rc : at_pkg_descriptor_of(to, digest, &descriptor, err);
    rc = rc != AT_OK
             ? rc
             : at_pkg_store_name(to, ref->tag[0] != '\0' ? ref->tag : name, descriptor, err);
    at_pkg_signature_tag(digest, tag, sizeof tag);
    if (rc == AT_OK && at_pkg_store_find(w->store, tag, signatures, NULL) == AT_OK) {
        rc = at_pkg_copy(w->store, to, signatures, &w->cancel, err);
        rc = rc != AT_OK ? rc : at_pkg_descriptor_of(to, signatures, &second, err);
        rc = rc != AT_OK ? rc : at_pkg_store_name(to, tag, second, err);
    }
    at_pkg_store_free(to);
    return rc;
}

static enum at_rc push_to(struct model_work *w, const char *name, const char *where,
                          struct at_err *err)
{
    struct at_pkg_ref ref;
    char digest[AT_PKG_DIGEST_BYTES];
    enum at_rc rc = at_pkg_ref_parse(where, &ref, err);
    rc = rc != AT_OK ? rc : model_find(w, name, digest, err);
    if (rc == AT_OK && ref.digest[0] != '\0' && strcmp(ref.digest, digest) != 0) {
        rc = at_err_set(err, AT_INVALID, "%s is %s, and cannot be pushed as %s", name, digest,
                        ref.digest);
    }
    if (rc != AT_OK) {
        return rc;
    }
    const char *colon = strrchr(name, '/');
    const char *as = ref.tag[0] != '\0' ? ref.tag : colon != NULL ? colon + 1 : name;
    rc = ref.place == AT_PKG_REGISTRY ? push_registry(w, &ref, digest, err)
         : ref.place == AT_PKG_LAYOUT ? push_layout(w, &ref, as, digest, err)
                                      : at_pkg_archive_save(w->store, digest, as, ref.path, err);
    if (rc == AT_OK) {
        say(w->cli, ref.place == AT_PKG_ARCHIVE ? "saved" : "pushed", where, digest);
    }
    return rc;
}

enum at_rc model_push(struct cli *cli, struct at_err *err)
{
    struct model_work w;
    size_t parallel;
    enum at_rc rc = model_parallel(cli, &parallel, err);
    rc = rc != AT_OK ? rc : model_open(cli, &w, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = push_to(&w, cli->args[1], cli->n_args > 2 ? cli->args[2] : cli->args[1], err);
    model_close(&w);
    return rc;
}

enum at_rc model_save(struct cli *cli, struct at_err *err)
{
    struct model_work w;
    enum at_rc rc = model_open(cli, &w, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc =
        push_to(&w, cli->args[1], at_arena_printf(cli->arena, "oci-archive:%s", cli->args[2]), err);
    model_close(&w);
    return rc;
}

/* --- signatures --- */

enum at_rc model_verify(struct model_work *w, const char *digest, const char *signatures,
                        struct at_err *err)
{
    struct at_pkg_key *keys[CLI_VALUES_MAX] = {NULL};
    struct cli *cli = w->cli;
    size_t n = cli->values[OPT_KEY].n, which = 0;
    char id[AT_PKG_KEY_ID_BYTES];
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf pem = {0};
        const char *path = cli->values[OPT_KEY].items[i];
        rc = at_file_read(path, 65536, &pem, err);
        rc = rc != AT_OK ? rc : at_pkg_key_public(pem.data != NULL ? pem.data : "", &keys[i], err);
        rc = rc != AT_OK ? at_err_wrap(err, rc, "%s", path) : rc;
    }
    rc = rc != AT_OK ? rc
                     : at_pkg_verify(w->store, signatures, digest,
                                     (const struct at_pkg_key *const *)keys, n, &which, err);
    if (rc == AT_OK) {
        at_pkg_key_id(keys[which], id);
        fprintf(cli->env->out, "%s is signed by %s (%s)\n", digest,
                cli->values[OPT_KEY].items[which], id);
    }
    for (size_t i = 0; i < n; i++) {
        at_pkg_key_free(keys[i]);
    }
    return rc;
}

/* Where the package is: in a registry, else in the store. registry NULL: the latter. */
static enum at_rc locate(struct model_work *w, const char *text, bool push,
                         struct at_pkg_registry **registry, struct at_pkg_ref *ref,
                         char digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf manifest = {.max = PKG_DOCUMENT_BYTES_MAX};
    bool local = model_find(w, text, digest, NULL) == AT_OK;
    if (local && strncmp(text, "oci://", 6) != 0) {
        return AT_OK;
    }
    enum at_rc rc = at_pkg_ref_parse(text, ref, err);
    if (rc == AT_OK && ref->place != AT_PKG_REGISTRY) {
        return at_err_set(err, AT_INVALID, "load it first: atoll model load %s", text);
    }
    rc = rc != AT_OK ? rc : model_registry(w, ref, push, registry, err);
    return rc != AT_OK ? rc
                       : at_pkg_resolve(*registry, at_pkg_ref_wanted(ref), &manifest, digest, err);
}

static enum at_rc sign_key(const struct cli *cli, struct at_pkg_key **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf pem = {0};
    const char *path = cli_value(cli, OPT_KEY, NULL);
    if (path == NULL) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "which key? --key FILE (openssl genpkey -algorithm ed25519 -out FILE)");
    }
    enum at_rc rc = at_file_read(path, 65536, &pem, err);
    rc = rc != AT_OK ? rc
                     : at_pkg_key_private(pem.data != NULL ? pem.data : "",
                                          at_sys_getenv("COSIGN_PASSWORD"), ret, err);
    return rc != AT_OK ? at_err_wrap(err, rc, "%s", path) : AT_OK;
}

enum at_rc model_sign(struct cli *cli, struct at_err *err)
{
    struct model_work w;
    struct at_pkg_key *key = NULL;
    struct at_pkg_registry *registry = NULL;
    struct at_pkg_ref ref = {0};
    char digest[AT_PKG_DIGEST_BYTES], before[AT_PKG_DIGEST_BYTES] = "", made[AT_PKG_DIGEST_BYTES];
    char tag[96], id[AT_PKG_KEY_ID_BYTES];
    enum at_rc rc = sign_key(cli, &key, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = model_open(cli, &w, err);
    if (rc != AT_OK) {
        at_pkg_key_free(key);
        return rc;
    }
    rc = locate(&w, cli->args[1], true, &registry, &ref, digest, err);
    if (rc == AT_OK) {
        struct at_err why = {0};
        rc = model_signatures(&w, registry, digest, before, &why);
        if (rc == AT_NOT_FOUND) {
            before[0] = '\0';
            rc = AT_OK;
        } else if (rc != AT_OK) {
            *err = why;
        }
    }
    const char *as =
        registry != NULL ? at_arena_printf(cli->arena, "%s/%s", ref.host, ref.path) : cli->args[1];
    rc = rc != AT_OK ? rc : at_pkg_sign(w.store, key, digest, as, before, made, err);
    if (rc == AT_OK) {
        struct at_pkg_transfer transfer = {.cancel = &w.cancel};
        at_pkg_signature_tag(digest, tag, sizeof tag);
        rc = model_name(&w, tag, made, err);
        rc = rc != AT_OK || registry == NULL
                 ? rc
                 : at_pkg_push(registry, w.store, made, tag, NULL, &transfer, NULL, err);
    }
    if (rc == AT_OK) {
        at_pkg_key_id(key, id);
        fprintf(cli->env->out, "signed %s by %s\n", digest, id);
    }
    at_pkg_registry_free(registry);
    at_pkg_key_free(key);
    model_close(&w);
    return rc;
}

enum at_rc model_verify_word(struct cli *cli, struct at_err *err)
{
    struct model_work w;
    struct at_pkg_registry *registry = NULL;
    struct at_pkg_ref ref = {0};
    char digest[AT_PKG_DIGEST_BYTES], signatures[AT_PKG_DIGEST_BYTES];
    if (cli->values[OPT_KEY].n == 0) {
        return at_err_set(err, AT_BAD_REQUEST, "by whom? --key FILE with a public key in PEM");
    }
    enum at_rc rc = model_open(cli, &w, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = locate(&w, cli->args[1], false, &registry, &ref, digest, err);
    if (rc == AT_OK) {
        rc = model_signatures(&w, registry, digest, signatures, err);
        rc = rc == AT_NOT_FOUND ? at_err_set(err, AT_FORBIDDEN, "%s has no signature", digest) : rc;
    }
    rc = rc != AT_OK ? rc : model_verify(&w, digest, signatures, err);
    at_pkg_registry_free(registry);
    model_close(&w);
    return rc;
}
