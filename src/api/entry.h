/* Who may come in at all (entry.c), and the making of tokens (access_token.c). */
#ifndef AT_API_ENTRY_H
#define AT_API_ENTRY_H

#include "api/api_priv.h"
#include "security/crl.h"

#define API_TOKEN_ID_BYTES 32
#define API_BY_CERTIFICATE "certificate"

void api_entry_begin(struct at_api *api);
void api_entry_done(struct at_api *api);
/* Why a certificate that TLS found good is not taken: a sentence. NULL: it is. */
const char *api_entry_refuses(const struct at_api *api, const struct at_tls_peer *peer);
/* Groups of ours are given by our own authority alone. */
bool api_entry_group_counts(const struct at_api *api, const struct at_tls_peer *peer,
                            const char *group);
/* Is it a token that is kept, and still good? */
bool api_entry_token(const struct at_api *api, struct at_str text, struct at_identity *ret,
                     char ret_id[API_TOKEN_ID_BYTES], int64_t *ret_expires_ns);
/* What a request came in by has not been taken away since. */
bool api_still_in(struct api_req *req);
bool api_over_time(const struct api_req *req); /* what it came in by has ended by itself */

/* --- access_token.c --- */
api_handler_fn api_access_token_make;
/* Is this write none of a token's own object? False: answered. */
bool api_access_token_admits(struct api_req *req);

#endif
