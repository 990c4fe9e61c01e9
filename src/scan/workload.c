/* Atoll's workloads: what an Instance, and the template of a Deployment or Job, say. */
#include "core/mem.h"
#include "model/model.h"
#include "scan/scan_priv.h"

static bool is_set(const json_t *resources, const char *key)
{
    const json_t *value = json_object_get(resources, key);
    const char *text = json_string_value(value);
    return value != NULL && !json_is_null(value) &&
           (text != NULL ? text[0] != '\0' && !at_streq(text, "0") : json_number_value(value) > 0);
}

static bool is_share(const json_t *gpu)
{
    int64_t milli = 0;
    if (json_is_real(gpu)) {
        milli = (int64_t)(json_real_value(gpu) < 1e6 ? json_real_value(gpu) * 1000 : 0);
    } else if (json_is_string(gpu) &&
               at_model_amount_parse("gpu", json_string_value(gpu), &milli, NULL) != AT_OK) {
        return false;
    }
    return milli > 0 && milli % 1000 != 0;
}

static void resources_check(struct scan_look *look, const json_t *spec, const char *base)
{
    const json_t *resources = json_object_get(spec, "resources");
    const char *field = resources != NULL ? scan_path(look, "%s.resources", base) : base;
    bool cpu = is_set(resources, "cpu"), memory = is_set(resources, "memory");
    if (!cpu || !memory) {
        scan_found(look, SCAN_NO_LIMITS, field, "resources: %s%s%s not set", cpu ? "" : "cpu",
                   !cpu && !memory ? " and " : "", memory ? "" : "memory");
    }
    if (is_share(json_object_get(resources, "gpu")) && !is_set(resources, "gpuMemory")) {
        scan_found(look, SCAN_NO_GPU_MEMORY, scan_path(look, "%s.resources.gpu", base),
                   "a share of a GPU, and gpuMemory is not set");
    }
}

static void user_check(struct scan_look *look, const json_t *spec, const char *base)
{
    bool image = scan_text(spec, "image")[0] != '\0';
    const json_t *user = json_object_get(spec, "user");
    if (image && json_integer_value(user) <= 0) {
        scan_found_as(look, SCAN_ROOT, user != NULL ? AT_SCAN_HIGH : AT_SCAN_MEDIUM,
                      user != NULL ? scan_path(look, "%s.user", base)
                                   : scan_path(look, "%s.image", base),
                      "user is %s: the image's own user, which is root in most images",
                      user != NULL ? "0" : "not set");
    }
}

void scan_env(struct scan_look *look, const json_t *env, const char *base)
{
    size_t i;
    json_t *item;
    json_array_foreach(env, i, item)
    {
        const json_t *value = json_object_get(item, "value");
        struct at_str name = at_str_of(scan_text(item, "name"));
        struct at_str text = {json_string_value(value), json_string_length(value)};
        struct scan_secret secret;
        const char *field = scan_path(look, "%s[%zu].value", base, i);
        if (text.ptr == NULL) {
            continue;
        }
        if (scan_secret(name, text, &secret)) {
            scan_found_as(look, SCAN_SECRET_ENV, secret.severity, field, "%.64s: %s", name.ptr,
                          secret.what);
        }
        if ((at_streq(name.ptr, "NODE_TLS_REJECT_UNAUTHORIZED") && at_str_eq(text, "0")) ||
            (at_streq(name.ptr, "PYTHONHTTPSVERIFY") && at_str_eq(text, "0")) ||
            (at_streq(name.ptr, "GIT_SSL_NO_VERIFY") && text.len > 0)) {
            scan_found(look, SCAN_TLS_OFF, field, "%s=%.8s", name.ptr, text.ptr);
        }
        if (scan_is_open_address(name, text)) {
            scan_found(look, SCAN_OPEN_LISTENER, field, "%.64s: every address", name.ptr);
        }
    }
}

static void folder_check(struct scan_look *look, const json_t *spec, const char *base)
{
    const char *folder = scan_text(spec, "workingDir");
    size_t i;
    json_t *item;
    if (folder[0] == '/' && scan_text(spec, "image")[0] == '\0') {
        bool system = at_streq(folder, "/") || at_str_starts(at_str_of(folder), "/etc") ||
                      at_str_starts(at_str_of(folder), "/root") ||
                      at_str_starts(at_str_of(folder), "/var/lib");
        scan_found_as(look, SCAN_HOST_PATH, system ? AT_SCAN_HIGH : AT_SCAN_LOW,
                      scan_path(look, "%s.workingDir", base), "it works in %.200s of its machine",
                      folder);
    }
    json_array_foreach(json_object_get(spec, "data"), i, item)
    {
        if (at_str_starts(at_str_of(scan_text(item, "uri")), "file:///")) {
            scan_found_as(look, SCAN_HOST_PATH, AT_SCAN_LOW,
                          scan_path(look, "%s.data[%zu].uri", base, i),
                          "data by its path on one machine");
        }
    }
}

static void serving_check(struct scan_look *look, const json_t *spec, const char *base)
{
    int64_t port = json_integer_value(json_object_get(spec, "port"));
    bool deployed = at_streq(scan_text(look->object, "kind"), "Deployment");
    if (port > 0) {
        scan_found(look, SCAN_HOST_PORT, scan_path(look, "%s.port", base),
                   "it always takes port %lld of its machine", (long long)port);
    }
    if (deployed && port >= 0 && scan_text(spec, "runner")[0] == '\0' &&
        json_object_get(spec, "readinessProbe") == NULL) {
        scan_found(look, SCAN_NO_PROBE, base, "no readinessProbe");
    }
}

static void data_class_check(struct scan_look *look, const json_t *spec, const char *base)
{
    const char *class = scan_text(spec, "dataClass");
    if (class[0] != '\0' && look->input->world != NULL &&
        !scan_world_has_class(look->input->world, class)) {
        scan_found(look, SCAN_DATA_CLASS, scan_path(look, "%s.dataClass", base),
                   "no Policy has a residency rule for the class %.63s", class);
    }
}

void scan_workload(struct scan_look *look, const json_t *spec, const char *base)
{
    if (!json_is_object(spec)) {
        return;
    }
    user_check(look, spec, base);
    scan_command(look, json_object_get(spec, "command"), scan_path(look, "%s.command", base),
                 json_object_get(spec, "args"), scan_path(look, "%s.args", base));
    folder_check(look, spec, base);
    resources_check(look, spec, base);
    serving_check(look, spec, base);
    scan_env(look, json_object_get(spec, "env"), scan_path(look, "%s.env", base));
    scan_image(look, scan_text(spec, "image"), scan_path(look, "%s.image", base));
    scan_model(look, json_object_get(spec, "model"), scan_path(look, "%s.model", base));
    data_class_check(look, spec, base);
}
