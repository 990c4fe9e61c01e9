/* Who someone is, and what they may do. Certificates, tokens, RBAC decisions. No network. */
#ifndef AT_SECURITY_SECURITY_H
#define AT_SECURITY_SECURITY_H

#include "core/json.h"
#include "core/log.h"
#include "core/str.h"
#include "sys/sys.h"

/* --- certificates: an own CA, ECDSA P-256, X.509 v3 --- */
struct at_ca;
/* Load dir/ca.crt and dir/ca.key, or make them (0600) when absent. err: AT_CORRUPT a file is not
 * what it should be, or the two do not belong together | those of sys/file.h. own: at_ca_free. */
enum at_rc at_ca_open(const char *dir, const struct at_sys *sys, struct at_ca **ret,
                      struct at_err *err) AT_WARN_UNUSED;
void at_ca_free(struct at_ca *ca);
const char *at_ca_cert_pem(const struct at_ca *ca);
const char *at_ca_pin_sha256_hex(const struct at_ca *ca); /* digest of the CA's SPKI */

struct at_cert_request {
    const char *common_name;
    const char *const *organizations; /* NULL-terminated, may be NULL */
    const char *const *dns_names;     /* SANs, may be NULL */
    const char *const *ip_addresses;
    bool server, client; /* extended key usage */
    int64_t lifetime_s;
};
/* A new key and a certificate for it. err: AT_INVALID no name or lifetime | AT_INTERNAL
 * of OpenSSL. own: caller frees both with at_free. */
enum at_rc at_ca_issue(struct at_ca *ca, const struct at_cert_request *request, char **ret_cert_pem,
                       char **ret_key_pem, struct at_err *err) AT_WARN_UNUSED;
/* Certificate for a CSR's public key (its signature is checked; its names are ignored: request says
 * them). err: AT_BAD_REQUEST no CSR, not signed by its own key, or too weak a key. own: caller
 * at_free. */
enum at_rc at_ca_sign_csr(struct at_ca *ca, const char *csr_pem,
                          const struct at_cert_request *request, char **ret_cert_pem,
                          struct at_err *err) AT_WARN_UNUSED;
/* A key and a CSR for it, at the joining side. err: AT_INTERNAL of OpenSSL. own: caller at_free. */
enum at_rc at_csr_new(const char *common_name, char **ret_csr_pem, char **ret_key_pem,
                      struct at_err *err) AT_WARN_UNUSED;
/* Not-after of a PEM certificate, ns since 1970. err: AT_INVALID no certificate. */
enum at_rc at_cert_expiry(const char *cert_pem, int64_t *ret_wall_ns,
                          struct at_err *err) AT_WARN_UNUSED;

/* --- identity --- */
#define AT_IDENTITY_GROUPS_MAX 16
struct at_identity {
    char user[384]; /* system:serviceaccount:<namespace>:<name> is the longest */
    char groups[AT_IDENTITY_GROUPS_MAX][128];
    size_t n_groups;
};
#define AT_USER_ANONYMOUS "system:anonymous"
#define AT_GROUP_MASTERS "system:masters" /* everything */
#define AT_GROUP_NODES "system:nodes"     /* CN "system:node:<name>" */
#define AT_GROUP_GATEWAYS "system:gateways"
#define AT_GROUP_VIEWERS "atoll:viewers"
#define AT_GROUP_EDITORS "atoll:editors"

/* --- tokens: "<kind>.<id>.<secret>"; only the secret's SHA-256 is ever stored --- */
struct at_token {
    char text[160]; /* the whole token: show once */
    char id[32];
    char secret_sha256_hex[65];
};
void at_token_new(const struct at_sys *sys, const char *kind, struct at_token *ret);
/* Split into id and digest of the secret, to be looked up and compared. err: AT_UNAUTHENTICATED
 * malformed. */
enum at_rc at_token_parse(const char *text, const char *kind, char out_id[32],
                          char out_secret_sha256_hex[65], struct at_err *err) AT_WARN_UNUSED;

/* --- tokens of service accounts: JWTs, ES256, by a key that follows from the CA's --- */
struct at_service_key;
/* err: AT_INTERNAL of OpenSSL. own: at_service_key_free. */
enum at_rc at_service_key_new(const struct at_ca *ca, struct at_service_key **ret,
                              struct at_err *err) AT_WARN_UNUSED;
void at_service_key_free(struct at_service_key *key);
/* Issuer of its tokens, and the audience that means this authority's servers. */
const char *at_service_key_issuer(const struct at_service_key *key);
/* Sign claims; "iss" is put in. err: AT_TOO_LARGE | AT_INTERNAL of OpenSSL. own: caller at_free. */
enum at_rc at_service_token_sign(const struct at_service_key *key, json_t *claims, char **ret,
                                 struct at_err *err) AT_WARN_UNUSED;
/* The claims of a token whose signature, issuer and times are good; audience and accounts are the
 * caller's to check. err: AT_UNAUTHENTICATED. own: caller decrefs. */
enum at_rc at_service_token_open(const struct at_service_key *key, struct at_str text,
                                 int64_t now_wall_ns, json_t **ret,
                                 struct at_err *err) AT_WARN_UNUSED;

/* --- RBAC --- */
struct at_access {
    const char *verb; /* get list watch create update patch delete */
    const char *group, *resource,
        *subresource; /* resource "" : non-resource request, path is in `path` */
    const char *ns, *name;
    const char *path;
    const char *node_name; /* for instances: spec.nodeName of the object, or of the field selector;
                              NULL unknown */
};
/* Built-in roles: admin (system:masters), editor, viewer, agent (own Node and Instances only),
 * gateway. Default is no. ret_reason: a sentence, in out (may be NULL). Pure. */
bool at_rbac_allowed(const struct at_identity *who, const struct at_access *what, char *out_reason,
                     size_t out_size);
/* Role names that apply to who, for SelfSubjectRulesReview: JSON array of {verbs, apiGroups,
 * resources, resourceNames}. */
json_t *at_rbac_rules(const struct at_identity *who);

#endif
