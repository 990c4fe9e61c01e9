/* Rules of quotas, ranges and network policies that a schema cannot say. */
#include "model/model_priv.h"

#include "core/mem.h"
#include "core/str.h"

#include <arpa/inet.h>
#include <string.h>

#define PATH(up_, name_) (&(struct at_model_path){.up = (up_), .name = (name_)})
#define ITEM(up_, i_) (&(struct at_model_path){.up = (up_), .index = (i_)})
#define KEY(up_, name_) (&(struct at_model_path){.up = (up_), .name = (name_), .is_key = true})

static const char *text_at(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));
    return text != NULL ? text : "";
}

/* A name as a resource is given: cpu and the like, count/..., or example.com/thing. */
static bool is_name(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > 253) {
        return false;
    }
    return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") ==
           len;
}

static const char *unit_of(const char *name)
{
    static const struct {
        const char *name, *unit;
    } UNITS[] = {{"gpuMemory", "memory"},
                 {"storage", "disk"},
                 {"ephemeral-storage", "disk"},
                 {"nvidia.com/gpu", "gpu"},
                 {"amd.com/gpu", "gpu"}};
    struct at_str text = at_str_of(name);
    if (at_str_starts(text, "requests.")) {
        name += strlen("requests.");
    } else if (at_str_starts(text, "limits.")) {
        name += strlen("limits.");
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(UNITS); i++) {
        if (at_streq(UNITS[i].name, name)) {
            return UNITS[i].unit;
        }
    }
    return name;
}

/* Neither 1.5 nor 1500m of what is counted. */
static bool is_whole(const char *unit, const char *text)
{
    static const char *const PARTED[] = {"cpu", "gpu", "memory", "disk"};
    size_t len = strlen(text);
    for (size_t i = 0; i < AT_ARRAY_LEN(PARTED); i++) {
        if (at_streq(unit, PARTED[i])) {
            return true;
        }
    }
    return strchr(text, '.') == NULL && len > 0 && text[len - 1] != 'm';
}

static void amounts_check(struct at_model_check *check, const struct at_model_path *path,
                          const json_t *map)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)map, name, value)
    {
        char number[32];
        const char *text = json_string_value(value);
        int64_t amount;
        if (json_is_integer(value)) {
            snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
            text = number;
        }
        if (!is_name(name)) {
            at_model_invalid_add(check, KEY(path, name), NULL, value, "is no name of a resource");
        } else if (text == NULL || !is_whole(unit_of(name), text) ||
                   at_model_amount_parse(unit_of(name), text, &amount, NULL) != AT_OK) {
            at_model_invalid_add(check, KEY(path, name), NULL, value,
                                 "must be a quantity that is not negative: 4, 500m, 256Gi; counts "
                                 "are whole numbers");
        }
    }
}

void at_model_quota_check(struct at_model_check *check, const json_t *object, const json_t *old)
{
    (void)old;
    const struct at_model_path *spec = PATH(NULL, "spec");
    const json_t *scopes = at_json_at(object, "spec.scopes");
    amounts_check(check, PATH(spec, "hard"), at_json_at(object, "spec.hard"));
    if (json_array_size(scopes) == 2) {
        at_model_invalid_add(check, spec, "scopes", scopes,
                             "BestEffort and NotBestEffort exclude each other");
    }
}

void at_model_limit_range_check(struct at_model_check *check, const json_t *object,
                                const json_t *old)
{
    (void)old;
    static const char *const PARTS[] = {"max", "min", "default", "defaultRequest"};
    const struct at_model_path *limits = PATH(PATH(NULL, "spec"), "limits");
    size_t i;
    json_t *item;
    json_array_foreach(at_json_at(object, "spec.limits"), i, item)
    {
        for (size_t k = 0; k < AT_ARRAY_LEN(PARTS); k++) {
            amounts_check(check, PATH(ITEM(limits, i), PARTS[k]), json_object_get(item, PARTS[k]));
        }
        const char *name;
        json_t *value;
        json_object_foreach(json_object_get(item, "min"), name, value)
        {
            const char *most = text_at(json_object_get(item, "max"), name);
            int64_t low = 0, high = 0;
            if (json_is_string(value) && most[0] != '\0' &&
                at_model_amount_parse(unit_of(name), json_string_value(value), &low, NULL) ==
                    AT_OK &&
                at_model_amount_parse(unit_of(name), most, &high, NULL) == AT_OK && low > high) {
                at_model_invalid_add(check, KEY(PATH(ITEM(limits, i), "min"), name), NULL, value,
                                     "is more than max");
            }
        }
    }
}

static bool is_cidr(const char *text)
{
    char address[64];
    unsigned char bytes[16];
    uint64_t bits;
    const char *slash = strchr(text, '/');
    if (slash == NULL || (size_t)(slash - text) >= sizeof address ||
        at_str_to_u64(at_str_of(slash + 1), &bits) != AT_OK) {
        return false;
    }
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    return (inet_pton(AF_INET, address, bytes) == 1 && bits <= 32) ||
           (inet_pton(AF_INET6, address, bytes) == 1 && bits <= 128);
}

static void peer_check(struct at_model_check *check, const struct at_model_path *path,
                       const json_t *peer)
{
    const json_t *block = json_object_get(peer, "ipBlock");
    bool selects = json_object_get(peer, "podSelector") != NULL ||
                   json_object_get(peer, "namespaceSelector") != NULL;
    size_t i;
    json_t *except;
    if (block == NULL && !selects) {
        at_model_cause_add(check, path, NULL, "FieldValueRequired",
                           "Required value: must specify a peer");
    }
    if (block != NULL && selects) {
        at_model_cause_add(check, path, "ipBlock", "FieldValueForbidden",
                           "Forbidden: may not be specified together with selectors");
    }
    if (block != NULL && !is_cidr(text_at(block, "cidr"))) {
        at_model_invalid_add(check, PATH(path, "ipBlock"), "cidr", json_object_get(block, "cidr"),
                             "must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32");
    }
    json_array_foreach(json_object_get(block, "except"), i, except)
    {
        if (json_is_string(except) && !is_cidr(json_string_value(except))) {
            at_model_invalid_add(check, ITEM(PATH(PATH(path, "ipBlock"), "except"), i), NULL,
                                 except, "must be a CIDR");
        }
    }
}

static void port_check(struct at_model_check *check, const struct at_model_path *path,
                       const json_t *port)
{
    const json_t *value = json_object_get(port, "port");
    const json_t *end = json_object_get(port, "endPort");
    int64_t number = json_integer_value(value);
    if (json_is_string(value) &&
        at_str_to_i64(at_str_of(json_string_value(value)), &number) != AT_OK) {
        number = -1;
    }
    if (value != NULL && (number < 1 || number > 65535)) {
        at_model_invalid_add(check, path, "port", value,
                             "must be a number from 1 to 65535: instances name no ports");
    } else if (end != NULL && (value == NULL || json_integer_value(end) < number)) {
        at_model_invalid_add(check, path, "endPort", end, "must be at least port, which it needs");
    }
}

static void way_check(struct at_model_check *check, const char *way, const char *peers,
                      const json_t *rules)
{
    const struct at_model_path *list = PATH(PATH(NULL, "spec"), way);
    size_t i, k;
    json_t *rule, *item;
    json_array_foreach(rules, i, rule)
    {
        json_array_foreach(json_object_get(rule, peers), k, item)
        {
            peer_check(check, ITEM(PATH(ITEM(list, i), peers), k), item);
        }
        json_array_foreach(json_object_get(rule, "ports"), k, item)
        {
            port_check(check, ITEM(PATH(ITEM(list, i), "ports"), k), item);
        }
    }
}

void at_model_network_policy_check(struct at_model_check *check, const json_t *object,
                                   const json_t *old)
{
    (void)old;
    way_check(check, "ingress", "from", at_json_at(object, "spec.ingress"));
    way_check(check, "egress", "to", at_json_at(object, "spec.egress"));
}
