/* A host (up to the first line feed) and a path against some rules: who gets it, and as what. */
#include "core/mem.h"
#include "gateway/services.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char RULES[] = "{\"services\":[{\"model\":\"a\",\"hosts\":[\"a.org\",\"*.a.org\"],"
                            "\"path\":\"/x/\",\"rewrite\":\"/\"},"
                            "{\"model\":\"b\",\"hosts\":[\"*.b.a.org\"]},{\"model\":\"c\",\"path\":"
                            "\"/x/y\",\"rewrite\":\"/z\"},"
                            "{\"model\":\"d\"}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const char *end = size > 0 ? memchr(text, '\n', size) : NULL;
    if (end == NULL || end + 1 == text + size || end[1] != '/') {
        return 0;
    }
    struct at_str target = {end + 1, size - (size_t)(end + 1 - text)};
    const char *query = memchr(target.ptr, '?', target.len);
    struct at_http_head head = {.target = target, .path = target, .n_headers = 1};
    if (query != NULL) {
        head.path.len = (size_t)(query - target.ptr);
        head.query = (struct at_str){query + 1, target.len - head.path.len - 1};
    }
    head.headers[0].name = AT_STR("Host");
    head.headers[0].value = (struct at_str){text, (size_t)(end - text)};
    struct gw_rules *rules = NULL;
    enum at_rc rc = gw_rules_parse(RULES, sizeof RULES - 1, &rules, NULL);
    assert(rc == AT_OK);
    const struct gw_rule *rule = gw_rules_find(rules, &head);
    assert(rule != NULL); /* d takes what nobody else does */
    if (!gw_service_path_is_unclear(head.path)) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
        rc = gw_service_target(rule, &head, &out);
        assert(rc == AT_OK);
        assert(out.len > 0 && out.data[0] == '/');
        size_t len =
            query != NULL ? (size_t)((char *)memchr(out.data, '?', out.len) - out.data) : out.len;
        bool unclear = gw_service_path_is_unclear((struct at_str){out.data, len});
        assert(!unclear); /* a rewrite makes nothing of it that was not there */
    }
    gw_rules_unref(rules);
    return 0;
}
