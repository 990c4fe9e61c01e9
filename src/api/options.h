/* Options of requests. */
#ifndef AT_API_OPTIONS_H
#define AT_API_OPTIONS_H

#include "api/api_priv.h"

/* dryRun and fieldValidation. False: answered. */
bool api_options_read(struct api_req *req);
/* What may be said together of the version that a list or a watch begins with. False: answered. */
bool api_list_options_check(struct api_req *req, bool watch);
/* Is that version there already? False: answered with 504, as to be tried again. */
bool api_version_there(struct api_req *req, int64_t wanted);
/* 422: an option is not valid. */
void api_respond_option(struct api_req *req, const char *reason, const char *field,
                        const char *message);

#endif
