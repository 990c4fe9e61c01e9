/* What parses must dump and parse to the same value again. */
#include "core/mem.h"
#include "core/yaml.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_round_trip(const json_t *value)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    struct at_yaml_doc *docs = NULL;
    size_t count = 0;
    if (at_yaml_dump(value, &text) != AT_OK ||
        at_yaml_parse(text.data, text.len, &docs, &count, NULL) != AT_OK || count != 1 ||
        !json_equal(value, docs[0].value)) {
        abort();
    }
    at_yaml_docs_free(docs, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_yaml_doc *docs = NULL;
    size_t count = 0;
    if (at_yaml_parse((const char *)data, size, &docs, &count, NULL) != AT_OK) {
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        check_round_trip(docs[i].value);
        size_t line = at_yaml_find_line((const char *)data, size, docs[i].line, "spec.env[1].name");
        if (line < docs[i].line) {
            abort();
        }
    }
    at_yaml_docs_free(docs, count);
    return 0;
}
