/* Hash map from string keys to pointers. Keys are copied; values are the caller's. Iteration order
 * is insertion order, so that everything built on it is deterministic. Not thread safe. */
#ifndef AT_CORE_MAP_H
#define AT_CORE_MAP_H

#include "core/err.h"

struct at_map;

struct at_map *at_map_new(void);
void at_map_free(struct at_map *map); /* accepts NULL; values are not touched */
size_t at_map_count(const struct at_map *map);
void *at_map_get(const struct at_map *map, const char *key); /* NULL when absent */
void *at_map_get_n(const struct at_map *map, const char *key, size_t len);
void *at_map_put(struct at_map *map, const char *key,
                 void *value);                            /* returns the value replaced, or NULL */
void *at_map_remove(struct at_map *map, const char *key); /* returns the value removed, or NULL */
void at_map_clear(struct at_map *map);
/* for (size_t it = 0; at_map_next(map, &it, &key, &value);) ... ; do not change the map meanwhile,
 * except that the entry just given may be removed. *ret_key is good until the map changes. */
bool at_map_next(const struct at_map *map, size_t *it, const char **ret_key, void **ret_value);

#endif
