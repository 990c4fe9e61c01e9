/* Bodies of plain services that are passed on before they are whole. */
#ifndef AT_GATEWAY_UPLOAD_H
#define AT_GATEWAY_UPLOAD_H

#include "net/http_server.h"

/* handle.c, for at_http_server_options.early: is this for a plain service, and large or of no known
 * length? Smaller ones are taken whole: they can be sent again, elsewhere. */
bool gw_upload_wanted(void *worker, const struct at_http_exchange *ex);

#endif
