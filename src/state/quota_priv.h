/* Amounts of resources, for quotas and ranges. */
#ifndef AT_STATE_QUOTA_PRIV_H
#define AT_STATE_QUOTA_PRIV_H

#include "state/quota.h"

#define QUOTA_NAME_BYTES_MAX 320

/* The one name of a resource that has several: cpu for requests.cpu and limits.cpu, instances for
 * pods, count/secrets for secrets. */
void quota_canonical(const char *name, char out[QUOTA_NAME_BYTES_MAX]);
/* Text of a quantity of that canonical resource, and back (out[AT_UNITS_TEXT_BYTES_MAX]). */
enum at_rc quota_parse(const char *canonical, const char *text, int64_t *ret) AT_WARN_UNUSED;
char *quota_format(const char *canonical, int64_t amount, char *out);
/* How much an instance has of it; counts are 1. */
int64_t quota_of_instance(const struct at_instance *i, const char *canonical);
/* Marks beside the names, for scopes. */
#define QUOTA_IS_INSTANCE "#instance"
#define QUOTA_IS_BEST_EFFORT "#bestEffort"
/* All that an object of any kind uses, by canonical name. own: caller decrefs. */
json_t *quota_use(const struct at_model_kind *kind, const json_t *object);
/* What the namespace holds by its objects alone. */
int64_t quota_held(struct at_state *state, const struct at_snapshot *snap,
                   const struct at_resource_quota *quota, const char *canonical);
/* Do the quota's scopes hold for what uses this? */
bool quota_in_scope(const struct at_resource_quota *quota, const json_t *use);

#endif
