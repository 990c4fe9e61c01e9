/* Which API groups there are. */
#ifndef AT_API_DISCOVERY_H
#define AT_API_DISCOVERY_H

#include "api/limits.h"

#include <stddef.h>

/* The API groups but the core one, in the order in which they are shown. */
size_t api_groups(const char *ret[AT_API_GROUPS_MAX]);

#endif
