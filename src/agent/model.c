/* The model of an instance: fetched before it starts; and the next one, fetched while it runs. */
#include "agent/agent_priv.h"

#include "core/log.h"

#include <string.h>

/* --- those beside the first --- */

static void more_forget(struct agent_instance *i)
{
    for (size_t k = 0; k < i->n_more_paths; k++) {
        agent_cache_unpin(i->agent->cache, i->more_paths[k]);
        at_free(i->more_paths[k]);
    }
    at_free(i->more_paths);
    i->more_paths = NULL;
    i->n_more_paths = 0;
}

static void more_add(struct agent_instance *i, const char *path)
{
    i->more_paths = at_realloc(i->more_paths, (i->n_more_paths + 1) * sizeof *i->more_paths);
    i->more_paths[i->n_more_paths++] = at_strdup(path);
}

/* The next one that is not there yet; NULL: all are. The first is fetched last, as what it comes to
 * starts the instance. */
static const struct at_model_ref *next_more(const struct agent_instance *i)
{
    const struct at_workload *w = &i->typed->spec;
    return i->n_more_paths < w->models.n ? &w->models.items[i->n_more_paths] : NULL;
}

static const struct at_model_ref *wanted(const struct agent_instance *i)
{
    const struct at_model_ref *more = next_more(i);
    return more != NULL ? more : i->typed->spec.model;
}

static void get(struct agent_instance *i);

/* One of those came; path is pinned for us. False: it was the first one's turn. */
static bool took_more(struct agent_instance *i, const char *path)
{
    if (next_more(i) == NULL || i->phase != PHASE_FETCHING || !i->wanted || i->agent->stopping) {
        return false;
    }
    more_add(i, path);
    get(i);
    return true;
}

/* path is pinned for us. */
static void take(struct agent_instance *i, const char *path, const char *digest, const char *signer)
{
    agent_cache_unpin(i->agent->cache, i->model_path);
    at_free(i->model_path);
    at_free(i->model_digest);
    at_free(i->model_signer);
    i->model_path = at_strdup(path);
    i->model_digest = at_strdup(digest);
    i->model_signer = at_strdup(signer);
    agent_launch(i);
}

static void on_fetched(void *ctx, enum at_rc rc, const char *path, const struct at_err *err)
{
    struct agent_instance *i = ctx;
    if (rc == AT_OK && next_more(i) != NULL) {
        agent_cache_pin(i->agent->cache, path);
        if (took_more(i, path)) {
            return;
        }
        agent_cache_unpin(i->agent->cache, path);
    }
    if (agent_instance_model(i, rc, err)) {
        agent_cache_pin(i->agent->cache, path);
        take(i, path, NULL, NULL);
    }
}

static void on_package(void *ctx, enum at_rc rc, const struct agent_package *package,
                       const struct at_err *err)
{
    struct agent_instance *i = ctx;
    struct agent_cache *cache = i->agent->cache; /* i may be gone after the question */
    if (rc == AT_OK && took_more(i, package->path)) {
        return;
    }
    if (agent_instance_model(i, rc, err)) {
        take(i, package->path, package->digest, package->signer);
    } else if (rc == AT_OK) {
        agent_cache_unpin(cache, package->path);
    }
}

/* No package, but it may be used. */
static void on_allowed(void *ctx, enum at_rc rc, const struct agent_package *package,
                       const struct at_err *err)
{
    struct agent_instance *i = ctx;
    (void)package;
    if (rc == AT_OK && i->phase == PHASE_FETCHING && i->wanted && !i->agent->stopping) {
        agent_fetch(i->agent->fetches, wanted(i), on_fetched, i);
    } else {
        bool unused = agent_instance_model(i, rc != AT_OK ? rc : AT_CANCELLED, err);
        (void)unused;
    }
}

static void get(struct agent_instance *i)
{
    const struct at_model_ref *m = wanted(i);
    const char *known = m == i->typed->spec.model ? i->model_digest : NULL;
    const char *digest = m->digest != NULL && m->digest[0] != '\0' ? m->digest : known;
    if (agent_is_package(m->uri)) {
        agent_package_get(i->agent->packages, i->ns, m->uri, digest, m->pull_secret, on_package, i);
    } else {
        agent_package_ask(i->agent->packages, i->ns, m->uri, on_allowed, i);
    }
}

void agent_model_get(struct agent_instance *i)
{
    more_forget(i);
    get(i);
}

void agent_model_forget(struct agent_instance *i)
{
    agent_fetch_forget(i->agent->fetches, i);
    agent_package_forget(i->agent->packages, i);
}

void agent_model_done(struct agent_instance *i)
{
    struct at_agent *a = i->agent;
    agent_model_forget(i);
    agent_package_forget(a->packages, &i->prefetch_key);
    agent_cache_unpin(a->cache, i->model_path);
    more_forget(i);
    json_decref(i->prefetched);
    at_free(i->model_path);
    at_free(i->model_digest);
    at_free(i->model_signer);
    at_free(i->prefetch_key);
}

/* --- the next one --- */

static struct agent_instance *of_key(void *ctx)
{
    return (struct agent_instance *)((char *)ctx - offsetof(struct agent_instance, prefetch_key));
}

static void on_prefetched(void *ctx, enum at_rc rc, const struct agent_package *package,
                          const struct at_err *err)
{
    struct agent_instance *i = of_key(ctx);
    const struct at_instance_prefetch *p = i->typed->status.prefetch;
    if (rc == AT_OK) {
        /* Nobody uses it yet; it is the youngest, and so the last that would go. */
        agent_cache_unpin(i->agent->cache, package->path);
    }
    if (p == NULL) {
        return;
    }
    json_decref(i->prefetched);
    i->prefetched = json_pack("{s:s}", "uri", p->uri);
    if (rc == AT_OK) {
        json_object_set_new(i->prefetched, "digest", json_string(package->digest));
    } else {
        at_log(AT_LOG_WARN, "models.prefetch", "%s", err->msg);
        json_object_set_new(i->prefetched, "message", json_string(err->msg));
    }
    json_decref(
        i->sent); /* the controller took our last answer off: it is told anew, even if equal */
    i->sent = NULL;
    agent_report(i);
}

void agent_model_prefetch(struct agent_instance *i)
{
    const struct at_instance_prefetch *p = i->typed->status.prefetch;
    if (p == NULL || i->agent->stopping || !i->wanted) {
        return;
    }
    /* since changes when it is to be tried once more. */
    char *key = at_asprintf("%s@%s %lld", p->uri, p->digest != NULL ? p->digest : "",
                            (long long)p->since_wall_ns);
    if (at_streq(key, i->prefetch_key)) {
        at_free(key);
        return;
    }
    agent_package_forget(i->agent->packages, &i->prefetch_key);
    at_free(i->prefetch_key);
    i->prefetch_key = key;
    json_decref(i->prefetched); /* that was an earlier question */
    i->prefetched = NULL;
    agent_package_get(i->agent->packages, i->ns, p->uri, p->digest, p->pull_secret, on_prefetched,
                      &i->prefetch_key);
}

/* --- what is kept and told of it --- */

void agent_model_load(struct agent_instance *i, const json_t *record)
{
    i->model_path = at_strdup(at_json_str_at(record, "modelPath", NULL));
    i->model_digest = at_strdup(at_json_str_at(record, "modelDigest", NULL));
    i->model_signer = at_strdup(at_json_str_at(record, "modelSigner", NULL));
    agent_cache_pin(i->agent->cache, i->model_path);
    const json_t *more = json_object_get(record, "morePaths");
    for (size_t k = 0; k < json_array_size(more); k++) {
        const char *path = json_string_value(json_array_get(more, k));
        if (path != NULL) {
            more_add(i, path);
            agent_cache_pin(i->agent->cache, path);
        }
    }
}

void agent_model_record(const struct agent_instance *i, json_t *record)
{
    const struct {
        const char *key, *text;
    } texts[] = {{"modelPath", i->model_path},
                 {"modelDigest", i->model_digest},
                 {"modelSigner", i->model_signer}};
    for (size_t k = 0; k < AT_ARRAY_LEN(texts); k++) {
        if (texts[k].text != NULL) {
            json_object_set_new(record, texts[k].key, json_string(texts[k].text));
        }
    }
    json_t *more = i->n_more_paths > 0 ? json_array() : NULL;
    for (size_t k = 0; k < i->n_more_paths; k++) {
        json_array_append_new(more, json_string(i->more_paths[k]));
    }
    if (more != NULL) {
        json_object_set_new(record, "morePaths", more);
    }
}

void agent_model_status(const struct agent_instance *i, json_t *status)
{
    const struct at_model_ref *m = i->typed != NULL ? i->typed->spec.model : NULL;
    json_t *model = json_null();
    if (m != NULL && i->model_digest != NULL && i->model_digest[0] != '\0') {
        model = json_pack("{s:s,s:s}", "uri", m->uri, "digest", i->model_digest);
        if (i->model_signer != NULL && i->model_signer[0] != '\0') {
            json_object_set_new(model, "signedBy", json_string(i->model_signer));
        }
    }
    json_object_set_new(status, "model", model);
    json_object_set_new(status, "prefetched",
                        i->prefetched != NULL ? json_incref(i->prefetched) : json_null());
}
