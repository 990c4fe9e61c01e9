/* Kubeconfig files: the list of $KUBECONFIG merged as kubectl merges it, changed where an entry
 * comes from, and credentials by exec plug-ins. */
#ifndef AT_CLIENT_KUBECONFIG_H
#define AT_CLIENT_KUBECONFIG_H

#include "client/client.h"

#define AT_KUBECONFIG_FILES_MAX 32

struct at_kubeconfig_file {
    char *path;
    json_t *root; /* an object, empty when the file is not there */
    bool exists;
    bool changed;          /* to be written by at_kubeconfig_write */
    bool readable_by_more; /* others than its owner may read it, and it holds a secret */
};

/* The first file that has an entry decides about it. */
struct at_kubeconfig {
    struct at_kubeconfig_file files[AT_KUBECONFIG_FILES_MAX];
    size_t n;
    bool chosen; /* by a path, not by $KUBECONFIG or the default */
    bool locked;
};

/* Lists of a kubeconfig and what their entries hold. */
#define AT_KUBECONFIG_CONTEXTS "contexts", "context"
#define AT_KUBECONFIG_CLUSTERS "clusters", "cluster"
#define AT_KUBECONFIG_USERS "users", "user"

/* One file's text: an object whose lists hold named entries. Empty text is an empty object.
 * err: AT_BAD_REQUEST, AT_INVALID with the place. own: caller decrefs. */
enum at_rc at_kubeconfig_parse(const char *text, size_t len, json_t **ret,
                               struct at_err *err) AT_WARN_UNUSED;
/* path NULL: the files of $KUBECONFIG, else ~/.kube/config; files that are not there are empty, but
 * not one that path names, unless for_change. With for_change they are locked as kubectl locks
 * them. err: also AT_FORBIDDEN a file that anyone may change | AT_CONFLICT locked by somebody. own:
 * at_kubeconfig_free, which unlocks. */
enum at_rc at_kubeconfig_read(const char *path, bool for_change, struct at_kubeconfig **ret,
                              struct at_err *err) AT_WARN_UNUSED;
void at_kubeconfig_free(struct at_kubeconfig *config);
/* All changed files, each one whole or not at all, with mode 0600 when new. */
enum at_rc at_kubeconfig_write(struct at_kubeconfig *config, struct at_err *err) AT_WARN_UNUSED;

/* The entry's inner object; NULL: none, or it has none. *ret_file (may be NULL): where it is. */
json_t *at_kubeconfig_entry(const struct at_kubeconfig *config, const char *list, const char *inner,
                            const char *name, struct at_kubeconfig_file **ret_file);
const char *at_kubeconfig_current(const struct at_kubeconfig *config); /* "": none */
/* Where new entries go. */
struct at_kubeconfig_file *at_kubeconfig_default_file(struct at_kubeconfig *config);
/* Everything, sorted by name. own: caller decrefs. */
json_t *at_kubeconfig_merged(const struct at_kubeconfig *config);
/* path as file names it: relative to its folder. own: caller at_free. */
char *at_kubeconfig_resolve(const char *config_path, const char *path);

/* Credentials that a program gave (client.authentication.k8s.io). */
struct at_kubeconfig_credential {
    char *token, *cert_pem, *key_pem; /* own; NULL when not given */
    int64_t expires_wall_ns;          /* 0: not said */
};
void at_kubeconfig_credential_done(struct at_kubeconfig_credential *credential);
/* Run the plug-in of a user's exec section. cluster is told to it when it asks for it. interactive:
 * it may ask the person at the terminal. Blocking.
 * err: AT_NOT_FOUND no such program, with its install hint | AT_UNAUTHENTICATED it failed |
 * AT_INVALID the section or the answer is malformed | AT_UNSUPPORTED its version. */
enum at_rc at_kubeconfig_exec(const char *config_path, const json_t *exec, const json_t *cluster,
                              bool interactive, struct at_kubeconfig_credential *ret,
                              struct at_err *err) AT_WARN_UNUSED;
/* What a plug-in printed. err: as above. */
enum at_rc at_kubeconfig_credential_parse(const char *text, size_t len, const char *api_version,
                                          struct at_kubeconfig_credential *ret,
                                          struct at_err *err) AT_WARN_UNUSED;

#endif
