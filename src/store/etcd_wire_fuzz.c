/* What etcd might answer: the first byte chooses how it is read. Nothing may crash or leak; what is
 * taken has a revision. */
#include "core/mem.h"
#include "store/etcd_wire.h"

#include <assert.h>
#include <string.h>

static void as_watch(const char *text, size_t len)
{
    struct at_etcd_watch_line line;
    if (at_etcd_watch_line(text, len, &line, NULL) != AT_OK) {
        return;
    }
    size_t i;
    const json_t *event;
    json_array_foreach((json_t *)line.events, i, event)
    {
        struct at_store_version *v;
        bool deleted;
        assert(at_etcd_scheme(json_object_get(event, "kv")) >= 0);
        if (at_etcd_event(event, &deleted, &v, NULL, NULL) == AT_OK) {
            assert(v->mod_rev > 0);
            at_store_version_unref(v);
        }
    }
    at_etcd_watch_line_done(&line);
}

static void as_txn(const char *text, size_t len)
{
    json_error_t problem;
    AT_CLEANUP(at_cleanup_json) json_t *root = json_loadb(text, len, 0, &problem);
    struct at_etcd_txn_answer got = {0};
    for (enum at_etcd_form form = AT_ETCD_ONE; form <= AT_ETCD_APART; form++) {
        for (size_t i = 0; i < 2; i++) {
            if (at_etcd_txn_answer(root, form, i, &got, NULL) == AT_OK) {
                assert(got.rev > 0);
                at_store_version_unref(got.current);
            }
        }
    }
}

/* It becomes a header's value. */
static void as_token(const char *text, size_t len)
{
    json_error_t problem;
    AT_CLEANUP(at_cleanup_json) json_t *root = json_loadb(text, len, 0, &problem);
    const char *token = at_etcd_token(root);
    assert(token == NULL || (token[0] != '\0' && strpbrk(token, " \r\n\t") == NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const char *text = (const char *)data + 1;
    bool unsure;
    struct at_err err = {0};
    if (data[0] % 4 == 0) {
        as_watch(text, size - 1);
    } else if (data[0] % 4 == 1) {
        as_txn(text, size - 1);
    } else if (data[0] % 4 == 3) {
        as_token(text, size - 1);
    } else {
        assert(at_etcd_error(500, text, size - 1, &unsure, &err) != AT_OK);
    }
    return 0;
}
