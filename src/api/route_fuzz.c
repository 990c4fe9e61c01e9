/* Paths and queries: nothing a client writes there may harm, and what is accepted is bounded. */
#include "api/api_priv.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_str query = {(const char *)data, size};
    struct at_str path = at_str_cut(&query, '?');
    struct api_req req = {.arena = at_arena_new(1 << 20), .query = query};
    if (api_route_parse(path, &req.route, NULL) == AT_OK) {
        assert(strlen(req.route.name) < API_NAME_BYTES);
        assert(strchr(req.route.name, '/') == NULL);
        assert(strchr(req.route.ns, '/') == NULL);
        if (req.route.target == API_RESOURCE) {
            struct api_filter filter;
            assert(req.route.kind != NULL);
            if (api_filter_parse(&req, &filter, NULL) == AT_OK) {
                struct api_span span;
                api_span_of(&req, &filter, &span);
                assert(strncmp(span.from, "/atoll/", 7) == 0);
                (void)api_filter_may_match(&filter, "{}", 2);
                (void)api_filter_match(&filter, NULL);
            }
        }
    }
    at_arena_free(req.arena);
    return 0;
}
