/* What a schema cannot say: rules that look at several fields at once. One row per kind below. */
#include "model/model_priv.h"

#include "core/digest.h"
#include "core/mem.h"
#include "core/str.h"
#include "model/resize.h"

#include <string.h>

#define PATH(up_, name_) (&(struct at_model_path){.up = (up_), .name = (name_)})
#define ITEM(up_, i_) (&(struct at_model_path){.up = (up_), .index = (i_)})
#define KEY(up_, name_) (&(struct at_model_path){.up = (up_), .name = (name_), .is_key = true})

static const char *text_at(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));
    return text != NULL ? text : "";
}

static void required(struct at_model_check *check, const struct at_model_path *path,
                     const char *leaf, const char *why)
{
    at_model_cause_add(check, path, leaf, "FieldValueRequired", "Required value: %s", why);
}

static void forbidden(struct at_model_check *check, const struct at_model_path *path,
                      const char *leaf, const char *why)
{
    at_model_cause_add(check, path, leaf, "FieldValueForbidden", "Forbidden: %s", why);
}

static void resources_check(struct at_model_check *check, const struct at_model_path *path,
                            const json_t *resources)
{
    int64_t gpu_milli = 0;
    const json_t *gpu = json_object_get(resources, "gpu");
    if (gpu != NULL && at_model_unit_parse(AT_MODEL_UNIT_GPU, gpu, &gpu_milli, NULL) == AT_OK &&
        gpu_milli > 1000 && gpu_milli % 1000 != 0) {
        at_model_invalid_add(check, path, "gpu", gpu,
                             "must be a fraction of one GPU or a whole number of them");
    }
    if (gpu_milli == 0 && json_object_get(resources, "gpuMemory") != NULL) {
        forbidden(check, path, "gpuMemory", "may only be set together with gpu");
    }
    if (gpu_milli == 0 && strcmp(text_at(resources, "topology"), "SameLink") == 0) {
        forbidden(check, path, "topology", "SameLink is for GPUs, and gpu is not set");
    }
}

static void sharing_check(struct at_model_check *check, const struct at_model_path *path,
                          const json_t *sharing, const json_t *resources)
{
    const json_t *gpu = json_object_get(resources, "gpu");
    const char *mode = text_at(sharing, "mode");
    int64_t milli = 0;
    if (sharing == NULL ||
        (gpu != NULL && at_model_unit_parse(AT_MODEL_UNIT_GPU, gpu, &milli, NULL) != AT_OK)) {
        return; /* said elsewhere */
    }
    if (milli == 0) {
        forbidden(check, path, NULL, "may only be set together with resources.gpu");
        return;
    }
    bool whole = milli % 1000 == 0 && json_object_get(resources, "gpuMemory") == NULL;
    if (strcmp(mode, "Exclusive") == 0 && !whole) {
        forbidden(check, path, "mode",
                  "Exclusive is for whole GPUs, and resources asks for a part");
    }
    if (json_is_true(json_object_get(sharing, "strict")) && strcmp(mode, "") != 0 &&
        strcmp(mode, "Share") != 0) {
        forbidden(check, path, "strict", "time is held in mode Share only");
    }
    if (json_object_get(sharing, "spill") != NULL && strcmp(mode, "Exclusive") == 0) {
        forbidden(check, path, "spill", "a whole GPU has no share to spill from");
    }
    if (json_object_get(sharing, "spill") != NULL &&
        json_object_get(sharing, "parkAfter") != NULL) {
        forbidden(check, path, "parkAfter", "what spilled cannot be parked; leave spill out");
    }
}

static void model_check(struct at_model_check *check, const struct at_model_path *path,
                        const json_t *model)
{
    static const char *const BEGINNINGS[] = {"file:",  "http://",     "https://",
                                             "oci://", "oci-layout:", "oci-archive:"};
    struct at_str uri = at_str_of(text_at(model, "uri"));
    const char *digest = text_at(model, "digest");
    const char *pinned = strstr(uri.ptr, "@sha256:");
    bool known = false;
    for (size_t i = 0; i < AT_ARRAY_LEN(BEGINNINGS); i++) {
        known = known || at_str_starts(uri, BEGINNINGS[i]);
    }
    if (!known) {
        at_model_invalid_add(check, path, "uri", json_object_get(model, "uri"),
                             "must begin with file:, http://, https://, oci://, oci-layout: or "
                             "oci-archive:");
    }
    if (at_str_starts(uri, "oci") && pinned != NULL && digest[0] != '\0' &&
        strcmp(pinned + 1, digest) != 0) {
        at_model_invalid_add(check, path, "digest", json_object_get(model, "digest"),
                             "differs from the one in uri; leave it out");
    }
    if (!at_str_starts(uri, "oci://") && text_at(model, "pullSecret")[0] != '\0') {
        forbidden(check, path, "pullSecret", "may only be set with a uri that begins with oci://");
    }
}

/* Models beside the first one: told apart by name, so each needs one. */
static void models_check(struct at_model_check *check, const struct at_model_path *path,
                         const json_t *spec)
{
    const json_t *list = json_object_get(spec, "models");
    const char *first = text_at(json_object_get(spec, "model"), "name");
    if (json_array_size(list) > 0 && strcmp(text_at(spec, "runner"), "onnx") != 0) {
        forbidden(check, path, "models", "only the runner onnx serves several models");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *model = json_array_get(list, i);
        const char *name = text_at(model, "name");
        const struct at_model_path *item = ITEM(PATH(path, "models"), i);
        model_check(check, item, model);
        if (name[0] == '\0') {
            required(check, item, "name", "requests ask for it by this name");
        }
        bool twice = name[0] != '\0' && strcmp(name, first) == 0;
        for (size_t k = 0; k < i && name[0] != '\0'; k++) {
            twice = twice || strcmp(text_at(json_array_get(list, k), "name"), name) == 0;
        }
        if (twice) {
            at_model_cause_add(check, item, "name", "FieldValueDuplicate",
                               "Duplicate value: \"%s\"", name);
        }
    }
}

static void what_runs_check(struct at_model_check *check, const struct at_model_path *path,
                            const json_t *spec)
{
    bool runner = text_at(spec, "runner")[0] != '\0';
    bool image = text_at(spec, "image")[0] != '\0';
    bool command = json_array_size(json_object_get(spec, "command")) != 0;
    if (!runner && !image && !command) {
        at_model_cause_add(check, path, NULL, "FieldValueRequired",
                           "Required value: one of runner, command or image must say what runs");
    }
    if (runner && json_object_get(spec, "model") == NULL) {
        required(check, path, "model", "a runner needs a model");
    }
    if (runner && command) {
        forbidden(check, path, "command", "may not be set together with runner");
    }
    if (runner && image) {
        forbidden(check, path, "image", "may not be set together with runner");
    }
    if (strcmp(text_at(spec, "driver"), "oci") == 0 && !image) {
        required(check, path, "image", "the oci driver needs an image");
    }
    if (strcmp(text_at(spec, "driver"), "process") == 0 && image) {
        forbidden(check, path, "image", "the process driver runs no images");
    }
}

/* What the field tables cannot say: a rising list of numbers, and levels that there are. */
static void batching_check(struct at_model_check *check, const struct at_model_path *path,
                           const json_t *batching)
{
    json_int_t most = json_integer_value(json_object_get(batching, "maxBatchSize"));
    json_int_t levels = json_integer_value(json_object_get(batching, "priorityLevels"));
    const json_t *preferred = json_object_get(batching, "preferredBatchSizes");
    json_int_t last = 0;
    bool good = preferred == NULL || (json_is_array(preferred) && json_array_size(preferred) <= 16);
    for (size_t i = 0; good && i < json_array_size(preferred); i++) {
        json_int_t size = json_integer_value(json_array_get(preferred, i));
        good = size > last && size <= (most > 0 ? most : 4096);
        last = size;
    }
    if (!good) {
        at_model_invalid_add(check, path, "preferredBatchSizes", preferred,
                             "must be at most 16 numbers, rising, none over maxBatchSize");
    }
    if (json_integer_value(json_object_get(batching, "defaultPriority")) > levels) {
        at_model_invalid_add(check, path, "defaultPriority",
                             json_object_get(batching, "defaultPriority"),
                             "must be one of the priorityLevels");
    }
    const json_t *each = json_object_get(batching, "levels");
    for (size_t i = 0; i < json_array_size(each); i++) {
        const json_t *level = json_object_get(json_array_get(each, i), "level");
        if (json_integer_value(level) > levels) {
            at_model_invalid_add(check, ITEM(PATH(path, "levels"), i), "level", level,
                                 "must be one of the priorityLevels");
        }
    }
}

static void workload_check(struct at_model_check *check, const struct at_model_path *path,
                           const json_t *spec)
{
    what_runs_check(check, path, spec);
    const json_t *model = json_object_get(spec, "model");
    if (json_is_object(model)) {
        model_check(check, PATH(path, "model"), model);
    }
    models_check(check, path, spec);
    batching_check(check, PATH(path, "batching"), json_object_get(spec, "batching"));
    const json_t *resources = json_object_get(spec, "resources");
    resources_check(check, PATH(path, "resources"), resources);
    sharing_check(check, PATH(path, "gpuSharing"), json_object_get(spec, "gpuSharing"), resources);
    const json_t *env = json_object_get(spec, "env");
    for (size_t i = 0; i < json_array_size(env); i++) {
        const json_t *var = json_array_get(env, i);
        if (json_is_object(json_object_get(var, "secretKeyRef")) &&
            text_at(var, "value")[0] != '\0') {
            forbidden(check, ITEM(PATH(path, "env"), i), "secretKeyRef",
                      "may not be set together with value");
        }
    }
    at_model_placement_check(check, PATH(path, "placement"), json_object_get(spec, "placement"));
}

static void template_check(struct at_model_check *check, const json_t *object)
{
    const struct at_model_path *path = PATH(PATH(NULL, "spec"), "template");
    const struct at_model_path *meta = PATH(path, "metadata");
    at_model_labels_check(check, meta, "labels",
                          at_json_at(object, "spec.template.metadata.labels"));
    at_model_annotations_check(check, meta, "annotations",
                               at_json_at(object, "spec.template.metadata.annotations"));
    workload_check(check, PATH(path, "spec"), at_json_at(object, "spec.template.spec"));
}

/* The first model is asked for by the Deployment's name when it has none of its own. */
static void first_name_check(struct at_model_check *check, const json_t *object)
{
    const json_t *spec = at_json_at(object, "spec.template.spec");
    const json_t *list = json_object_get(spec, "models");
    const char *own = at_json_str_at(object, "metadata.name", "");
    bool named = text_at(json_object_get(spec, "model"), "name")[0] != '\0';
    const struct at_model_path *path = PATH(PATH(PATH(NULL, "spec"), "template"), "spec");
    for (size_t i = 0; i < json_array_size(list) && !named; i++) {
        if (strcmp(text_at(json_array_get(list, i), "name"), own) == 0) {
            at_model_cause_add(check, ITEM(PATH(path, "models"), i), "name", "FieldValueDuplicate",
                               "Duplicate value: \"%s\"", own);
        }
    }
}

static void deployment_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    (void)old;
    template_check(check, object);
    first_name_check(check, object);
    at_model_price_check(check, object);
    const json_t *strategy = at_json_at(object, "spec.strategy");
    if (strategy != NULL && at_json_int_at(strategy, "maxSurge", 1) == 0 &&
        at_json_int_at(strategy, "maxUnavailable", 0) == 0) {
        at_model_invalid_add(check, PATH(PATH(NULL, "spec"), "strategy"), "maxUnavailable",
                             json_object_get(strategy, "maxUnavailable"),
                             "may not be 0 when maxSurge is 0");
    }
    const json_t *scaling = at_json_at(object, "spec.autoscaling");
    if (at_json_int_at(scaling, "max", 1) < at_json_int_at(scaling, "min", 1)) {
        at_model_invalid_add(check, PATH(PATH(NULL, "spec"), "autoscaling"), "max",
                             json_object_get(scaling, "max"), "may not be less than min");
    }
    const json_t *active = at_json_at(object, "spec.health.active");
    if (at_streq(at_json_str_at(active, "protocol", "oip"), "http") &&
        at_json_str_at(active, "path", "")[0] == '\0') {
        at_model_cause_add(check, PATH(PATH(PATH(NULL, "spec"), "health"), "active"), "path",
                           "FieldValueRequired", "Required value: of a check by http");
    }
    const json_t *traffic = at_json_at(object, "spec.traffic");
    if (json_object_get(traffic, "shadow") != NULL && json_object_get(traffic, "weight") != NULL) {
        forbidden(check, PATH(PATH(NULL, "spec"), "traffic"), "weight",
                  "may not be set together with shadow: copies come beside all weights");
    }
}

static void job_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    const struct at_model_path *spec = PATH(NULL, "spec");
    template_check(check, object);
    const json_t *policy = at_json_at(object, "spec.template.spec.restartPolicy");
    if (policy != NULL && strcmp(json_string_value(policy), "Always") == 0) {
        at_model_cause_add(check, PATH(PATH(spec, "template"), "spec"), "restartPolicy",
                           "FieldValueNotSupported",
                           "Unsupported value: \"Always\": supported values: \"OnFailure\", "
                           "\"Never\"");
    }
    if (at_json_at(object, "spec.template.spec.gpuSharing.parkAfter") != NULL) {
        forbidden(check, PATH(PATH(PATH(spec, "template"), "spec"), "gpuSharing"), "parkAfter",
                  "nobody asks a job for anything that could bring it back");
    }
    int64_t gang = at_json_int_at(object, "spec.gangSize", 0);
    if (gang > at_json_int_at(object, "spec.parallelism", 1) ||
        gang > at_json_int_at(object, "spec.completions", 1)) {
        at_model_invalid_add(check, spec, "gangSize", at_json_at(object, "spec.gangSize"),
                             "may not be more than parallelism or completions: the gang could "
                             "never be whole");
    }
    const json_t *before = at_json_at(old, "spec.template");
    const json_t *now = at_json_at(object, "spec.template");
    if (before != NULL && !json_equal(before, now)) {
        forbidden(check, spec, "template", "a job's template cannot be changed; make a new job");
    }
}

void at_model_drop_resizable(json_t *spec)
{
    static const char *const LEAVES[][2] = {
        {"resources", "gpu"}, {"resources", "gpuMemory"}, {"gpuSharing", "parkAfter"}};
    for (size_t k = 0; k < AT_ARRAY_LEN(LEAVES); k++) {
        json_t *of = json_object_get(spec, LEAVES[k][0]);
        json_object_del(of, LEAVES[k][1]);
        if (of != NULL && json_object_size(of) == 0) {
            json_object_del(spec, LEAVES[k][0]);
        }
    }
}

/* An instance is bound once and never changed: its agent has started what it says. Only its share
 * of GPUs is resized. */
static void instance_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    const struct at_model_path *path = PATH(NULL, "spec");
    const json_t *now = json_object_get(object, "spec");
    workload_check(check, path, now);
    const json_t *before = json_object_get(old, "spec");
    if (before == NULL || json_equal(before, now)) {
        return;
    }
    const char *bound = text_at(before, "nodeName");
    if (bound[0] != '\0' && strcmp(bound, text_at(now, "nodeName")) != 0) {
        at_model_invalid_add(check, path, "nodeName", json_object_get(now, "nodeName"),
                             "field is immutable once it is set");
    }
    AT_CLEANUP(at_cleanup_json) json_t *a = json_deep_copy(before);
    AT_CLEANUP(at_cleanup_json) json_t *b = json_deep_copy(now);
    json_object_del(a, "nodeName");
    json_object_del(b, "nodeName");
    at_model_drop_resizable(a);
    at_model_drop_resizable(b);
    if (!json_equal(a, b)) {
        at_model_cause_add(check, path, NULL, "FieldValueForbidden",
                           "Forbidden: of an instance only nodeName may be set later, and its "
                           "share of GPUs changed");
    }
}

static void site_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    (void)old;
    const struct at_model_path *links = PATH(PATH(NULL, "spec"), "links");
    const char *self = at_json_str_at(object, "metadata.name", "");
    const json_t *list = at_json_at(object, "spec.links");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *site = json_object_get(json_array_get(list, i), "site");
        if (strcmp(json_string_value(site), self) == 0) {
            at_model_invalid_add(check, ITEM(links, i), "site", site,
                                 "a site has no link to itself");
        }
    }
}

static void policy_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    (void)old;
    const struct at_model_path *rules = PATH(PATH(NULL, "spec"), "placement");
    const json_t *list = at_json_at(object, "spec.placement");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *rule = json_array_get(list, i);
        at_model_selector_check(check, PATH(ITEM(rules, i), "labelSelector"),
                                json_object_get(rule, "labelSelector"));
        if (json_array_size(json_object_get(rule, "allow")) == 0 &&
            json_array_size(json_object_get(rule, "deny")) == 0) {
            required(check, ITEM(rules, i), "allow", "a rule allows or denies some sites");
        }
    }
    const struct at_model_path *signatures = PATH(PATH(NULL, "spec"), "signatures");
    const json_t *signed_list = at_json_at(object, "spec.signatures");
    for (size_t i = 0; i < json_array_size(signed_list); i++) {
        const json_t *keys = json_object_get(json_array_get(signed_list, i), "keys");
        for (size_t k = 0; k < json_array_size(keys); k++) {
            const json_t *key = json_array_get(keys, k);
            if (strstr(json_string_value(key), "-----BEGIN PUBLIC KEY-----") == NULL) {
                at_model_cause_add(check, ITEM(PATH(ITEM(signatures, i), "keys"), k), NULL,
                                   "FieldValueInvalid",
                                   "Invalid value: must be a public key in PEM (-----BEGIN PUBLIC "
                                   "KEY-----)");
            }
        }
    }
}

static bool is_data_key(const char *key)
{
    size_t len = strlen(key);
    return len > 0 && len <= 253 &&
           strspn(key, "-._abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == len;
}

/* Values are never shown: they may be secrets. */
static void data_check(struct at_model_check *check, const json_t *object, const char *leaf,
                       bool base64)
{
    const struct at_model_path *path = PATH(NULL, leaf);
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(object, leaf), key, value)
    {
        if (!is_data_key(key)) {
            at_model_cause_add(check, KEY(path, key), NULL, "FieldValueInvalid",
                               "Invalid value: \"%.100s\": a key must consist of alphanumeric "
                               "characters, '-', '_' or '.'",
                               key);
        }
        struct at_buf out = {0};
        if (base64 &&
            at_base64_decode(json_string_value(value), json_string_length(value), &out) != AT_OK) {
            at_model_cause_add(check, KEY(path, key), NULL, "FieldValueInvalid",
                               "Invalid value: \"<redacted>\": must be base64");
        }
        at_buf_done(&out);
    }
}

static void frozen_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    static const char *const leaves[] = {"data", "binaryData"};
    static const char why[] = "field is immutable when `immutable` is set";
    if (!json_is_true(json_object_get(old, "immutable"))) {
        return;
    }
    if (!json_is_true(json_object_get(object, "immutable"))) {
        forbidden(check, NULL, "immutable", why);
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(leaves); i++) {
        const json_t *before = json_object_get(old, leaves[i]);
        const json_t *now = json_object_get(object, leaves[i]);
        bool same =
            json_object_size(before) == 0 ? json_object_size(now) == 0 : json_equal(before, now);
        if (!same) {
            forbidden(check, NULL, leaves[i], why);
        }
    }
}

/* What a type of Secret must hold; of basic-auth one of the two is enough. */
static void secret_type_check(struct at_model_check *check, const json_t *object)
{
    static const char *const NEEDED[][3] = {
        {"kubernetes.io/tls", "tls.crt", "tls.key"},
        {"kubernetes.io/dockerconfigjson", ".dockerconfigjson", NULL},
        {"kubernetes.io/dockercfg", ".dockercfg", NULL},
        {"kubernetes.io/ssh-auth", "ssh-privatekey", NULL},
    };
    const struct at_model_path *data = PATH(NULL, "data");
    const json_t *have = json_object_get(object, "data");
    const char *type = text_at(object, "type");
    for (size_t i = 0; i < AT_ARRAY_LEN(NEEDED); i++) {
        for (size_t k = 1; at_streq(type, NEEDED[i][0]) && k < 3 && NEEDED[i][k] != NULL; k++) {
            if (json_object_get(have, NEEDED[i][k]) == NULL) {
                at_model_cause_add(check, KEY(data, NEEDED[i][k]), NULL, "FieldValueRequired",
                                   "Required value");
            }
        }
    }
    if (at_streq(type, "kubernetes.io/basic-auth") && json_object_get(have, "username") == NULL &&
        json_object_get(have, "password") == NULL) {
        at_model_cause_add(check, KEY(data, "username"), NULL, "FieldValueRequired",
                           "Required value");
        at_model_cause_add(check, KEY(data, "password"), NULL, "FieldValueRequired",
                           "Required value");
    }
    static const char ACCOUNT[] = "kubernetes.io/service-account.name";
    const json_t *annotations = at_json_at(object, "metadata.annotations");
    if (at_streq(type, "kubernetes.io/service-account-token") &&
        text_at(annotations, ACCOUNT)[0] == '\0') {
        at_model_cause_add(check, KEY(PATH(PATH(NULL, "metadata"), "annotations"), ACCOUNT), NULL,
                           "FieldValueRequired", "Required value");
    }
}

/* An event is of an object of its own namespace, or of one without. */
static void event_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    (void)old;
    const char *ns = text_at(json_object_get(object, "involvedObject"), "namespace");
    const char *own = text_at(json_object_get(object, "metadata"), "namespace");
    if (ns[0] != '\0' && own[0] != '\0' && !at_streq(ns, own)) {
        at_model_invalid_add(check, PATH(NULL, "involvedObject"), "namespace",
                             at_json_at(object, "involvedObject.namespace"),
                             "does not match event.namespace");
    }
}

static void secret_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    data_check(check, object, "data", true);
    data_check(check, object, "stringData", false);
    secret_type_check(check, object);
    frozen_check(check, object, old);
}

static void config_map_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    data_check(check, object, "data", false);
    data_check(check, object, "binaryData", true);
    frozen_check(check, object, old);
}

/* stringData is a convenience for writers: what is stored is data. */
static void secret_default(json_t *object)
{
    json_t *plain = json_object_get(object, "stringData");
    if (!json_is_object(plain)) {
        return;
    }
    const char *key;
    json_t *value;
    json_object_foreach(plain, key, value)
    {
        if (!json_is_string(value)) {
            return; /* validation names it */
        }
    }
    json_t *data = json_object_get(object, "data");
    if (data == NULL || json_is_null(data)) {
        data = json_object();
        json_object_set_new(object, "data", data);
    }
    json_object_foreach(plain, key, value)
    {
        struct at_buf text = {0};
        if (at_base64_encode(json_string_value(value), json_string_length(value), &text) != AT_OK) {
            at_buf_done(&text);
            return;
        }
        json_object_set_new(data, key, json_stringn(text.data != NULL ? text.data : "", text.len));
        at_buf_done(&text);
    }
    json_object_del(object, "stringData");
}

/* A copy of a job that ended stays ended: the job itself decides about another try. */
static void job_default(json_t *object)
{
    json_t *spec = at_json_at(object, "spec.template.spec");
    if (json_is_object(spec) && json_object_get(spec, "restartPolicy") == NULL) {
        json_object_set_new(spec, "restartPolicy", json_string("Never"));
    }
    at_model_placement_default(spec);
}

static void deployment_default(json_t *object)
{
    at_model_placement_default(at_json_at(object, "spec.template.spec"));
}

static void instance_default(json_t *object)
{
    at_model_placement_default(json_object_get(object, "spec"));
}

static const struct {
    const struct at_model_kind *kind;
    void (*check)(struct at_model_check *check, const json_t *object, const json_t *old);
    void (*fill)(json_t *object);
} RULES[] = {
    {&AT_KIND_DEPLOYMENT, deployment_check, deployment_default},
    {&AT_KIND_JOB, job_check, job_default},
    {&AT_KIND_INSTANCE, instance_check, instance_default},
    {&AT_KIND_SITE, site_check, NULL},
    {&AT_KIND_POLICY, policy_check, NULL},
    {&AT_KIND_SECRET, secret_check, secret_default},
    {&AT_KIND_CONFIG_MAP, config_map_check, NULL},
    {&AT_KIND_QUEUE, at_model_queue_check, NULL},
    {&AT_KIND_API_KEY, at_model_api_key_check, NULL},
    {&AT_KIND_BUDGET, at_model_budget_check, NULL},
    {&AT_KIND_RESERVATION, at_model_reservation_check, NULL},
    {&AT_KIND_RESOURCE_QUOTA, at_model_quota_check, NULL},
    {&AT_KIND_LIMIT_RANGE, at_model_limit_range_check, NULL},
    {&AT_KIND_NETWORK_POLICY, at_model_network_policy_check, NULL},
    {&AT_KIND_EVENT, event_check, NULL},
    {&AT_KIND_ACCESS_TOKEN, at_model_access_token_check, NULL},
    {&AT_KIND_CERTIFICATE_REVOCATION, at_model_certificate_revocation_check, NULL},
    {&AT_KIND_ROLE, at_model_role_check, NULL},
    {&AT_KIND_CLUSTER_ROLE, at_model_cluster_role_check, NULL},
    {&AT_KIND_ROLE_BINDING, at_model_role_binding_check, at_model_binding_default},
    {&AT_KIND_CLUSTER_ROLE_BINDING, at_model_cluster_role_binding_check, at_model_binding_default},
};

void at_model_rules_check(struct at_model_check *check, const struct at_model_kind *kind,
                          const json_t *object, const json_t *old)
{
    for (size_t i = 0; i < AT_ARRAY_LEN(RULES); i++) {
        if (RULES[i].kind == kind) {
            RULES[i].check(check, object, old);
        }
    }
}

void at_model_rules_default(const struct at_model_kind *kind, json_t *object)
{
    for (size_t i = 0; i < AT_ARRAY_LEN(RULES); i++) {
        if (RULES[i].kind == kind && RULES[i].fill != NULL) {
            RULES[i].fill(object);
        }
    }
}
