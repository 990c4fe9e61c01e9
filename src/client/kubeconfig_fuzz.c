/* Kubeconfig files and what plug-ins print: no bytes break the reader, and what is taken in is
 * written in a form that is taken in again, with the same entries. */
#include "client/kubeconfig.h"
#include "core/mem.h"
#include "core/yaml.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(const json_t *root)
{
    struct at_kubeconfig config = {.n = 1};
    config.files[0] = (struct at_kubeconfig_file){
        .path = (char *)"/d/config", .root = (json_t *)root, .exists = true};
    size_t at;
    json_t *entry;
    json_array_foreach(json_object_get(root, "contexts"), at, entry)
    {
        const char *name = at_json_str_at(entry, "name", "");
        (void)at_kubeconfig_entry(&config, AT_KUBECONFIG_CONTEXTS, name, NULL);
    }
    AT_CLEANUP(at_cleanup_json) json_t *merged = at_kubeconfig_merged(&config);
    assert(merged == NULL || json_is_array(json_object_get(merged, "users")));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_json) json_t *root = NULL;
    struct at_kubeconfig_credential credential = {0};
    if (at_kubeconfig_credential_parse((const char *)data, size, "client.authentication.k8s.io/v1",
                                       &credential, &err) == AT_OK) {
        assert(credential.token != NULL || credential.cert_pem != NULL);
        at_kubeconfig_credential_done(&credential);
    }
    if (at_kubeconfig_parse((const char *)data, size, &root, &err) != AT_OK) {
        root = NULL;
        assert(err.msg[0] != '\0');
        return 0;
    }
    look(root);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_json) json_t *again = NULL;
    if (at_yaml_dump(root, &text) == AT_OK) {
        enum at_rc rc =
            at_kubeconfig_parse(text.data != NULL ? text.data : "", text.len, &again, &err);
        assert(rc == AT_OK);
        assert(json_equal(root, again));
    }
    return 0;
}
