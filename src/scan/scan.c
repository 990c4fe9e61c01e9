/* Which kinds have what, and what becomes of a find: suppressed by a reason, or counted. */
#include "core/mem.h"
#include "scan/scan_priv.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

static const char *const SEVERITIES[AT_SCAN_SEVERITIES] = {"low", "medium", "high", "critical"};

const char *at_scan_severity_name(enum at_scan_severity severity)
{
    assert(severity < AT_SCAN_SEVERITIES);
    return SEVERITIES[severity];
}

bool at_scan_severity_parse(const char *text, enum at_scan_severity *ret)
{
    for (size_t i = 0; i < AT_SCAN_SEVERITIES; i++) {
        if (at_streq(text, SEVERITIES[i])) {
            *ret = (enum at_scan_severity)i;
            return true;
        }
    }
    return false;
}

void at_scan_result_init(struct at_scan_result *result)
{
    *result = (struct at_scan_result){.arena = at_arena_new(0)};
}

void at_scan_result_done(struct at_scan_result *result)
{
    at_arena_free(result->arena);
    at_free(result->items);
    *result = (struct at_scan_result){0};
}

const char *scan_path(struct scan_look *look, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    const char *path = at_arena_strdup(look->result->arena, text);
    return path != NULL ? path : "";
}

/* The reason for which a rule is not to count here; NULL: none. */
static const char *reason_of(const struct scan_look *look, const char *rule)
{
    char key[128];
    snprintf(key, sizeof key, "%s%s", AT_SCAN_IGNORE, rule);
    for (size_t i = 0; i < AT_ARRAY_LEN(look->notes); i++) {
        const char *reason = json_string_value(json_object_get(look->notes[i], key));
        if (reason != NULL && at_str_trim(at_str_of(reason)).len > 0) {
            return reason;
        }
    }
    return NULL;
}

static void add(struct scan_look *look, enum scan_rule id, enum at_scan_severity severity,
                const char *field, const char *message)
{
    struct at_scan_result *r = look->result;
    if (r->n >= AT_SCAN_FINDINGS_MAX || look->found >= AT_SCAN_OBJECT_FINDINGS_MAX) {
        r->cut = true;
        return;
    }
    if (r->n == r->room) {
        r->room = r->room * 2 + 16;
        r->items = at_realloc(r->items, r->room * sizeof *r->items);
    }
    const struct at_scan_rule *rule = &SCAN_TABLE[id];
    const char *reason =
        id == SCAN_IGNORE_REASON || id == SCAN_IGNORE_RULE ? NULL : reason_of(look, rule->name);
    const char *path = at_arena_printf(r->arena, "%s%s", look->prefix, field);
    const char *text = at_arena_strdup(r->arena, message);
    r->items[r->n++] = (struct at_scan_finding){
        .rule = rule,
        .severity = severity,
        .object = look->object,
        .field = path != NULL ? path : "",
        .message = text != NULL ? text : "",
        .ignored = reason != NULL ? at_arena_strdup(r->arena, reason) : NULL,
    };
    look->found++;
}

void scan_found(struct scan_look *look, enum scan_rule rule, const char *field, const char *fmt,
                ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    add(look, rule, SCAN_TABLE[rule].severity, field, text);
}

void scan_found_as(struct scan_look *look, enum scan_rule rule, enum at_scan_severity severity,
                   const char *field, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    add(look, rule, severity, field, text);
}

/* --- what every object has --- */

static void notes_check(struct scan_look *look, const json_t *notes, const char *base)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)notes, key, value)
    {
        if (strncmp(key, AT_SCAN_IGNORE, sizeof AT_SCAN_IGNORE - 1) == 0) {
            const char *rule = key + sizeof AT_SCAN_IGNORE - 1;
            const char *field = scan_path(look, "%s[\"%.200s\"]", base, key);
            if (at_scan_rule_find(rule) == NULL) {
                scan_found(look, SCAN_IGNORE_RULE, field, "there is no rule %.64s", rule);
            } else if (at_str_trim(at_str_of(json_string_value(value))).len == 0) {
                scan_found(look, SCAN_IGNORE_REASON, field, "why %.64s may be ignored is not said",
                           rule);
            }
        }
    }
}

/* Annotations that others keep for themselves: a copy of the manifest, hashes. */
static bool is_machines_note(const char *key)
{
    return at_str_starts(at_str_of(key), "kubectl.kubernetes.io/") ||
           at_str_starts(at_str_of(key), AT_SCAN_IGNORE) ||
           at_str_starts(at_str_of(key), "checksum/");
}

static void metadata_check(struct scan_look *look, const json_t *map, const char *base)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)map, key, value)
    {
        struct scan_secret secret;
        if (!is_machines_note(key) && json_is_string(value) &&
            scan_secret_shape((struct at_str){json_string_value(value), json_string_length(value)},
                              &secret)) {
            scan_found_as(look, SCAN_SECRET_METADATA, secret.severity,
                          scan_path(look, "%s[\"%.200s\"]", base, key), "%s", secret.what);
        }
    }
}

static void config_map_check(struct scan_look *look)
{
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(look->object, "data"), key, value)
    {
        if (!json_is_string(value)) {
            continue;
        }
        struct at_str text = {json_string_value(value), json_string_length(value)};
        const char *field = scan_path(look, "data[\"%.200s\"]", key);
        scan_certificates(look, text.ptr, text.len, field);
        struct scan_secret secret = {0};
        bool found = memchr(text.ptr, '\n', text.len) == NULL
                         ? scan_secret(at_str_of(key), text, &secret)
                         : scan_secret_shape(text, &secret);
        struct at_str rest = text;
        while (!found && rest.len > 0 && text.len <= AT_SCAN_TEXT_BYTES_MAX) {
            struct at_str line = at_str_cut(&rest, '\n');
            char sep = memchr(line.ptr, '=', line.len) != NULL ? '=' : ':';
            struct at_str name = at_str_trim(at_str_cut(&line, sep));
            line = at_str_trim(line);
            if (line.len >= 2 && (line.ptr[0] == '"' || line.ptr[0] == '\'')) {
                line = (struct at_str){line.ptr + 1, line.len - 2};
            }
            found = line.len > 0 && scan_secret_name(name) && scan_secret_value(line);
            secret =
                (struct scan_secret){"a value whose name says that it is a secret", AT_SCAN_HIGH};
        }
        if (found) {
            scan_found_as(look, SCAN_SECRET_CONFIG, secret.severity, field, "%s", secret.what);
        }
    }
}

static void secret_check(struct scan_look *look)
{
    static const char *const PARTS[] = {"data", "stringData"};
    size_t values = 0;
    for (size_t i = 0; i < AT_ARRAY_LEN(PARTS); i++) {
        const char *key;
        json_t *value;
        json_object_foreach(json_object_get(look->object, PARTS[i]), key, value)
        {
            const char *field = scan_path(look, "%s[\"%.200s\"]", PARTS[i], key);
            const char *text = json_string_value(value);
            values += json_string_length(value) > 0;
            if (text != NULL) {
                scan_certificates(look, text, json_string_length(value), field);
            }
        }
    }
    if (values > 0 && look->input->from_file) {
        scan_found(look, SCAN_SECRET_FILE, "data", "%zu value%s of a Secret in a file", values,
                   values == 1 ? "" : "s");
    }
}

static void namespace_check(struct scan_look *look)
{
    const char *name = at_json_str_at(look->object, "metadata.name", "");
    if (look->input->world == NULL || at_streq(name, "atoll-system") ||
        at_str_starts(at_str_of(name), "kube-")) {
        return;
    }
    if (!scan_world_has_quota(look->input->world, name)) {
        scan_found(look, SCAN_NS_QUOTA, "metadata.name", "no ResourceQuota in %.253s", name);
    }
    if (!scan_world_has_policy(look->input->world, name)) {
        scan_found(look, SCAN_NS_POLICY, "metadata.name", "no NetworkPolicy in %.253s", name);
    }
}

static void service_check(struct scan_look *look)
{
    const char *type = at_json_str_at(look->object, "spec.type", "");
    if (at_streq(type, "LoadBalancer") || at_streq(type, "NodePort")) {
        scan_found_as(look, SCAN_PUBLIC_SERVICE, AT_SCAN_MEDIUM, "spec.type",
                      "a %s is reached from outside", type);
    }
}

static void network_policy_check(struct scan_look *look)
{
    static const char *const WAYS[][2] = {{"ingress", "from"}, {"egress", "to"}};
    const json_t *spec = json_object_get(look->object, "spec");
    for (size_t w = 0; w < AT_ARRAY_LEN(WAYS); w++) {
        size_t i;
        json_t *rule;
        json_array_foreach(json_object_get(spec, WAYS[w][0]), i, rule)
        {
            bool all = json_array_size(json_object_get(rule, WAYS[w][1])) == 0 &&
                       json_array_size(json_object_get(rule, "ports")) == 0;
            size_t k;
            json_t *peer;
            json_array_foreach(json_object_get(rule, WAYS[w][1]), k, peer)
            {
                const char *cidr = at_json_str_at(peer, "ipBlock.cidr", "");
                all = all || at_streq(cidr, "0.0.0.0/0") || at_streq(cidr, "::/0");
            }
            if (all) {
                scan_found(look, SCAN_NETPOL_ALL, scan_path(look, "spec.%s[%zu]", WAYS[w][0], i),
                           "%s everybody, to all ports or addresses", WAYS[w][1]);
            }
        }
    }
}

/* --- workloads --- */

static void default_namespace_check(struct scan_look *look)
{
    const char *ns = at_json_str_at(look->object, "metadata.namespace", "default");
    if (at_streq(ns, "default") &&
        json_object_get(json_object_get(look->object, "metadata"), "ownerReferences") == NULL) {
        scan_found(look, SCAN_NS_DEFAULT, "metadata", "its namespace is default");
    }
}

static void replicas_check(struct scan_look *look)
{
    const json_t *spec = json_object_get(look->object, "spec");
    const json_t *replicas = json_object_get(spec, "replicas");
    if (json_object_get(spec, "autoscaling") != NULL) {
        return;
    }
    if (replicas == NULL || (json_is_integer(replicas) && json_integer_value(replicas) == 1)) {
        scan_found(look, SCAN_ONE_REPLICA, replicas != NULL ? "spec.replicas" : "spec",
                   "one replica");
    }
}

static void atoll_check(struct scan_look *look, const char *kind)
{
    const json_t *spec = json_object_get(look->object, "spec");
    if (at_streq(kind, "Instance")) {
        const json_t *owners = at_json_at(look->object, "metadata.ownerReferences");
        if (json_array_size(owners) > 0) {
            return; /* its owner's template is where to look, and to mend */
        }
        scan_workload(look, spec, "spec");
    } else {
        scan_workload(look, at_json_at(spec, "template.spec"), "spec.template.spec");
    }
    default_namespace_check(look);
    if (at_streq(kind, "Deployment")) {
        replicas_check(look);
        if (at_streq(at_json_str_at(spec, "service.access", ""), "Public")) {
            scan_found(look, SCAN_PUBLIC_SERVICE, "spec.service.access",
                       "everybody may ask, without a token");
        }
    }
}

static void pods_check(struct scan_look *look, const char *kind)
{
    const json_t *spec = json_object_get(look->object, "spec");
    if (at_streq(kind, "Pod")) {
        scan_pod(look, spec, "spec");
    } else if (at_streq(kind, "CronJob")) {
        scan_pod(look, at_json_at(spec, "jobTemplate.spec.template.spec"),
                 "spec.jobTemplate.spec.template.spec");
    } else {
        scan_pod(look, at_json_at(spec, "template.spec"), "spec.template.spec");
    }
    default_namespace_check(look);
    if (at_streq(kind, "Deployment") || at_streq(kind, "StatefulSet")) {
        replicas_check(look);
    }
}

static void role_check(struct scan_look *look)
{
    scan_rbac_rules(look, at_streq(scan_text(look->object, "kind"), "ClusterRole"));
}

static const struct row {
    const char *group; /* beginning of apiVersion: "atoll.dev/", or the whole of it: "v1" */
    const char *kinds; /* with a blank on both sides */
    void (*check)(struct scan_look *look);
    void (*check_kind)(struct scan_look *look, const char *kind);
} ROWS[] = {
    {"atoll.dev/", " Deployment Job Instance ", NULL, atoll_check},
    {"v1", " Pod ReplicationController ", NULL, pods_check},
    {"apps/", " Deployment StatefulSet DaemonSet ReplicaSet ", NULL, pods_check},
    {"batch/", " Job CronJob ", NULL, pods_check},
    {"v1", " ConfigMap ", config_map_check, NULL},
    {"v1", " Secret ", secret_check, NULL},
    {"v1", " Namespace ", namespace_check, NULL},
    {"v1", " Config ", scan_kubeconfig, NULL},
    {"v1", " Service ", service_check, NULL},
    {"networking.k8s.io/", " NetworkPolicy ", network_policy_check, NULL},
    {"rbac.authorization.k8s.io/", " Role ClusterRole ", role_check, NULL},
    {"rbac.authorization.k8s.io/", " RoleBinding ClusterRoleBinding ", scan_rbac_binding, NULL},
};

static const struct row *row_of(const json_t *object)
{
    const char *version = scan_text(object, "apiVersion");
    char kind[80];
    int n = snprintf(kind, sizeof kind, " %s ", scan_text(object, "kind"));
    if (n < 3 || (size_t)n >= sizeof kind || strchr(kind + 1, ' ') != kind + n - 1) {
        return NULL;
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        bool group = strchr(ROWS[i].group, '/') != NULL
                         ? at_str_starts(at_str_of(version), ROWS[i].group)
                         : at_streq(version, ROWS[i].group);
        if (group && strstr(ROWS[i].kinds, kind) != NULL) {
            return &ROWS[i];
        }
    }
    return NULL;
}

static const char *template_notes_path(const json_t *object)
{
    return json_object_get(json_object_get(object, "spec"), "jobTemplate") != NULL
               ? "spec.jobTemplate.spec.template.metadata.annotations"
               : "spec.template.metadata.annotations";
}

static void object_check(const struct at_scan_input *input, struct at_scan_result *result,
                         const json_t *object, const char *prefix, unsigned depth)
{
    struct at_str kind = at_str_of(scan_text(object, "kind"));
    const json_t *items = json_object_get(object, "items");
    if (kind.len >= 4 && strcmp(kind.ptr + kind.len - 4, "List") == 0 && json_is_array(items)) {
        size_t i;
        json_t *item;
        json_array_foreach(items, i, item)
        {
            const char *below = at_arena_printf(result->arena, "%sitems[%zu].", prefix, i);
            if (depth < AT_SCAN_DEPTH_MAX && below != NULL) {
                object_check(input, result, item, below, depth + 1);
            }
        }
        return;
    }
    const char *of_template = template_notes_path(object);
    const json_t *meta = json_object_get(object, "metadata");
    struct scan_look look = {
        .input = input,
        .result = result,
        .object = object,
        .prefix = prefix,
        .notes = {json_object_get(meta, "annotations"), at_json_at(object, of_template)},
    };
    const struct row *row = row_of(object);
    result->objects += row != NULL;
    if (row != NULL && row->check != NULL) {
        row->check(&look);
    } else if (row != NULL) {
        row->check_kind(&look, kind.ptr);
    }
    metadata_check(&look, look.notes[0], "metadata.annotations");
    metadata_check(&look, json_object_get(meta, "labels"), "metadata.labels");
    metadata_check(&look, look.notes[1], of_template);
    notes_check(&look, look.notes[0], "metadata.annotations");
    notes_check(&look, look.notes[1], of_template);
}

void at_scan_object(const struct at_scan_input *input, struct at_scan_result *result)
{
    object_check(input, result, input->object, "", 0);
}

/* --- results --- */

void at_scan_sort(struct at_scan_result *result)
{
    if (result->n == 0) {
        return;
    }
    struct at_scan_finding *sorted = at_alloc(result->n * sizeof *sorted);
    size_t n = 0;
    for (int s = AT_SCAN_SEVERITIES - 1; s >= 0; s--) {
        for (size_t i = 0; i < result->n; i++) {
            if ((int)result->items[i].severity == s) {
                sorted[n++] = result->items[i];
            }
        }
    }
    assert(n == result->n);
    at_free(result->items);
    result->items = sorted;
    result->room = n;
}

size_t at_scan_count(const struct at_scan_result *result, enum at_scan_severity least)
{
    size_t count = 0;
    for (size_t i = 0; i < result->n; i++) {
        count += result->items[i].ignored == NULL && result->items[i].severity >= least;
    }
    return count;
}
