/* What requests say beside their object: GetOptions, ListOptions, CreateOptions and so on, checked
 * as Kubernetes checks them. */
#include "api/options.h"
#include "core/mem.h"
#include "core/str.h"

static const char *kind_of(const struct api_req *req)
{
    switch (req->method) {
    case AT_HTTP_POST:
        return "CreateOptions";
    case AT_HTTP_PUT:
        return "UpdateOptions";
    case AT_HTTP_PATCH:
        return "PatchOptions";
    case AT_HTTP_DELETE:
        return "DeleteOptions";
    default:
        return "ListOptions";
    }
}

void api_respond_option(struct api_req *req, const char *reason, const char *field,
                        const char *message)
{
    const char *kind = kind_of(req);
    json_t *details =
        json_pack("{s:s, s:s, s:[{s:s, s:s, s:s}]}", "group", "meta.k8s.io", "kind", kind, "causes",
                  "reason", reason, "message", message, "field", field);
    const char *text =
        at_arena_printf(req->arena, "%s.meta.k8s.io \"\" is invalid: %s: %s", kind, field, message);
    api_respond_json(req, 422, api_status(false, "Invalid", 422, text, details));
}

static void respond_unsupported(struct api_req *req, const char *field, const char *value,
                                const char *supported)
{
    const char *message = at_arena_printf(
        req->arena, "Unsupported value: \"%.64s\": supported values: %s", value, supported);
    api_respond_option(req, "FieldValueNotSupported", field, message);
}

bool api_options_read(struct api_req *req)
{
    const char *dry_run = api_query(req, "dryRun");
    if (dry_run != NULL && !at_streq(dry_run, "All") && dry_run[0] != '\0') {
        respond_unsupported(req, "dryRun", dry_run, "\"All\"");
        return false;
    }
    req->dry_run = at_streq(dry_run, "All");
    const char *mode = api_query(req, "fieldValidation");
    if (mode == NULL || mode[0] == '\0' || at_streq(mode, "Warn")) {
        req->unknown = AT_MODEL_UNKNOWN_WARN;
    } else if (at_streq(mode, "Strict")) {
        req->unknown = AT_MODEL_UNKNOWN_REFUSE;
    } else if (at_streq(mode, "Ignore")) {
        req->unknown = AT_MODEL_UNKNOWN_DROP;
    } else {
        respond_unsupported(req, "fieldValidation", mode, "\"Ignore\", \"Strict\", \"Warn\"");
        return false;
    }
    return true;
}

bool api_list_options_check(struct api_req *req, bool watch)
{
    static const char FIELD[] = "resourceVersionMatch";
    const char *match = api_query(req, FIELD);
    const char *rv = api_query(req, "resourceVersion");
    const char *token = api_query(req, "continue");
    bool initial = api_query(req, "sendInitialEvents") != NULL;
    bool given = match != NULL && match[0] != '\0';
    bool exact = at_streq(match, "Exact");
    const char *why = NULL;
    if (given && !exact && !at_streq(match, "NotOlderThan")) {
        respond_unsupported(req, FIELD, match, "\"Exact\", \"NotOlderThan\"");
        return false;
    }
    if (watch && initial && !at_streq(match, "NotOlderThan")) {
        why = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
    } else if (watch && given && !initial) {
        why = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is "
              "provided";
    } else if (!watch && given && (rv == NULL || rv[0] == '\0')) {
        why = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
    } else if (!watch && given && token != NULL && token[0] != '\0') {
        why = "Forbidden: resourceVersionMatch is forbidden when continue is provided";
    } else if (!watch && exact && at_streq(rv, "0")) {
        why = "Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"";
    }
    const char *field = FIELD;
    if (!watch && initial) {
        field = "sendInitialEvents";
        why = "Forbidden: sendInitialEvents is forbidden for list";
    }
    if (why != NULL) {
        api_respond_option(req, "FieldValueForbidden", field, why);
    }
    return why == NULL;
}

bool api_version_there(struct api_req *req, int64_t wanted)
{
    int64_t now = at_store_rev(req->api->options.store);
    if (wanted <= now) {
        return true;
    }
    const char *message =
        at_arena_printf(req->arena, "Timeout: Too large resource version: %lld, current: %lld",
                        (long long)wanted, (long long)now);
    json_t *details =
        json_pack("{s:[{s:s, s:s}], s:i}", "causes", "reason", "ResourceVersionTooLarge", "message",
                  "Too large resource version", "retryAfterSeconds", 1);
    api_respond_json(req, 504, api_status(false, "Timeout", 504, message, details));
    return false;
}
