/* Events as lines of JSON, made once for all watchers that see them alike. */
#ifndef AT_API_LINE_H
#define AT_API_LINE_H

#include "core/buf.h"
#include "store/store.h"

struct at_api;
struct api_req;

/* One event as it is told to the watchers of one view. */
struct api_line {
    int64_t rev;
    const char *type;   /* "ADDED" and so on */
    bool pod, partial;  /* the view: of what, and how much of it */
    struct at_buf text; /* empty: none */
};

/* The line of an event of which kv is the object to be shown, not as a Table. type: a literal.
 * NULL: the stored object cannot be read. Borrowed until the next call. cost: the first of them
 * makes it.
 */
const struct at_buf *api_line(const struct api_req *req, const char *type,
                              const struct at_store_kv *kv, int64_t rev);
void api_lines_done(struct at_api *api);

#endif
