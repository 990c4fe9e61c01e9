/* Any JSON, as any kind: defaults, validation, decoding and encoding must hold together. The first
 * byte picks the kind. */
#include "model/model_priv.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void valid_means_decodable(const struct at_model_kind *kind, json_t *json,
                                  struct at_arena *arena)
{
    struct at_model_report report;
    struct at_err err;
    bool valid =
        at_model_validate(kind, json, json, AT_MODEL_UNKNOWN_DROP, arena, &report, &err) == AT_OK;
    void *object = at_arena_alloc(arena, kind->struct_size);
    enum at_rc rc = at_model_decode(kind, json, arena, object, &err);
    if (valid && rc != AT_OK) {
        abort();
    }
    json_t *back = NULL;
    if (rc != AT_OK || at_model_encode(kind, object, &back, &err) != AT_OK) {
        return;
    }
    void *again = at_arena_alloc(arena, kind->struct_size);
    if (at_model_decode(kind, back, arena, again, &err) != AT_OK) {
        abort(); /* what we write we can read */
    }
    for (size_t i = 0; i < kind->n_columns; i++) {
        (void)at_model_cell(&kind->columns[i], json, 0, arena);
    }
    json_decref(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    size_t n;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    json_t *json = NULL;
    if (len == 0 || at_json_parse((const char *)data + 1, len - 1, &json, NULL) != AT_OK) {
        return 0;
    }
    struct at_arena *arena = at_arena_new(0);
    const struct at_model_kind *kind = kinds[data[0] % n];
    if (json_is_object(json) && at_model_default(kind, json, NULL) == AT_OK) {
        valid_means_decodable(kind, json, arena);
    }
    at_arena_free(arena);
    json_decref(json);
    return 0;
}
