/* The rules of src/scan for what is written: off, warnings, or refusals, for the whole server and
 * for each namespace by its labels. What controllers make is not looked at: the templates were. */
#include "scan/scan.h"
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"

#define LABEL_MODE "scan.atoll.dev/mode"
#define LABEL_ENFORCE "scan.atoll.dev/enforce"
#define LABEL_WARN "scan.atoll.dev/warn"
#define TOLD_MAX 5 /* findings in the message of a refusal */

struct levels {
    bool enforces, warns;
    enum at_scan_severity enforce, warn; /* and above */
};

bool at_api_scan_mode_parse(const char *text, enum at_api_scan_mode *ret)
{
    static const char *const MODES[] = {"off", "warn", "enforce"};
    for (size_t i = 0; i < AT_ARRAY_LEN(MODES); i++) {
        if (at_streq(text, MODES[i])) {
            *ret = (enum at_api_scan_mode)i;
            return true;
        }
    }
    return false;
}

static void level_set(bool *on, enum at_scan_severity *level, const char *text)
{
    if (text != NULL) {
        *on = at_scan_severity_parse(text, level); /* else it says off: labels are checked */
    }
}

/* What the server's options say, then the namespace's labels. */
static struct levels levels_of(const struct api_req *req)
{
    const struct at_api_scan *o = &req->api->options.scan;
    enum at_api_scan_mode mode = o->mode;
    struct levels l = {.enforce = o->enforce, .warn = o->warn};
    const struct at_snapshot *snap = at_state_snapshot(req->api->options.state);
    const struct at_namespace *ns =
        req->route.ns[0] != '\0' ? at_snapshot_namespace(snap, req->route.ns) : NULL;
    const struct at_model_map none = {0};
    const struct at_model_map *labels = ns != NULL ? &ns->meta.labels : &none;
    const char *text = at_model_map_get(labels, LABEL_MODE);
    if (text != NULL && !at_api_scan_mode_parse(text, &mode)) {
        mode = AT_API_SCAN_ENFORCE; /* a label that cannot be read frees from nothing */
    }
    l.enforces = mode == AT_API_SCAN_ENFORCE;
    l.warns = mode != AT_API_SCAN_OFF;
    level_set(&l.enforces, &l.enforce, at_model_map_get(labels, LABEL_ENFORCE));
    level_set(&l.warns, &l.warn, at_model_map_get(labels, LABEL_WARN));
    at_snapshot_unref(snap);
    return l;
}

static bool is_listed(const char *const *list, const char *what)
{
    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        if (at_streq(list[i], what)) {
            return true;
        }
    }
    return false;
}

/* Machines report, and are bounded by their rights. */
static bool is_exempt(const struct api_req *req)
{
    const struct at_api_scan *o = &req->api->options.scan;
    struct at_str user = at_str_of(req->who.user);
    return at_str_starts(user, "system:node:") || at_str_starts(user, "system:gateway:") ||
           is_listed(o->exempt_users, req->who.user) ||
           (req->route.ns[0] != '\0' && is_listed(o->exempt_namespaces, req->route.ns));
}

/* Labels that mean nothing are refused where they are written. False: answered. */
static bool labels_admit(struct api_req *req, const json_t *object)
{
    const json_t *labels = at_json_at(object, "metadata.labels");
    static const char *const NAMES[] = {LABEL_MODE, LABEL_ENFORCE, LABEL_WARN};
    for (size_t i = 0; i < AT_ARRAY_LEN(NAMES); i++) {
        const char *text = json_string_value(json_object_get(labels, NAMES[i]));
        enum at_api_scan_mode mode;
        enum at_scan_severity severity;
        bool ok = text == NULL ||
                  (i == 0 ? at_api_scan_mode_parse(text, &mode)
                          : at_streq(text, "off") || at_scan_severity_parse(text, &severity));
        if (!ok) {
            struct at_model_cause cause = {
                .reason = "FieldValueNotSupported",
                .field = at_arena_printf(req->arena, "metadata.labels[%s]", NAMES[i]),
                .message = i == 0 ? "supported values: off, warn, enforce"
                                  : "supported values: off, low, medium, high, critical",
            };
            api_respond_invalid(req, at_object_name(object), &cause, 1);
            return false;
        }
    }
    return true;
}

static void world_fill(struct at_scan_world *world, struct at_state *state)
{
    const struct at_snapshot *snap = at_state_snapshot(state);
    for (size_t i = 0; i < snap->n_policies; i++) {
        for (size_t k = 0; k < snap->policies[i]->spec.residency.n; k++) {
            at_scan_world_class(world, snap->policies[i]->spec.residency.items[k].data_class);
        }
    }
    at_snapshot_unref(snap);
}

/* Was it so before? Then this write does not make it worse, and may well be on its way to mend it.
 */
static bool was_there(const struct at_scan_result *before, const struct at_scan_finding *f)
{
    for (size_t i = 0; i < before->n; i++) {
        const struct at_scan_finding *b = &before->items[i];
        if (b->rule == f->rule && b->severity >= f->severity && at_streq(b->field, f->field) &&
            at_streq(b->message, f->message)) {
            return true;
        }
    }
    return false;
}

static bool counts(const struct api_req *req, const struct at_scan_finding *f)
{
    const struct at_api_scan *o = &req->api->options.scan;
    return (f->ignored == NULL || o->no_suppressions) && !is_listed(o->exempt_rules, f->rule->name);
}

static void refuse(struct api_req *req, const json_t *object, const struct at_scan_finding **found,
                   size_t n)
{
    json_t *causes = json_array();
    struct at_buf text = {.max = 4096};
    enum at_rc rc =
        at_buf_printf(&text, "scan found %zu thing%s that may not be here: ", n, n == 1 ? "" : "s");
    for (size_t i = 0; i < n; i++) {
        const struct at_scan_finding *f = found[i];
        if (i < TOLD_MAX && rc == AT_OK) {
            rc = at_buf_printf(&text, "%s%s (%s) at %s: %s. %s", i > 0 ? "; " : "", f->rule->name,
                               at_scan_severity_name(f->severity), f->field, f->message,
                               f->rule->mend);
        }
        json_array_append_new(causes, json_pack("{s:s, s:s, s:s}", "reason", f->rule->name, "field",
                                                f->field, "message", f->message));
    }
    const char *name = at_object_name(object);
    const char *message =
        at_arena_printf(req->arena, "%s \"%s\" is forbidden: %s", api_qualified_resource(req),
                        name != NULL ? name : "",
                        text.data != NULL ? text.data : "scan found what may not be here");
    at_buf_done(&text);
    req->refusal = message;
    json_t *details = api_details(req, name != NULL ? name : "");
    json_object_set_new(details, "causes", causes);
    api_respond_json(req, 403, api_status(false, "Forbidden", 403, message, details));
}

/* False: answered. */
static bool judge(struct api_req *req, const json_t *object, const struct levels *l,
                  const struct at_scan_result *now, const struct at_scan_result *before)
{
    const struct at_scan_finding *bad[AT_SCAN_OBJECT_FINDINGS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < now->n; i++) {
        const struct at_scan_finding *f = &now->items[i];
        if (l->enforces && counts(req, f) && f->severity >= l->enforce && !was_there(before, f) &&
            n < AT_ARRAY_LEN(bad)) {
            bad[n++] = f;
        }
    }
    for (size_t i = 0; n == 0 && l->warns && i < now->n; i++) {
        const struct at_scan_finding *f = &now->items[i];
        if (counts(req, f) && f->severity >= l->warn) {
            api_warn(req, "scan: %s %s at %s: %s. %s", at_scan_severity_name(f->severity),
                     f->rule->name, f->field, f->message, f->rule->mend);
        }
    }
    if (n > 0) {
        refuse(req, object, bad, n);
    }
    return n == 0;
}

bool api_scan_admits(struct api_req *req, const json_t *object, const json_t *old)
{
    if (req->api->options.state == NULL || req->route.subresource[0] != '\0') {
        return true;
    }
    if (req->route.kind == &AT_KIND_NAMESPACE && !labels_admit(req, object)) {
        return false;
    }
    struct levels l = levels_of(req);
    if ((!l.enforces && !l.warns) || is_exempt(req)) {
        return true;
    }
    struct at_scan_world *world = at_scan_world_new();
    struct at_scan_result now, before;
    struct at_scan_input input = {
        .object = object, .world = world, .now_wall_ns = at_sys_wall_ns(req->api->sys)};
    world_fill(world, req->api->options.state);
    at_scan_result_init(&now);
    at_scan_result_init(&before);
    at_scan_object(&input, &now);
    at_scan_sort(&now);
    if (old != NULL && now.n > 0) {
        input.object = old;
        at_scan_object(&input, &before);
    }
    bool admitted = judge(req, object, &l, &now, &before);
    at_scan_result_done(&now);
    at_scan_result_done(&before);
    at_scan_world_free(world);
    return admitted;
}
