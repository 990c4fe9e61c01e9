/* Who may what, and what is kept of it; a part of api_priv.h. */
#ifndef AT_API_ACCESS_PRIV_H
#define AT_API_ACCESS_PRIV_H

#include "api/api_priv.h"

/* --- audit.c --- */
/* One record for a request, by the level that is set. Called for streams when they begin; the
 * answers do it by themselves. Returns what an answer has to wait for; 0: nothing. */
uint64_t api_req_audit(struct api_req *req, int status);
/* Before a change is stored: its record, as if it came to status. So record and change become
 * durable side by side; when it comes to something else, another record says so. */
void api_audit_ahead(struct api_req *req, int status);
/* It came to nothing, and is tried again as another change. */
void api_audit_void(struct api_req *req, int status);
/* False: answered 503, for it could not be recorded. */
bool api_audit_admits(struct api_req *req);
void api_hold(struct api_req *req, uint64_t ticket, int status, const char *content_type,
              const char *headers, const void *text, size_t len);
void api_held_drop(struct at_api *api);
/* --- oidc.c --- */
enum at_rc api_oidc_new(struct at_api *api, struct at_err *err) AT_WARN_UNUSED;
void api_oidc_free(struct at_api *api);
/* err: AT_UNAUTHENTICATED | AT_NOT_FOUND its key is not known (yet). */
enum at_rc api_oidc_check(const struct at_api *api, struct at_str token, struct at_identity *ret,
                          int64_t *ret_expires_ns, struct at_err *err) AT_WARN_UNUSED;
/* Until keys have come: then api_handle_again. False: it does not help to wait. */
bool api_oidc_wait(struct api_req *req);
void api_handle_again(struct api_req *req); /* api.c: from authentication on */
/* --- guess.c --- */
struct api_guesses *api_guesses_new(void);
void api_guesses_free(struct api_guesses *g);
void api_guess_failed(struct api_req *req);
bool api_guess_admits(struct api_req *req); /* false: answered 429 */
/* --- rights.c --- */
void api_rights_begin(struct at_api *api);
void api_rights_done(struct at_api *api);
/* The one decision: built-in rights and those that are stored. */
bool api_may(const struct at_api *api, const struct at_identity *who, const struct at_access *what,
             char *reason, size_t size);
/* May it give away what object says, being a role or a binding? False: answered. */
bool api_rights_admit(struct api_req *req, const json_t *old, const json_t *object);
/* May the request still do what it does? For streams when rights have changed. */
bool api_still_may(struct api_req *req);
void api_streams_recheck(struct at_api *api); /* watch.c */
void api_links_recheck(struct at_api *api);   /* link.c */
void api_tunnels_recheck(struct at_api *api); /* tunnel.c */
/* recheck.c: what goes on is asked again whether it may, after the turn, and from then on now and
 * then whether its time is over. */
void api_recheck_soon(struct at_api *api);
void api_recheck_done(struct at_api *api);
/* May it go on? Else why not. */
bool api_goes_on(struct api_req *req, const char **ret_why);
/* --- secrets.c --- */
api_handler_fn api_secrets_show, api_secrets_rotate;
void api_secrets_begin(struct at_api *api); /* seal anew what lies there under an old key */
void api_secrets_done(struct at_api *api);

#endif
