/* Models that are packages: what a tag stands for, and fetching before a rollout. */
#ifndef AT_CONTROLLERS_PACKAGE_H
#define AT_CONTROLLERS_PACKAGE_H

#include "controllers/controllers_priv.h"

struct ctl_package {
    const char *uri;    /* NULL: the template's model is no package */
    const char *digest; /* NULL: it is named by a tag that nobody looked up yet */
    const char *secret; /* may be NULL */
    bool by_tag;        /* its digest is to be written into the copies */
};

struct ctl_package ctl_package_of(const struct at_deployment *d, const char *hash);
/* What one of the copies found out about the tag; NULL: nothing yet. */
const char *ctl_package_found(const struct ctl_package *p, const struct at_instance *const *copies,
                              int64_t n);
/* The same of one that fetched it beforehand. */
const char *ctl_package_prefetched(const struct ctl_package *p,
                                   const struct at_instance *const *copies, int64_t n);
/* Ask the nodes of the copies that serve to fetch it. NULL: they have it, the rollout may begin;
 * else what it waits for. */
const char *ctl_package_prefetch(struct ctl_pass *pass, const struct ctl_package *p,
                                 const struct at_instance *const *copies, int64_t n);

#endif
