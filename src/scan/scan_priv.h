/* Inside of scan, for this folder and its tests. */
#ifndef AT_SCAN_PRIV_H
#define AT_SCAN_PRIV_H

#include "core/str.h"
#include "scan/scan.h"

enum scan_rule {
    SCAN_PRIVILEGED,
    SCAN_ROOT,
    SCAN_ESCALATION,
    SCAN_CAPABILITIES,
    SCAN_HOST_NAMESPACES,
    SCAN_HOST_PATH,
    SCAN_HOST_PORT,
    SCAN_SECCOMP_OFF,
    SCAN_WRITABLE_ROOT,
    SCAN_AUTOMOUNT,
    SCAN_DOWNLOAD_RUN,
    SCAN_NO_LIMITS,
    SCAN_NO_GPU_MEMORY,
    SCAN_NO_PROBE,
    SCAN_ONE_REPLICA,
    SCAN_SECRET_ENV,
    SCAN_SECRET_ARGS,
    SCAN_SECRET_CONFIG,
    SCAN_SECRET_METADATA,
    SCAN_SECRET_FILE,
    SCAN_IMAGE_DIGEST,
    SCAN_IMAGE_LATEST,
    SCAN_MODEL_DIGEST,
    SCAN_MODEL_PLAIN,
    SCAN_MODEL_PICKLE,
    SCAN_OPEN_LISTENER,
    SCAN_PUBLIC_SERVICE,
    SCAN_TLS_OFF,
    SCAN_NETPOL_ALL,
    SCAN_RBAC_WILDCARD,
    SCAN_RBAC_ESCALATES,
    SCAN_RBAC_SECRETS,
    SCAN_RBAC_EXEC,
    SCAN_RBAC_ADMIN,
    SCAN_RBAC_EVERYBODY,
    SCAN_RBAC_DEFAULT_ACCOUNT,
    SCAN_CERTIFICATE,
    SCAN_CERTIFICATE_WEAK,
    SCAN_DATA_CLASS,
    SCAN_NS_QUOTA,
    SCAN_NS_POLICY,
    SCAN_NS_DEFAULT,
    SCAN_IGNORE_REASON,
    SCAN_IGNORE_RULE,
    SCAN_RULES,
};

extern const struct at_scan_rule SCAN_TABLE[SCAN_RULES];

/* One object under the lens. */
struct scan_look {
    const struct at_scan_input *input;
    struct at_scan_result *result;
    const json_t *object;
    const char *prefix;     /* of the object within what was given: "items[3]."; "" */
    const json_t *notes[2]; /* annotations, of the object and of its template; may be NULL */
    size_t found;
};

void scan_found(struct scan_look *look, enum scan_rule rule, const char *field, const char *fmt,
                ...) AT_PRINTF(4, 5);
void scan_found_as(struct scan_look *look, enum scan_rule rule, enum at_scan_severity severity,
                   const char *field, const char *fmt, ...) AT_PRINTF(5, 6);
/* Path on the result's arena. */
const char *scan_path(struct scan_look *look, const char *fmt, ...) AT_PRINTF(2, 3);

static inline const char *scan_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

/* --- world.c --- */
bool scan_world_has_class(const struct at_scan_world *world, const char *data_class);
/* Is there a quota, or a network policy, in the namespace? */
bool scan_world_has_quota(const struct at_scan_world *world, const char *ns);
bool scan_world_has_policy(const struct at_scan_world *world, const char *ns);

/* --- what kinds have --- */
void scan_workload(struct scan_look *look, const json_t *spec, const char *base); /* workload.c */
void scan_env(struct scan_look *look, const json_t *env, const char *base);
void scan_pod(struct scan_look *look, const json_t *spec, const char *base); /* pod.c */
void scan_rbac_rules(struct scan_look *look, bool cluster);                  /* rbac.c */
void scan_rbac_binding(struct scan_look *look);
void scan_certificates(struct scan_look *look, const char *text, size_t len, const char *field);
/* A kubeconfig, and what a command line makes of the connection it uses: "server.certificate". */
void scan_kubeconfig(struct scan_look *look);
/* image.c: where bytes come from */
void scan_image(struct scan_look *look, const char *image, const char *field);
void scan_model(struct scan_look *look, const json_t *model, const char *base);

/* --- command.c: words of a command line --- */
struct scan_word {
    struct at_str text;
    const char *field;
};
struct scan_words {
    struct scan_word items[AT_SCAN_WORDS_MAX];
    size_t n;
};
/* command and args as words; what a shell is given is taken apart too. */
void scan_command(struct scan_look *look, const json_t *command, const char *command_field,
                  const json_t *args, const char *args_field);

/* Does the value of a flag or variable of that name mean every address? */
bool scan_is_open_address(struct at_str name, struct at_str value);

/* --- secret.c --- */
struct scan_secret {
    const char *what; /* "an AWS access key"; static */
    enum at_scan_severity severity;
};
/* Is a secret of a known shape anywhere in text? */
bool scan_secret_shape(struct at_str text, struct scan_secret *ret);
/* Does this name promise a secret, and is this value one rather than where to find it? */
bool scan_secret_name(struct at_str name);
bool scan_secret_value(struct at_str value);
/* A text that looks drawn at random. */
bool scan_secret_random(struct at_str text);
/* All of these; name may be empty. */
bool scan_secret(struct at_str name, struct at_str value, struct scan_secret *ret);

#endif
