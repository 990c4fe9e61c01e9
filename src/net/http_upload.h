/* Bodies that are taken as they come, for http_server.c and h2_server.c. */
#ifndef AT_NET_HTTP_UPLOAD_H
#define AT_NET_HTTP_UPLOAD_H

#include "net/h2_int.h"

/* The head of ex is complete, its body is not: does the handler want it so? */
bool at_http_upload_wanted(struct at_http_server *server, struct at_http_exchange *ex);
/* HTTP/1.1: bytes of the body, as many as its handler takes now; how many those were. */
size_t at_http_upload_data(struct at_http_conn *c, const char *data, size_t len);
/* HTTP/2: what has come, to those that take it now. */
void at_h2_uploads(struct at_h2 *h2);
/* Its deadline is past. */
void at_http_upload_late(struct at_http_exchange *ex);

#endif
