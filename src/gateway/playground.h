/* The playground: pages for trying models in a browser, from console/playground, built in. They
 * hold nothing that is secret and ask for models as any client does, with the key that their user
 * has. */
#ifndef AT_GATEWAY_PLAYGROUND_H
#define AT_GATEWAY_PLAYGROUND_H

#include "net/http_server.h"

struct gw_page {
    const char *name; /* "app.js" */
    const char *type;
    const char *etag; /* with its quotes */
    const unsigned char *data;
    size_t len;
};
/* Made by tools/embed-pages. */
extern const struct gw_page GW_PAGES[];
extern const size_t GW_PAGES_N;

/* Answer a GET or HEAD of /playground or what is below it; false: there is no such page, and
 * nothing was answered. */
bool gw_playground_answer(struct at_http_exchange *ex);

#endif
