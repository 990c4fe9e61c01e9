/* From what somebody names to the instances that are meant: its own, or those of whatever owns
 * them. */
#include "cli/reach.h"

#include <string.h>

static bool owned_by(const json_t *item, const struct at_model_kind *kind, const char *name)
{
    size_t at;
    json_t *owner;
    json_array_foreach(at_json_at(item, "metadata.ownerReferences"), at, owner)
    {
        if (strcmp(at_json_str_at(owner, "kind", ""), kind->kind) == 0 &&
            strcmp(at_json_str_at(owner, "apiVersion", ""), kind->api_version) == 0 &&
            strcmp(at_json_str_at(owner, "name", ""), name) == 0) {
            return true;
        }
    }
    return false;
}

/* Owners put their name on what they make, as the label atoll.dev/<kind>; where one does not, what
 * the instances say of their owner decides. */
static enum at_rc find_owned(struct cli *cli, const struct cli_target *target, json_t **ret,
                             struct at_err *err)
{
    const char *selector =
        at_arena_printf(cli->arena, "atoll.dev/%s=%s", target->kind->singular, target->name);
    enum at_rc rc = cli_list(cli, &AT_KIND_INSTANCE, selector, ret, err);
    if (rc == AT_BAD_REQUEST || rc == AT_INVALID) { /* a name too long for a label */
        *err = (struct at_err){0};
        *ret = json_array();
        rc = AT_OK;
    }
    if (rc != AT_OK || json_array_size(*ret) != 0) {
        return rc;
    }
    json_t *all = NULL;
    rc = cli_list(cli, &AT_KIND_INSTANCE, NULL, &all, err);
    for (size_t i = 0; i < json_array_size(all) && rc == AT_OK; i++) {
        json_t *item = json_array_get(all, i);
        if (owned_by(item, target->kind, target->name)) {
            json_array_append(*ret, item);
        }
    }
    json_decref(all);
    if (rc != AT_OK) {
        json_decref(*ret);
        *ret = NULL;
    }
    return rc;
}

enum at_rc cli_instances(struct cli *cli, const struct cli_target *target, json_t **ret,
                         struct at_err *err)
{
    json_t *object = NULL;
    enum at_rc rc = cli_call(cli, AT_HTTP_GET, cli_path(cli, target->kind, target->name, NULL),
                             NULL, NULL, NULL, &object, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (target->kind == &AT_KIND_INSTANCE) {
        *ret = json_pack("[o]", object);
        return AT_OK;
    }
    json_decref(object);
    json_t *items = NULL;
    rc = find_owned(cli, target, &items, err);
    if (rc == AT_OK && json_array_size(items) == 0) {
        json_decref(items);
        return at_err_set(
            err, AT_NOT_FOUND, "%s has no instances; atoll describe %s %s tells what it waits for",
            cli_ref(cli, target->kind, target->name), target->kind->singular, target->name);
    }
    if (rc == AT_OK) {
        *ret = items;
    }
    return rc;
}

enum at_rc cli_instance_target(const struct cli *cli, const char *const *words, size_t n,
                               struct cli_target *ret, struct at_err *err)
{
    if (n == 1 && strchr(words[0], '/') == NULL) {
        *ret = (struct cli_target){&AT_KIND_INSTANCE, words[0]};
        return AT_OK;
    }
    struct cli_target *targets = NULL;
    size_t n_targets = 0;
    enum at_rc rc = cli_targets(cli, words, n, true, &targets, &n_targets, err);
    if (rc == AT_OK && n_targets != 1) {
        rc = at_err_set(err, AT_BAD_REQUEST, "%s of one thing at a time", cli->verb->name);
    }
    if (rc == AT_OK) {
        *ret = targets[0];
    }
    return rc;
}

/* Better ones have more. */
static int fitness(const json_t *instance)
{
    bool going = at_json_str_at(instance, "metadata.deletionTimestamp", NULL) != NULL;
    bool runs = strcmp(at_json_str_at(instance, "status.phase", ""), "Running") == 0;
    bool ready = at_json_bool_at(instance, "status.ready", false);
    return (runs ? 4 : 0) + (runs && ready ? 2 : 0) + (going ? 0 : 1);
}

json_t *cli_instance_best(const json_t *items, const struct cli_target *target)
{
    json_t *best = NULL;
    for (size_t i = 0; i < json_array_size(items); i++) {
        json_t *item = json_array_get(items, i);
        if (target->kind != &AT_KIND_INSTANCE && !owned_by(item, target->kind, target->name)) {
            continue;
        }
        best = best == NULL || fitness(item) > fitness(best) ? item : best;
    }
    return best;
}

enum at_rc cli_instance_pick(struct cli *cli, const struct cli_target *target, json_t **ret,
                             struct at_err *err)
{
    json_t *items = NULL;
    enum at_rc rc = cli_instances(cli, target, &items, err);
    if (rc != AT_OK) {
        return rc;
    }
    const json_t *best = cli_instance_best(items, &(struct cli_target){&AT_KIND_INSTANCE, NULL});
    const char *name = at_json_str_at(best, "metadata.name", "");
    if (fitness(best) < 4) {
        rc = at_err_set(err, AT_UNAVAILABLE,
                        "instance %s is %s, not Running%s%s; atoll describe instance %s tells why",
                        name, at_json_str_at(best, "status.phase", "Pending"),
                        target->kind != &AT_KIND_INSTANCE ? ", and no other one of " : "",
                        target->kind != &AT_KIND_INSTANCE ? target->name : "", name);
    } else {
        *ret = json_incref((json_t *)best);
    }
    json_decref(items);
    return rc;
}
