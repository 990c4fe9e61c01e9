/* Models as packages, and the cache of all models. */
#ifndef AT_AGENT_PACKAGES_H
#define AT_AGENT_PACKAGES_H

#include "core/json.h"

struct at_agent;
struct agent_cache;
struct agent_packages;

/* packages.c: models out of registries and OCI layouts, and the rules about signatures. fn once,
 * later. path: what is served, pinned in the cache for whoever asked (agent_cache_unpin ends that);
 * digest: of the manifest; signer: key id, or "". */
struct agent_package {
    const char *path, *digest, *signer;
};
typedef void agent_package_fn(void *ctx, enum at_rc rc, const struct agent_package *package,
                              const struct at_err *err);
struct agent_packages *agent_packages_new(struct at_agent *a);
void agent_packages_free(struct agent_packages *p);
bool agent_is_package(const char *uri);
/* uri, digest ("": any) and secret ("": none) are copied. */
void agent_package_get(struct agent_packages *p, const char *ns, const char *uri,
                       const char *digest, const char *secret, agent_package_fn *fn, void *ctx);
/* fn is not called for ctx any more; what only it wanted stops. */
void agent_package_forget(struct agent_packages *p, void *ctx);
/* May a model that is no package be used here? fn as above, path and digest are "". */
void agent_package_ask(struct agent_packages *p, const char *ns, const char *uri,
                       agent_package_fn *fn, void *ctx);

/* cache.c: the model cache. Any thread. */
struct agent_cache *agent_cache_new(const char *state_dir, int64_t bytes_max);
void agent_cache_free(struct agent_cache *c);
void agent_cache_pin(struct agent_cache *c, const char *path);
void agent_cache_unpin(struct agent_cache *c, const char *path);
void agent_cache_fetch_begin(struct agent_cache *c);
void agent_cache_fetch_end(struct agent_cache *c);
/* Room for so many bytes more, by taking away what nobody uses. err: AT_EXHAUSTED. */
enum at_rc agent_cache_room(struct agent_cache *c, int64_t needed,
                            struct at_err *err) AT_WARN_UNUSED;

/* model.c: what an instance has of these. */
struct agent_instance;
void agent_model_get(struct agent_instance *i);    /* ends in agent_instance_model */
void agent_model_forget(struct agent_instance *i); /* it is not wanted any more */
void agent_model_done(struct agent_instance *i);
/* What the controller asks to be fetched meanwhile for the copy that comes after it. */
void agent_model_prefetch(struct agent_instance *i);
void agent_model_load(struct agent_instance *i, const json_t *record);
void agent_model_record(const struct agent_instance *i, json_t *record);
void agent_model_status(const struct agent_instance *i, json_t *status);
/* instance.c: the model was fetched, or not. True: go on with the launch. */
bool agent_instance_model(struct agent_instance *i, enum at_rc rc, const struct at_err *err);

#endif
