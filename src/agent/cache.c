/* The model cache of this machine: files by digest in models/sha256, whole packages in
 * models/packages as second names of them. It has a limit; what nobody uses goes first, the longest
 * unused before the others. Any thread. */
#include "agent/agent_priv.h"

#include "core/log.h"
#include "sys/entry.h"
#include "sys/file.h"
#include "sys/machine.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct agent_cache {
    char *dir;         /* state/models */
    int64_t bytes_max; /* 0: no limit */
    pthread_mutex_t lock;
    struct at_map *pins; /* path -> how many use it */
    size_t fetches;      /* under way */
    int64_t fetching_since_wall_ns;
};

/* One that may go. */
struct entry {
    char *path;
    int64_t bytes, used_wall_ns;
    bool is_package;
};

struct entries {
    struct entry *items;
    size_t n, room;
    int64_t total;
};

struct agent_cache *agent_cache_new(const char *state_dir, int64_t bytes_max)
{
    struct agent_cache *c = AT_NEW(struct agent_cache);
    c->dir = at_asprintf("%s/models", state_dir);
    c->bytes_max = bytes_max;
    c->pins = at_map_new();
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

void agent_cache_free(struct agent_cache *c)
{
    if (c != NULL) {
        pthread_mutex_destroy(&c->lock);
        at_map_free(c->pins);
        at_free(c->dir);
        at_free(c);
    }
}

/* What is used of a path in the cache: the file, or the folder of its package. own: caller. */
static char *unit_of(const struct agent_cache *c, const char *path)
{
    AT_CLEANUP(at_cleanup_free) char *packages = at_asprintf("%s/packages/", c->dir);
    size_t n = strlen(packages);
    return strncmp(path, packages, n) == 0 ? at_strndup(path, n + strcspn(path + n, "/"))
                                           : at_strdup(path);
}

void agent_cache_pin(struct agent_cache *c, const char *path)
{
    if (c == NULL || path == NULL) {
        return;
    }
    AT_CLEANUP(at_cleanup_free) char *unit = unit_of(c, path);
    pthread_mutex_lock(&c->lock);
    uintptr_t n = (uintptr_t)at_map_get(c->pins, unit);
    at_map_put(c->pins, unit, (void *)(n + 1));
    pthread_mutex_unlock(&c->lock);
    at_entry_touch(unit);
}

void agent_cache_unpin(struct agent_cache *c, const char *path)
{
    if (c == NULL || path == NULL) {
        return;
    }
    AT_CLEANUP(at_cleanup_free) char *unit = unit_of(c, path);
    pthread_mutex_lock(&c->lock);
    uintptr_t n = (uintptr_t)at_map_get(c->pins, unit);
    if (n > 1) {
        at_map_put(c->pins, unit, (void *)(n - 1));
    } else {
        at_map_remove(c->pins, unit);
    }
    pthread_mutex_unlock(&c->lock);
    at_entry_touch(unit); /* used until now */
}

/* --- what is there --- */

static void add(struct entries *all, char *path_take, int64_t bytes, int64_t used, bool package)
{
    if (all->n == all->room) {
        all->room = all->room > 0 ? all->room * 2 : 64;
        all->items = at_realloc(all->items, all->room * sizeof *all->items);
    }
    all->items[all->n++] = (struct entry){path_take, bytes, used, package};
}

/* Bytes of a folder's files. fresh: only of those that have no other name. */
static int64_t folder_bytes(const char *folder, int depth, bool fresh)
{
    char **names = NULL;
    size_t n = 0;
    int64_t sum = 0;
    if (depth > 20 || at_dir_list(folder, &names, &n, NULL) != AT_OK) {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        struct at_entry e;
        AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", folder, names[i]);
        if (at_entry_look(path, &e, NULL) == AT_OK) {
            sum += e.kind == AT_ENTRY_FOLDER ? folder_bytes(path, depth + 1, fresh)
                   : e.kind == AT_ENTRY_FILE && (!fresh || e.links == 1) ? e.bytes
                                                                         : 0;
        }
        at_free(names[i]);
    }
    at_free(names);
    return sum;
}

/* Files of models/NAME. Those with another name belong to a package, and go after it. */
static void look_files(const struct agent_cache *c, const char *name, struct entries *all)
{
    AT_CLEANUP(at_cleanup_free) char *dir = at_asprintf("%s/%s", c->dir, name);
    char **names = NULL;
    size_t n = 0;
    if (at_dir_list(dir, &names, &n, NULL) != AT_OK) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct at_entry e = {0};
        char *path = at_asprintf("%s/%s", dir, names[i]);
        bool file = at_entry_look(path, &e, NULL) == AT_OK && e.kind == AT_ENTRY_FILE;
        all->total += file ? e.bytes : 0;
        if (file && e.links == 1 && strstr(names[i], ".tmp") == NULL) {
            add(all, path, e.bytes, e.changed_wall_ns, false);
        } else {
            at_free(path);
        }
        at_free(names[i]);
    }
    at_free(names);
}

static void look_packages(const struct agent_cache *c, struct entries *all)
{
    AT_CLEANUP(at_cleanup_free) char *dir = at_asprintf("%s/packages", c->dir);
    char **names = NULL;
    size_t n = 0;
    if (at_dir_list(dir, &names, &n, NULL) != AT_OK) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct at_entry e = {0};
        char *path = at_asprintf("%s/%s", dir, names[i]);
        if (at_entry_look(path, &e, NULL) == AT_OK && e.kind == AT_ENTRY_FOLDER &&
            strstr(names[i], ".tmp") == NULL) {
            all->total += folder_bytes(path, 0, true);
            add(all, path, 0, e.changed_wall_ns, true);
        } else {
            at_free(path);
        }
        at_free(names[i]);
    }
    at_free(names);
}

static int by_use(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return x->used_wall_ns < y->used_wall_ns ? -1 : x->used_wall_ns > y->used_wall_ns;
}

static void entries_done(struct entries *all)
{
    for (size_t i = 0; i < all->n; i++) {
        at_free(all->items[i].path);
    }
    at_free(all->items);
}

/* --- making room --- */

void agent_cache_fetch_begin(struct agent_cache *c)
{
    pthread_mutex_lock(&c->lock);
    if (c->fetches++ == 0) {
        c->fetching_since_wall_ns = at_sys_wall_ns(at_sys_real());
    }
    pthread_mutex_unlock(&c->lock);
}

void agent_cache_fetch_end(struct agent_cache *c)
{
    pthread_mutex_lock(&c->lock);
    c->fetches--;
    pthread_mutex_unlock(&c->lock);
}

/* A blob that came since the oldest fetch under way began may be one of its: not named yet. */
static bool may_go(const struct agent_cache *c, const struct entry *e)
{
    bool young = c->fetches > 0 && !e->is_package && e->used_wall_ns >= c->fetching_since_wall_ns;
    return !young && at_map_get(c->pins, e->path) == NULL;
}

/* The longest unused that may go goes. */
static bool evict_one(struct agent_cache *c, struct entries *all)
{
    if (all->n > 0) {
        qsort(all->items, all->n, sizeof *all->items, by_use);
    }
    for (size_t i = 0; i < all->n; i++) {
        const struct entry *e = &all->items[i];
        if (may_go(c, e) && (e->is_package ? at_tree_remove(e->path, NULL)
                                           : at_file_remove(e->path, NULL)) == AT_OK) {
            at_log(AT_LOG_INFO, "models.evicted", "%s", e->path);
            return true;
        }
    }
    return false;
}

static enum at_rc make_room(struct agent_cache *c, int64_t needed, struct at_err *err)
{
    for (;;) {
        struct entries all = {0};
        look_packages(c, &all);
        look_files(c, "sha256", &all);
        look_files(c, "uri", &all);
        int64_t disk = 0, disk_free = INT64_MAX;
        bool on_disk = at_machine_disk(c->dir, &disk, &disk_free, NULL) != AT_OK ||
                       disk_free - disk / AGENT_CACHE_DISK_PART >= needed || needed == 0;
        bool fits = c->bytes_max == 0 || all.total <= c->bytes_max - needed;
        bool more = (!fits || !on_disk) && evict_one(c, &all);
        int64_t total = all.total;
        entries_done(&all);
        if (fits && on_disk) {
            return AT_OK;
        }
        if (!more && fits) {
            return at_err_set(
                err, AT_EXHAUSTED,
                "it takes %lld bytes more, and the disk of this node's model cache has "
                "%lld left",
                (long long)needed, (long long)disk_free);
        }
        if (!more) {
            return at_err_set(err, AT_EXHAUSTED,
                              "it takes %lld bytes more, and %lld of the %lld of this node's model "
                              "cache are in use",
                              (long long)needed, (long long)total, (long long)c->bytes_max);
        }
    }
}

enum at_rc agent_cache_room(struct agent_cache *c, int64_t needed, struct at_err *err)
{
    if (c == NULL) {
        return AT_OK;
    }
    if (c->bytes_max > 0 && needed > c->bytes_max) {
        return at_err_set(
            err, AT_EXHAUSTED,
            "it takes %lld bytes, and the model cache of this node holds %lld at most",
            (long long)needed, (long long)c->bytes_max);
    }
    pthread_mutex_lock(&c->lock);
    enum at_rc rc = make_room(c, needed, err);
    pthread_mutex_unlock(&c->lock);
    return rc;
}
