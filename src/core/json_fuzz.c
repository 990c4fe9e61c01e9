/* The first line is a document, the second a merge patch, the third a JSON patch. What parses must
 * dump and parse to the same again; patches must keep the depth limit. */
#include "core/json.h"
#include "core/mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static json_t *parse_line(const char **at, const char *end)
{
    json_t *value = NULL;
    const char *newline = memchr(*at, '\n', (size_t)(end - *at));
    const char *stop = newline != NULL ? newline : end;
    if (at_json_parse(*at, (size_t)(stop - *at), &value, NULL) != AT_OK) {
        value = NULL;
    }
    *at = newline != NULL ? newline + 1 : end;
    return value;
}

static void check_round_trip(const json_t *value)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    json_t *again = NULL;
    if (at_json_dump(value, &text) != AT_OK ||
        at_json_parse(text.data, text.len, &again, NULL) != AT_OK || !json_equal(value, again)) {
        abort();
    }
    json_decref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *at = (const char *)data;
    const char *end = at + size;
    if (size == 0) {
        return 0;
    }
    json_t *target = parse_line(&at, end);
    json_t *merge = parse_line(&at, end);
    json_t *ops = parse_line(&at, end);
    json_t *patched = NULL;
    if (target != NULL) {
        check_round_trip(target);
    }
    if (target != NULL && ops != NULL && at_json_patch(target, ops, &patched, NULL) == AT_OK) {
        check_round_trip(patched);
    }
    if (target != NULL && merge != NULL) {
        target = at_json_merge_patch(target, merge);
        check_round_trip(target);
    }
    json_decref(patched);
    json_decref(ops);
    json_decref(merge);
    json_decref(target);
    return 0;
}
