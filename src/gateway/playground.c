#include "gateway/playground.h"

#include "core/mem.h"

#include <stdio.h>

#define ROOT "/playground"

/* Nothing from elsewhere, no script in a page's text, in nobody's frame; and asked anew each time,
 * which costs a 304, so that a page and its scripts are always of one version. */
static const char HEADERS[] =
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'\r\n"
    "Cross-Origin-Opener-Policy: same-origin\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Permissions-Policy: camera=(), microphone=(), geolocation=()\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Cache-Control: no-cache\r\n";

static const struct gw_page *find(struct at_str name)
{
    for (size_t i = 0; i < GW_PAGES_N; i++) {
        if (at_str_eq(name, GW_PAGES[i].name)) {
            return &GW_PAGES[i];
        }
    }
    return NULL;
}

/* RFC 9110 §13.1.2: a list of tags, compared weakly, or *. */
static bool has_tag(struct at_str list, const char *etag)
{
    while (list.len > 0) {
        struct at_str tag = at_str_trim(at_str_cut(&list, ','));
        if (at_str_starts(tag, "W/")) {
            tag = (struct at_str){tag.ptr + 2, tag.len - 2};
        }
        if (at_str_eq(tag, etag) || at_str_eq(tag, "*")) {
            return true;
        }
    }
    return false;
}

bool gw_playground_answer(struct at_http_exchange *ex)
{
    const struct at_http_head *head = at_http_request(ex);
    struct at_str path = head->path;
    if (at_str_eq(path, ROOT "/")) { /* what the page names is beside it, not below it */
        at_http_respond(ex, 308, "text/plain", "Location: ../playground\r\n", "see ../playground\n",
                        18);
        return true;
    }
    struct at_str name = AT_STR("index.html");
    if (!at_str_eq(path, ROOT)) {
        name = (struct at_str){path.ptr + sizeof ROOT, path.len - sizeof ROOT};
    }
    const struct gw_page *page = find(name);
    if (page == NULL) {
        return false;
    }
    char lines[sizeof HEADERS + 64];
    snprintf(lines, sizeof lines, "%sETag: %s\r\n", HEADERS, page->etag);
    if (has_tag(at_http_header_get(head, "if-none-match"), page->etag)) {
        at_http_respond(ex, 304, NULL, lines, NULL, 0);
    } else {
        at_http_respond(ex, 200, page->type, lines, page->data, page->len);
    }
    return true;
}
