/* The roles that every server has: made at its start, and put back when somebody changed them. */
#ifndef AT_SECURITY_BUILTIN_ROLES_H
#define AT_SECURITY_BUILTIN_ROLES_H

#include <jansson.h>
#include <stdbool.h>

/* ClusterRoles cluster-admin, admin, edit, view, and the parts that the latter three are made of.
 * own: caller decrefs. */
json_t *at_builtin_roles(void);

/* Kinds that say what a tenant may hold: quotas and ranges. Whoever edits a namespace reads them
 * and does not write them. */
struct at_model_kind;
bool at_bounds_tenants(const struct at_model_kind *kind);

#endif
