/* admin.kubeconfig as text. */
#include "apps/server.h"
#include "core/digest.h"
#include "core/json.h"
#include "core/mem.h"
#include "sys/file.h"

#include <string.h>

static enum at_rc base64_into(struct at_buf *out, const char *label, const char *pem)
{
    enum at_rc rc = at_buf_append_str(out, label);
    if (rc == AT_OK) {
        rc = at_base64_encode(pem, strlen(pem), out);
    }
    return rc == AT_OK ? at_buf_append_str(out, "\n") : rc;
}

/* An extension, which kubectl leaves alone and atoll reads. */
static enum at_rc servers_into(struct at_buf *out, const json_t *servers)
{
    if (json_array_size(servers) < 2) {
        return AT_OK;
    }
    enum at_rc rc = at_buf_append_str(
        out, "    extensions:\n    - name: atoll.dev/servers\n      extension:\n        servers: ");
    if (rc == AT_OK) {
        rc = at_json_dump(servers, out);
    }
    return rc == AT_OK ? at_buf_append_str(out, "\n") : rc;
}

enum at_rc at_app_kubeconfig_write(const struct at_app_kubeconfig *k, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc =
        at_buf_printf(&text,
                      "apiVersion: v1\nkind: Config\ncurrent-context: atoll\n"
                      "contexts:\n- name: atoll\n  context:\n    cluster: atoll\n    user: admin\n"
                      "clusters:\n- name: atoll\n  cluster:\n    server: %s\n",
                      k->url);
    if (rc == AT_OK) {
        rc = base64_into(&text, "    certificate-authority-data: ", k->ca_pem);
    }
    if (rc == AT_OK) {
        rc = servers_into(&text, k->servers);
    }
    if (rc == AT_OK) {
        rc = at_buf_append_str(&text, "users:\n- name: admin\n  user:\n");
    }
    if (rc == AT_OK) {
        rc = base64_into(&text, "    client-certificate-data: ", k->cert_pem);
    }
    if (rc == AT_OK) {
        rc = base64_into(&text, "    client-key-data: ", k->key_pem);
    }
    if (rc != AT_OK) {
        return at_err_set(err, rc, "%s: could not be composed", k->path);
    }
    rc = at_file_write_atomic(k->path, text.data, text.len, 0600, err);
    explicit_bzero(text.data, text.len);
    return rc;
}
