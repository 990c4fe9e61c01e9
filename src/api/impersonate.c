/* Acting as another (kubectl --as): Impersonate-User, -Group, -Uid and -Extra-<key>, for whoever
 * has the right to the verb impersonate on each of what they name. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"

#include <stdio.h>

#define PREFIX "impersonate-"
#define EXTRA "extra-"
#define AUTHENTICATED "system:authenticated"
#define SERVICE_ACCOUNT "system:serviceaccount:"
#define KEY_BYTES_MAX 256

/* Header's name after "Impersonate-"; NULL: it is another header. */
static struct at_str part_of(const struct at_http_header *header)
{
    size_t len = sizeof PREFIX - 1;
    struct at_str name = header->name;
    bool is = name.len > len && at_str_eq_nocase((struct at_str){name.ptr, len}, PREFIX);
    return is ? (struct at_str){name.ptr + len, name.len - len} : (struct at_str){0};
}

static bool extra_key(struct at_str part, char out[KEY_BYTES_MAX])
{
    size_t len = sizeof EXTRA - 1;
    if (part.len <= len || !at_str_eq_nocase((struct at_str){part.ptr, len}, EXTRA)) {
        return false;
    }
    struct at_str key = {part.ptr + len, part.len - len};
    if (at_percent_decode(key, false, out, KEY_BYTES_MAX) != AT_OK) {
        return false;
    }
    for (char *c = out; *c != '\0'; c++) {
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
    }
    return true;
}

/* False: answered. */
static bool allowed_in(struct api_req *req, const char *group, const char *resource,
                       const char *subresource, const char *ns, const char *name)
{
    struct at_access what = {.verb = "impersonate",
                             .group = group,
                             .resource = resource,
                             .subresource = subresource,
                             .ns = ns,
                             .name = name};
    char reason[512];
    if (api_may(req->api, &req->who, &what, reason, sizeof reason)) {
        return true;
    }
    json_t *details = json_pack("{s:s, s:s}", "name", name, "kind", resource);
    const char *message = at_arena_printf(req->arena, "%s%s%s \"%s\" is forbidden: %s", resource,
                                          group[0] != '\0' ? "." : "", group, name, reason);
    api_respond_json(req, 403, api_status(false, "Forbidden", 403, message, details));
    return false;
}

static bool allowed(struct api_req *req, const char *group, const char *resource,
                    const char *subresource, const char *name)
{
    return allowed_in(req, group, resource, subresource, "", name);
}

static bool copy(char *out, size_t size, const char *text)
{
    size_t len = strlen(text);
    if (len == 0 || len >= size) {
        return false;
    }
    memcpy(out, text, len + 1);
    return true;
}

static bool refuse(struct api_req *req, const char *why)
{
    api_respond_error(req, AT_BAD_REQUEST, "%s", why);
    return false;
}

static bool user_set(struct api_req *req, struct at_identity *to, const char *value)
{
    if (to->user[0] != '\0' || !copy(to->user, sizeof to->user, value)) {
        return refuse(req, "Impersonate-User: one name of at most 255 bytes is needed");
    }
    if (!at_str_starts(at_str_of(value), SERVICE_ACCOUNT)) {
        return allowed(req, "", "users", "", value);
    }
    struct at_str name = at_str_of(value + sizeof SERVICE_ACCOUNT - 1);
    struct at_str ns = at_str_cut(&name, ':');
    return allowed_in(req, "", "serviceaccounts", "", at_arena_strndup(req->arena, ns.ptr, ns.len),
                      at_arena_strndup(req->arena, name.ptr, name.len));
}

static bool group_add(struct api_req *req, struct at_identity *to, const char *value)
{
    if (at_streq(value, AUTHENTICATED)) {
        return allowed(req, "", "groups", "", value); /* everyone with a name is in it anyway */
    }
    if (to->n_groups == AT_IDENTITY_GROUPS_MAX ||
        !copy(to->groups[to->n_groups], sizeof to->groups[0], value)) {
        return refuse(req, "Impersonate-Group: at most 16 names of at most 127 bytes are taken");
    }
    to->n_groups++;
    return allowed(req, "", "groups", "", value);
}

static bool extra_add(struct api_req *req, const char *key, const char *value)
{
    json_t *extra = json_object_get(req->as, "extra");
    if (extra == NULL) {
        extra = json_object();
        json_object_set_new(req->as, "extra", extra);
    }
    json_t *list = json_object_get(extra, key);
    if (list == NULL) {
        list = json_array();
        json_object_set_new(extra, key, list);
    }
    json_array_append_new(list, json_string(value));
    return allowed(req, "authentication.k8s.io", "userextras", key, value);
}

/* One header. False: answered. */
static bool take(struct api_req *req, struct at_identity *to, struct at_str part,
                 struct at_str text)
{
    char key[KEY_BYTES_MAX];
    const char *value = at_arena_strndup(req->arena, text.ptr, text.len);
    json_t *probe = json_string(value);
    json_decref(probe);
    if (probe == NULL || text.len == 0) {
        return refuse(req, "Impersonate-*: a value is empty or no UTF-8");
    }
    if (at_str_eq_nocase(part, "user")) {
        return user_set(req, to, value);
    }
    if (at_str_eq_nocase(part, "group")) {
        return group_add(req, to, value);
    }
    if (at_str_eq_nocase(part, "uid")) {
        json_object_set_new(req->as, "uid", json_string(value));
        return allowed(req, "authentication.k8s.io", "uids", "", value);
    }
    if (!extra_key(part, key) || (probe = json_string(key)) == NULL) {
        return refuse(req, "Impersonate-*: only User, Group, Uid and Extra-<key> are known");
    }
    json_decref(probe);
    return extra_add(req, key, value);
}

bool api_impersonate(struct api_req *req)
{
    const struct at_http_head *head = at_http_request(req->ex);
    struct at_identity to = {0};
    for (size_t i = 0; i < head->n_headers; i++) {
        struct at_str part = part_of(&head->headers[i]);
        if (part.ptr == NULL) {
            continue;
        }
        if (req->as == NULL) {
            req->as = json_object();
        }
        if (!take(req, &to, part, head->headers[i].value)) {
            return false;
        }
    }
    if (req->as == NULL) {
        return true;
    }
    if (to.user[0] == '\0') {
        return refuse(req, "Impersonate-User: is needed beside the other Impersonate-* headers");
    }
    if (to.n_groups == 0 && at_str_starts(at_str_of(to.user), SERVICE_ACCOUNT)) {
        struct at_str name = at_str_of(to.user + sizeof SERVICE_ACCOUNT - 1);
        struct at_str ns = at_str_cut(&name, ':');
        snprintf(to.groups[0], sizeof to.groups[0], "system:serviceaccounts");
        snprintf(to.groups[1], sizeof to.groups[1], "system:serviceaccounts:%.*s", (int)ns.len,
                 ns.ptr);
        to.n_groups = 2;
    }
    struct at_identity *real = at_arena_alloc(req->arena, sizeof *real);
    if (real == NULL) {
        return refuse(req, "the request is too large");
    }
    *real = req->who;
    req->real = real;
    req->real_user = real->user;
    req->who = to;
    req->by_certificate = false; /* what a certificate proves is of the one who asks */
    return true;
}

static bool still(const struct api_req *req, const char *resource, struct at_str ns,
                  const char *name)
{
    char text[256];
    snprintf(text, sizeof text, "%.*s", (int)ns.len, ns.ptr != NULL ? ns.ptr : "");
    struct at_access what = {
        .verb = "impersonate", .group = "", .resource = resource, .ns = text, .name = name};
    return api_may(req->api, req->real, &what, NULL, 0);
}

static bool groups_still(const struct api_req *req)
{
    bool may = true;
    for (size_t i = 0; may && i < req->who.n_groups; i++) {
        may = still(req, "groups", (struct at_str){0}, req->who.groups[i]);
    }
    return may;
}

bool api_still_acts(const struct api_req *req)
{
    const struct at_identity *to = &req->who;
    if (req->real == NULL) {
        return true;
    }
    if (at_str_starts(at_str_of(to->user), SERVICE_ACCOUNT)) {
        struct at_str name = at_str_of(to->user + sizeof SERVICE_ACCOUNT - 1);
        struct at_str ns = at_str_cut(&name, ':');
        /* Groups that were not asked for follow from the name. */
        bool given = to->n_groups == 2 && at_streq(to->groups[0], "system:serviceaccounts");
        return still(req, "serviceaccounts", ns, name.ptr) && (given || groups_still(req));
    }
    return still(req, "users", (struct at_str){0}, to->user) && groups_still(req);
}
