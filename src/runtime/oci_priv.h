/* The inside of the oci driver. */
#ifndef AT_RUNTIME_OCI_PRIV_H
#define AT_RUNTIME_OCI_PRIV_H

#include "runtime/supervise.h"

/* An unpacked image: shared by all its containers, never written to. */
struct at_oci_image {
    char *rootfs;
    json_t *process;    /* of umoci's config.json: args, env, cwd, user */
    json_t *entrypoint; /* array of strings, may be empty */
};

/* "oci:/path:tag" and "docker://..." are taken; err names what is wrong with others. */
enum at_rc at_oci_image_check(const char *image, struct at_err *err) AT_WARN_UNUSED;
/* Fetch and unpack once per digest under state_dir. Blocking, seconds to minutes: in the pool, one
 * at a time per state_dir. own: at_oci_image_done. */
enum at_rc at_oci_image_get(const char *state_dir, const char *image, const bool *cancelled,
                            struct at_oci_image *ret, struct at_err *err) AT_WARN_UNUSED;
void at_oci_image_done(struct at_oci_image *image);
/* Digest of the manifest that tag names in an OCI layout's index.json; out: "sha256:<hex>".
 * nested: it names another index, for several platforms. */
enum at_rc at_oci_index_find(const json_t *index, const char *tag, char out_digest[80],
                             bool *ret_nested, struct at_err *err) AT_WARN_UNUSED;

/* Run a helper program to its end; a failure's message is the last line that it printed. */
enum at_rc at_oci_command(const char *const *argv, int64_t timeout_ns, const bool *cancelled,
                          struct at_err *err) AT_WARN_UNUSED;
/* Environment of helper programs: PATH, HOME, proxies, registry credentials. own: caller at_free
 * each and the list. */
char **at_oci_environment(void);
void at_oci_environment_free(char **envp);

/* The container's config.json. own: caller. err: AT_INVALID nothing to run. */
enum at_rc at_oci_config(const struct at_runtime_spec *spec, const struct at_oci_image *image,
                         const struct at_cgroup_limits *limits, const char *rootfs, json_t **ret,
                         struct at_err *err) AT_WARN_UNUSED;

#endif
