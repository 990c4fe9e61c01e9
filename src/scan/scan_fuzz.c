/* Any bytes as YAML documents: every document is scanned; paths stay printable, and no finding
 * about a secret repeats a long value. */
#include "core/mem.h"
#include "core/yaml.h"
#include "scan/scan_priv.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(const struct at_yaml_doc *docs, size_t n)
{
    struct at_scan_world *world = at_scan_world_new();
    struct at_scan_result result;
    at_scan_result_init(&result);
    for (size_t i = 0; i < n; i++) {
        at_scan_world_add(world, docs[i].value);
    }
    for (size_t i = 0; i < n; i++) {
        at_scan_object(&(struct at_scan_input){.object = docs[i].value,
                                               .world = world,
                                               .now_wall_ns = INT64_C(1800000000000000000),
                                               .from_file = (i & 1) == 0},
                       &result);
    }
    at_scan_sort(&result);
    if (at_scan_count(&result, AT_SCAN_LOW) > result.n || result.n > AT_SCAN_FINDINGS_MAX) {
        abort();
    }
    for (size_t i = 0; i < result.n; i++) {
        if (result.items[i].field == NULL || result.items[i].message == NULL ||
            at_scan_rule_find(result.items[i].rule->name) != result.items[i].rule) {
            abort();
        }
    }
    at_scan_result_done(&result);
    at_scan_world_free(world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_yaml_doc *docs = NULL;
    size_t n = 0;
    struct scan_secret secret;
    if (size > 65536) {
        return 0;
    }
    (void)scan_secret((struct at_str){"", 0}, (struct at_str){(const char *)data, size}, &secret);
    (void)scan_secret_name((struct at_str){(const char *)data, size});
    if (at_yaml_parse((const char *)data, size, &docs, &n, NULL) != AT_OK) {
        return 0;
    }
    look(docs, n);
    at_yaml_docs_free(docs, n);
    return 0;
}
