/* Who owns which field, and server-side apply: metadata.managedFields of what requests write. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"
#include "state/owners.h"

#define MANAGER_UNKNOWN "unknown"

/* What the system itself writes for its own ends is nobody's choice: agents and gateways own
 * nothing, as controllers do not. */
static bool is_system(const struct api_req *req)
{
    for (size_t i = 0; i < req->who.n_groups; i++) {
        if (at_streq(req->who.groups[i], AT_GROUP_NODES) ||
            at_streq(req->who.groups[i], AT_GROUP_GATEWAYS)) {
            return true;
        }
    }
    return false;
}

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return false;
        }
    }
    return true;
}

static const char *from_user_agent(struct api_req *req)
{
    struct at_str agent = {0};
    if (req->ex != NULL) {
        agent = at_http_header_get(at_http_request(req->ex), "User-Agent");
    }
    agent = agent.ptr != NULL ? at_str_cut(&agent, '/') : agent;
    char *out = at_arena_alloc(req->arena, AT_OWNERS_MANAGER_BYTES_MAX + 1);
    size_t n = 0;
    for (size_t i = 0; out != NULL && i < agent.len && n < AT_OWNERS_MANAGER_BYTES_MAX; i++) {
        if (agent.ptr[i] >= 0x20 && agent.ptr[i] < 0x7f) { /* all else may be no UTF-8 */
            out[n++] = agent.ptr[i];
        }
    }
    return n > 0 ? out : MANAGER_UNKNOWN;
}

bool api_manager_read(struct api_req *req, bool needed)
{
    const char *name = api_query(req, "fieldManager");
    struct at_model_cause cause = {.field = "fieldManager"};
    if (name == NULL || name[0] == '\0') {
        req->manager = from_user_agent(req);
        cause.reason = needed ? "FieldValueRequired" : NULL;
        cause.message = "Required value: is required for apply patch";
    } else if (strlen(name) > AT_OWNERS_MANAGER_BYTES_MAX) {
        cause.reason = "FieldValueTooLong";
        cause.message = "Too long: may not be more than 128 bytes";
    } else if (!is_printable(name)) {
        cause.reason = "FieldValueInvalid";
        cause.message = "Invalid value: should only contain printable characters";
    } else {
        req->manager = name;
    }
    if (cause.reason == NULL) {
        return true;
    }
    json_t *details =
        json_pack("{s:s, s:s, s:[{s:s, s:s, s:s}]}", "group", "meta.k8s.io", "kind", "PatchOptions",
                  "causes", "reason", cause.reason, "message", cause.message, "field", cause.field);
    const char *message = at_arena_printf(
        req->arena, "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: %s", cause.message);
    api_respond_json(req, 422, api_status(false, "Invalid", 422, message, details));
    return false;
}

static struct at_owner owner_of(const struct api_req *req, bool apply)
{
    bool status = at_streq(req->route.subresource, "status");
    return (struct at_owner){.manager = req->manager,
                             .apply = apply,
                             .subresource = req->route.subresource,
                             .part = status ? AT_OBJECT_STATUS : AT_OBJECT_MAIN,
                             .now_wall_ns = at_sys_wall_ns(req->api->sys)};
}

void api_owners_sent(struct api_req *req)
{
    json_decref(req->managed);
    req->managed = json_incref((json_t *)at_owners_sent(req->object, &req->managed_reset));
}

bool api_owners_stamp(struct api_req *req, bool changed)
{
    const struct at_model_kind *kind = req->route.kind;
    const json_t *before = at_json_at(req->old, "metadata.managedFields");
    AT_CLEANUP(at_cleanup_json) json_t *entries = NULL;
    if (req->applies) {
        struct at_owner who = owner_of(req, true);
        entries = at_owners_of_apply(kind, req->managed, req->object, &who);
    } else if (req->managed_reset) {
        entries = NULL;
    } else if (is_system(req) || req->manager == NULL) {
        return false;
    } else if (changed || req->managed != NULL) {
        struct at_owner who = owner_of(req, false);
        const json_t *base = req->managed != NULL ? req->managed : before;
        entries = at_owners_of_write(kind, base, req->old, req->object, &who);
    } else {
        return false;
    }
    bool same = at_owners_same(before, entries);
    if (changed || !same) {
        at_owners_put(req->object, entries);
    }
    return !same;
}

/* --- apply --- */

static void respond_conflicts(struct api_req *req, const json_t *conflicts)
{
    size_t n = json_array_size(conflicts);
    json_t *causes = json_array();
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = 16384};
    enum at_rc rc = at_buf_printf(&text, "Apply failed with %zu conflict%s:", n, n == 1 ? "" : "s");
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)conflicts, i, one)
    {
        const char *manager = at_json_str_at(one, "manager", "");
        const char *field = at_json_str_at(one, "field", "");
        AT_CLEANUP(at_cleanup_free) char *message = at_asprintf("conflict with %s", manager);
        json_array_append_new(causes, json_pack("{s:s, s:s, s:s}", "reason", "FieldManagerConflict",
                                                "message", message, "field", field));
        if (rc == AT_OK) { /* past the cap the causes still name all */
            rc = at_buf_printf(&text, "%s %s: %s", i > 0 ? "," : "", message, field);
        }
    }
    json_t *details = api_details(req, req->route.name);
    json_object_set_new(details, "causes", causes);
    api_respond_json(req, 409, api_status(false, "Conflict", 409, text.data, details));
}

/* What an apply of the scale means for the object. own: caller decrefs; NULL: answered. */
static json_t *applied_scale(struct api_req *req)
{
    const json_t *replicas = at_json_at(req->body, "spec.replicas");
    json_t *applied = json_object();
    const char *path = req->route.kind->scale_spec_path;
    if (replicas != NULL && !json_is_null(replicas)) {
        at_json_set_at(applied, path + (path[0] == '.'), json_deep_copy(replicas));
    }
    const json_t *rv = at_json_at(req->body, "metadata.resourceVersion");
    if (rv != NULL) {
        at_json_set_at(applied, "metadata.resourceVersion", json_deep_copy(rv));
    }
    return applied;
}

bool api_apply_make(struct api_req *req)
{
    bool scale = at_streq(req->route.subresource, "scale");
    AT_CLEANUP(at_cleanup_json)
    json_t *applied = scale ? applied_scale(req) : json_incref(req->body);
    struct at_apply a = {.who = owner_of(req, true),
                         .force = api_query_bool(req, "force"),
                         .old = req->old,
                         .applied = applied};
    at_apply_make(req->route.kind, &a);
    AT_CLEANUP(at_cleanup_json) json_t *conflicts = a.conflicts;
    json_decref(req->object);
    req->object = a.object;
    json_decref(req->managed);
    req->managed = a.entries;
    if (json_array_size(conflicts) > 0) {
        respond_conflicts(req, conflicts);
        return false;
    }
    return true;
}
