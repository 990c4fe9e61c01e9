/* What the files of `atoll model` share. */
#ifndef AT_CLI_MODEL_PRIV_H
#define AT_CLI_MODEL_PRIV_H

#include "cli/cli_priv.h"
#include "package/model.h"
#include "package/transfer.h"

#include <pthread.h>

/* A line on a terminal that shows how far a transfer is. */
struct model_progress {
    FILE *out; /* NULL: none */
    const char *what;
    const struct at_sys *sys;
    pthread_mutex_t lock;
    int64_t total, done, began_ns, shown_ns;
};

struct model_work {
    struct cli *cli;
    struct at_pkg_store *store;
    int use;                  /* lock against collecting */
    struct at_pkg_curl *curl; /* NULL until a registry is asked */
    struct at_pkg_credentials credentials;
    char *password;
    atomic_bool cancel;
    struct model_progress progress;
};

/* The store of --store, $ATOLL_MODELS or the user's data folder. own: model_close. */
enum at_rc model_open(struct cli *cli, struct model_work *ret, struct at_err *err) AT_WARN_UNUSED;
void model_close(struct model_work *w);
/* own: at_pkg_registry_free, before model_close. */
enum at_rc model_registry(struct model_work *w, const struct at_pkg_ref *ref, bool push,
                          struct at_pkg_registry **ret, struct at_err *err) AT_WARN_UNUSED;
/* A package of the store by a name, the beginning of one, or a digest. */
enum at_rc model_find(struct model_work *w, const char *name, char ret_digest[AT_PKG_DIGEST_BYTES],
                      struct at_err *err) AT_WARN_UNUSED;
/* Anything that can be named, into the store; it is named there. */
enum at_rc model_fetch(struct model_work *w, const char *text, const char *as,
                       char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err) AT_WARN_UNUSED;
enum at_rc model_name(struct model_work *w, const char *name, const char *digest,
                      struct at_err *err) AT_WARN_UNUSED;
/* Does text name a folder here, rather than a package? */
bool model_is_folder(const char *text);
enum at_rc model_check(const char *format, const char *path, struct at_err *err);
void model_progress_begin(struct model_work *w, const char *what);
void model_progress_end(struct model_work *w);
/* What transfers need of w. */
struct at_pkg_transfer model_transfer(struct model_work *w);
enum at_rc model_parallel(const struct cli *cli, size_t *ret, struct at_err *err) AT_WARN_UNUSED;
const char *model_bytes(const struct cli *cli, int64_t bytes); /* "1.2 MB"; own: arena */
/* The signatures of digest beside it, if there are any, into the store. AT_NOT_FOUND: none. */
enum at_rc model_signatures(struct model_work *w, struct at_pkg_registry *registry,
                            const char *digest, char ret_digest[AT_PKG_DIGEST_BYTES],
                            struct at_err *err) AT_WARN_UNUSED;
/* Refuse unless one of the public keys in the files of --key signed digest. */
enum at_rc model_verify(struct model_work *w, const char *digest, const char *signatures,
                        struct at_err *err) AT_WARN_UNUSED;

/* --- the words after `atoll model` --- */
enum at_rc model_init(struct cli *cli, struct at_err *err);
enum at_rc model_pack(struct cli *cli, struct at_err *err);
enum at_rc model_image(struct model_work *w, const char *digest, const char *name,
                       struct at_err *err);
enum at_rc model_push(struct cli *cli, struct at_err *err);
enum at_rc model_pull(struct cli *cli, struct at_err *err);
enum at_rc model_save(struct cli *cli, struct at_err *err);
enum at_rc model_inspect(struct cli *cli, struct at_err *err);
enum at_rc model_list(struct cli *cli, struct at_err *err);
enum at_rc model_remove(struct cli *cli, struct at_err *err);
enum at_rc model_sign(struct cli *cli, struct at_err *err);
enum at_rc model_verify_word(struct cli *cli, struct at_err *err);
enum at_rc model_run(struct cli *cli, struct at_err *err);

#endif
