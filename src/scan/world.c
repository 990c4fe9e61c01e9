/* What else there is, as far as rules about one object need it. */
#include "core/map.h"
#include "core/mem.h"
#include "scan/scan_priv.h"

struct at_scan_world {
    struct at_map *classes, *quotas, *policies; /* names that are there */
};

struct at_scan_world *at_scan_world_new(void)
{
    struct at_scan_world *world = AT_NEW(struct at_scan_world);
    world->classes = at_map_new();
    world->quotas = at_map_new();
    world->policies = at_map_new();
    return world;
}

void at_scan_world_free(struct at_scan_world *world)
{
    if (world == NULL) {
        return;
    }
    at_map_free(world->classes);
    at_map_free(world->quotas);
    at_map_free(world->policies);
    at_free(world);
}

static void put(struct at_map *map, const char *name)
{
    (void)at_map_put(map, name, map);
}

void at_scan_world_class(struct at_scan_world *world, const char *data_class)
{
    put(world->classes, data_class);
}

static void add(struct at_scan_world *world, const json_t *object, unsigned depth)
{
    const char *kind = scan_text(object, "kind");
    const json_t *items = json_object_get(object, "items");
    const char *ns = at_json_str_at(object, "metadata.namespace", "default");
    size_t i;
    json_t *item;
    if (json_is_array(items) && depth < AT_SCAN_DEPTH_MAX) {
        json_array_foreach(items, i, item)
        {
            add(world, item, depth + 1);
        }
    } else if (at_streq(kind, "Policy")) {
        json_array_foreach(at_json_at(object, "spec.residency"), i, item)
        {
            at_scan_world_class(world, scan_text(item, "dataClass"));
        }
    } else if (at_streq(kind, "ResourceQuota")) {
        put(world->quotas, ns);
    } else if (at_streq(kind, "NetworkPolicy")) {
        put(world->policies, ns);
    }
}

void at_scan_world_add(struct at_scan_world *world, const json_t *object)
{
    add(world, object, 0);
}

bool scan_world_has_class(const struct at_scan_world *world, const char *data_class)
{
    return at_map_get(world->classes, data_class) != NULL;
}

bool scan_world_has_quota(const struct at_scan_world *world, const char *ns)
{
    return at_map_get(world->quotas, ns) != NULL;
}

bool scan_world_has_policy(const struct at_scan_world *world, const char *ns)
{
    return at_map_get(world->policies, ns) != NULL;
}
