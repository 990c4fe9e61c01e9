/* The book of roles and bindings that are stored, compiled so that a decision looks only at the
 * bindings of who asks: one look-up per name or group, and namespace. Rules as in Kubernetes' RBAC.
 * Pure; one thread. */
#ifndef AT_SECURITY_BOOK_H
#define AT_SECURITY_BOOK_H

#include "security/security.h"

struct at_book;

struct at_book *at_book_new(void);
void at_book_free(struct at_book *book); /* accepts NULL */
/* kind: Role, ClusterRole, RoleBinding, ClusterRoleBinding; others are ignored. object NULL: it is
 * gone. ns NULL for those of the cluster. cost: of what is in the object. */
void at_book_put(struct at_book *book, const char *kind, const char *ns, const char *name,
                 const json_t *object);
size_t at_book_bindings(const struct at_book *book);

/* As at_rbac_allowed, by the table of built-in rights and by the book (may be NULL). verb, group,
 * resource and path may be "*": that is allowed only where all is. */
bool at_book_allowed(const struct at_book *book, const struct at_identity *who,
                     const struct at_access *what, char *out_reason, size_t out_size);
/* Does who have all that rules (of a role) say, in ns ("": everywhere)? missing: the first right
 * that is not had, as a sentence. */
bool at_book_covers(const struct at_book *book, const struct at_identity *who, const char *ns,
                    const json_t *rules, char *out_missing, size_t out_size);
/* The rules of the role that a binding names, aggregated ones with all their parts. NULL: there is
 * no such role. own: caller decrefs. */
json_t *at_book_role_rules(const struct at_book *book, const char *kind, const char *ns,
                           const char *name);
/* Do the selectors of an aggregationRule pick a ClusterRole with these labels (may be NULL)? */
bool at_role_is_picked(const json_t *selectors, const json_t *labels);
/* As at_rbac_rules, with what is had in ns. own: caller decrefs. */
json_t *at_book_rules(const struct at_book *book, const struct at_identity *who, const char *ns);

#endif
