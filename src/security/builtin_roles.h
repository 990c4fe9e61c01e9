/* The roles that every server has: made at its start, and put back when somebody changed them. */
#ifndef AT_SECURITY_BUILTIN_ROLES_H
#define AT_SECURITY_BUILTIN_ROLES_H

#include <jansson.h>

/* ClusterRoles cluster-admin, admin, edit, view. own: caller decrefs. */
json_t *at_builtin_roles(void);

#endif
