/* tenancy.c, scan.c: what a namespace lets in. Part of api_priv.h. */
#ifndef AT_API_TENANCY_PRIV_H
#define AT_API_TENANCY_PRIV_H

#include "state/quota.h"

struct api_req;

/* Of an object that the path does not name. name may be NULL. */
void api_respond_forbidden_of(struct api_req *req, const char *name, const char *reason);
/* Is there room for req->object under key, in the place of old (NULL: it is new)? */
void api_quota_ask(struct api_req *req, const char *key, const json_t *old, int64_t old_rev,
                   at_quota_fn *fn);
void api_respond_refused(struct api_req *req, enum at_rc rc, const struct at_err *err);
void api_range_default(struct api_req *req);
bool api_range_admits(struct api_req *req); /* false: answered */
/* scan.c: what the rules of src/scan say of object (old: what it takes the place of; NULL). False:
 * answered. */
bool api_scan_admits(struct api_req *req, const json_t *object, const json_t *old);
/* body.c: does a patch have a member such as $patch? */
bool api_patch_has_directive(const json_t *patch);

#endif
