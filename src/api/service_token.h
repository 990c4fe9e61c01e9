/* Tokens of service accounts. */
#ifndef AT_API_SERVICE_TOKEN_H
#define AT_API_SERVICE_TOKEN_H

#include "api/api_priv.h"

/* Claims of a service account's token that is meant for one of the audiences (none: this server),
 * while the account is there. NULL: not good. own: caller decrefs. */
json_t *api_service_claims(const struct at_api *api, struct at_str token, const json_t *audiences);
void api_service_identity(const json_t *claims, struct at_identity *ret);
api_handler_fn api_token_request;

/* Are the account, and what the token is bound to, still there? */
bool api_service_still(const struct at_api *api, const json_t *claims);

#endif
