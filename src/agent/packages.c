/* Models as packages. One job per question: the rules about signatures are asked of the server, the
 * Secret too, then a thread of a pool of our own fetches, verifies and unpacks. Equal blobs that
 * several jobs want are fetched once: the store's parts are locked. */
#include "agent/agent_priv.h"

#include "core/digest.h"
#include "core/log.h"
#include "package/model.h"
#include "package/sign.h"
#include "package/transfer.h"
#include "sys/file.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct rule {
    char *name;
    json_t *keys;
};

struct job {
    struct agent_packages *owner;
    struct job *next;
    agent_package_fn *fn; /* NULL: nobody waits any more */
    void *ctx;
    char *ns, *uri, *digest, *secret;
    bool only_ask;
    at_client_call_id call;
    struct rule *rules; /* that hold for it */
    size_t n_rules;
    struct at_pkg_credentials credentials;
    atomic_bool cancel;
    /* what the thread finds out */
    struct at_pkg_ref ref;
    enum at_rc rc;
    struct at_err err;
    char found[AT_PKG_DIGEST_BYTES], signer[AT_PKG_KEY_ID_BYTES];
    char *folder, *path;
};

struct agent_packages {
    struct at_agent *agent;
    struct at_pool *pool;
    struct at_pkg_store *store;
    struct at_pkg_curl *curl; /* NULL until it is needed */
    pthread_mutex_t lock;     /* of curl */
    struct job *jobs;
    json_t *policies; /* as they last were, for when the server is away; NULL: never asked */
};

bool agent_is_package(const char *uri)
{
    return strncmp(uri, "oci://", 6) == 0 || strncmp(uri, "oci-layout:", 11) == 0 ||
           strncmp(uri, "oci-archive:", 12) == 0;
}

/* --- the end of a job --- */

static void job_free(struct job *j)
{
    for (size_t i = 0; i < j->n_rules; i++) {
        at_free(j->rules[i].name);
        json_decref(j->rules[i].keys);
    }
    at_pkg_credentials_done(&j->credentials);
    char *texts[] = {j->ns, j->uri, j->digest, j->secret, j->folder, j->path};
    for (size_t i = 0; i < AT_ARRAY_LEN(texts); i++) {
        at_free(texts[i]);
    }
    at_free(j->rules);
    at_free(j);
}

static void job_done(void *ctx)
{
    struct job *j = ctx;
    struct agent_packages *p = j->owner;
    if (p == NULL) { /* the agent has gone */
        job_free(j);
        return;
    }
    for (struct job **at = &p->jobs; *at != NULL; at = &(*at)->next) {
        if (*at == j) {
            *at = j->next;
            break;
        }
    }
    if (j->rc == AT_OK && j->path != NULL) {
        agent_models_tell(p->agent);
    }
    const struct agent_package package = {j->path != NULL ? j->path : "", j->found, j->signer};
    if (j->fn != NULL) {
        j->fn(j->ctx, j->rc, &package, &j->err); /* the pin is theirs */
    } else if (j->rc == AT_OK) {
        agent_cache_unpin(p->agent->cache, j->path);
    }
    job_free(j);
}

static void job_fail(struct job *j, enum at_rc rc, const char *what)
{
    j->rc = at_err_set(&j->err, rc, "%s", what);
    job_done(j);
}

/* --- on a thread --- */

static enum at_rc curl_open(struct agent_packages *p, struct at_err *err)
{
    pthread_mutex_lock(&p->lock);
    enum at_rc rc = p->curl != NULL ? AT_OK : at_pkg_curl_open(&p->curl, err);
    pthread_mutex_unlock(&p->lock);
    return rc;
}

static enum at_rc on_total(void *ctx, int64_t bytes, int64_t lacking, struct at_err *err)
{
    struct job *j = ctx;
    (void)bytes;
    enum at_rc rc = agent_cache_room(j->owner->agent->cache, lacking, err);
    return rc != AT_OK ? at_err_wrap(err, rc, "model %s", j->uri) : AT_OK;
}

/* Every rule that holds wants a signature by one of its keys. */
static enum at_rc verify(struct job *j, const char *signatures, struct at_err *err)
{
    enum at_rc rc = AT_OK;
    for (size_t r = 0; r < j->n_rules && rc == AT_OK; r++) {
        struct at_pkg_key *keys[32] = {NULL};
        size_t n = 0, which = 0, i;
        const json_t *pem;
        json_array_foreach(j->rules[r].keys, i, pem)
        {
            if (n < AT_ARRAY_LEN(keys) && json_is_string(pem) &&
                at_pkg_key_public(json_string_value(pem), &keys[n], NULL) == AT_OK) {
                n++; /* a key that cannot be read trusts nobody */
            }
        }
        rc = at_pkg_verify(j->owner->store, signatures, j->found,
                           (const struct at_pkg_key *const *)keys, n, &which, err);
        if (rc == AT_OK) {
            at_pkg_key_id(keys[which], j->signer);
        } else {
            rc = at_err_wrap(err, rc, "signature rule %s", j->rules[r].name);
        }
        for (i = 0; i < n; i++) {
            at_pkg_key_free(keys[i]);
        }
    }
    return rc;
}

static enum at_rc unsigned_error(const struct job *j, struct at_err *err)
{
    return at_err_set(
        err, AT_FORBIDDEN,
        "model %s has no signature, and the signature rule %s asks for one (atoll model "
        "sign)",
        j->uri, j->rules[0].name);
}

/* Which signatures a package had when they were last seen: for when the registry is away. */
static char *note_path(const struct job *j)
{
    return at_asprintf("%s/models/signed/%s", j->owner->agent->state_dir,
                       j->found + strlen("sha256:"));
}

static enum at_rc signatures_by_note(struct job *j, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = note_path(j);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_file_read(path, 200, &text, NULL) != AT_OK ||
        !at_pkg_digest_is(text.data != NULL ? text.data : "", text.len)) {
        return AT_NOT_FOUND;
    }
    return verify(j, text.data, err);
}

static enum at_rc registry_open(struct job *j, struct at_pkg_registry **ret, struct at_err *err)
{
    struct at_agent *a = j->owner->agent;
    bool plain = false;
    enum at_rc rc = curl_open(j->owner, err);
    for (size_t i = 0; a->insecure_registries != NULL && a->insecure_registries[i] != NULL; i++) {
        plain = plain || strcmp(a->insecure_registries[i], j->ref.host) == 0;
    }
    struct at_pkg_registry_options options = {
        .host = j->ref.host,
        .repository = j->ref.path,
        .credentials = &j->credentials,
        .plain_http = plain,
        .http = {.ca_file = a->registry_ca, .cancel = &j->cancel}};
    return rc != AT_OK ? rc : at_pkg_registry_open(j->owner->curl, &options, ret, err);
}

static enum at_rc signatures_by_registry(struct job *j, struct at_pkg_registry *registry,
                                         struct at_err *err)
{
    char tag[96], digest[AT_PKG_DIGEST_BYTES];
    struct at_pkg_transfer transfer = {.cancel = &j->cancel};
    at_pkg_signature_tag(j->found, tag, sizeof tag);
    enum at_rc rc = at_pkg_pull(registry, tag, j->owner->store, &transfer, digest, err);
    if (rc == AT_NOT_FOUND) {
        return unsigned_error(j, err);
    }
    rc = rc != AT_OK ? rc : verify(j, digest, err);
    if (rc == AT_OK) {
        AT_CLEANUP(at_cleanup_free) char *path = note_path(j);
        rc = at_file_write_atomic(path, digest, strlen(digest), 0600, err);
    }
    return rc;
}

static enum at_rc unpack(struct job *j, struct at_err *err)
{
    j->folder = at_asprintf("%s/models/packages/%s", j->owner->agent->state_dir,
                            j->found + strlen("sha256:"));
    agent_cache_pin(j->owner->agent->cache, j->folder);
    char *file = NULL;
    enum at_rc rc = at_file_exists(j->folder)
                        ? AT_OK
                        : at_pkg_unpack(j->owner->store, j->found, j->folder, true, err);
    rc = rc == AT_EXISTS || (rc != AT_OK && at_file_exists(j->folder)) ? AT_OK : rc;
    rc = rc != AT_OK ? rc : at_pkg_model_file(j->folder, &file, err);
    if (rc == AT_OK) {
        j->path = at_asprintf("%s/%s", j->folder, file);
        if (!at_file_exists(j->path)) {
            rc = at_err_set(err, AT_CORRUPT, "the package does not have its model file %s", file);
        }
    }
    at_free(file);
    if (rc != AT_OK) {
        agent_cache_unpin(j->owner->agent->cache, j->folder);
    }
    return rc;
}

static enum at_rc from_registry(struct job *j, struct at_err *err)
{
    struct at_pkg_registry *registry = NULL;
    struct at_pkg_transfer transfer = {.cancel = &j->cancel, .ctx = j, .on_total = on_total};
    const char *wanted = j->digest[0] != '\0' ? j->digest : at_pkg_ref_wanted(&j->ref);
    enum at_rc rc = registry_open(j, &registry, err);
    if (rc == AT_OK && j->n_rules > 0) {
        /* What may not be used is not fetched either. */
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
        rc = at_pkg_resolve(registry, wanted, &text, j->found, err);
        rc = rc != AT_OK ? rc : signatures_by_registry(j, registry, err);
        wanted = j->found;
    }
    rc =
        rc != AT_OK ? rc : at_pkg_pull(registry, wanted, j->owner->store, &transfer, j->found, err);
    at_pkg_registry_free(registry);
    return rc;
}

static enum at_rc signatures_by_layout(struct job *j, const struct at_pkg_store *from,
                                       struct at_err *err)
{
    char tag[96], digest[AT_PKG_DIGEST_BYTES];
    at_pkg_signature_tag(j->found, tag, sizeof tag);
    if (from == NULL || at_pkg_store_find(from, tag, digest, NULL) != AT_OK) {
        return unsigned_error(j, err);
    }
    enum at_rc rc = at_pkg_copy(from, j->owner->store, digest, &j->cancel, err);
    return rc != AT_OK ? rc : verify(j, digest, err);
}

static enum at_rc from_layout(struct job *j, struct at_err *err)
{
    struct at_pkg_store *from = NULL;
    enum at_rc rc = at_pkg_store_open(j->ref.path, false, &from, err);
    const char *wanted = j->digest[0] != '\0'       ? j->digest
                         : j->ref.digest[0] != '\0' ? j->ref.digest
                                                    : j->ref.tag;
    rc = rc != AT_OK ? rc : at_pkg_store_find(from, wanted, j->found, err);
    rc = rc != AT_OK || j->n_rules == 0 ? rc : signatures_by_layout(j, from, err);
    rc = rc != AT_OK ? rc : at_pkg_copy(from, j->owner->store, j->found, &j->cancel, err);
    at_pkg_store_free(from);
    return rc;
}

/* The one package of that name in a tar. */
static enum at_rc from_archive(struct job *j, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    struct at_pkg_index index = {0};
    const struct at_pkg_descriptor *found = NULL;
    const char *pinned = j->digest[0] != '\0' ? j->digest : j->ref.digest;
    size_t n = 0;
    if (j->n_rules > 0) {
        return unsigned_error(j, err); /* archives carry none */
    }
    enum at_rc rc = at_pkg_archive_load(j->ref.path, j->owner->store, &j->cancel, &text, err);
    rc = rc != AT_OK ? rc : at_pkg_index_parse(text.data, text.len, arena, &index, err);
    for (size_t i = 0; i < index.n_manifests; i++) {
        const struct at_pkg_descriptor *d = &index.manifests[i];
        bool is = pinned[0] != '\0'       ? strcmp(d->digest, pinned) == 0
                  : j->ref.tag[0] != '\0' ? at_streq(at_pkg_note(d, AT_PKG_NOTE_NAME), j->ref.tag)
                                          : true;
        found = is ? d : found;
        n += is;
    }
    if (rc == AT_OK && n != 1) {
        rc = at_err_set(err, AT_NOT_FOUND, "%s holds %zu packages of that name", j->ref.path, n);
    }
    if (rc == AT_OK) {
        memcpy(j->found, found->digest, AT_PKG_DIGEST_BYTES);
        rc = at_pkg_copy(j->owner->store, j->owner->store, j->found, &j->cancel, err);
    }
    at_pkg_index_done(&index);
    return rc;
}

/* Unpacked already, by a digest that is known: nobody needs to be asked. */
static bool at_hand(struct job *j)
{
    const char *pinned = j->digest[0] != '\0' ? j->digest : j->ref.digest;
    if (pinned[0] == '\0') {
        return false;
    }
    snprintf(j->found, sizeof j->found, "%s", pinned);
    AT_CLEANUP(at_cleanup_free)
    char *folder = at_asprintf("%s/models/packages/%s", j->owner->agent->state_dir,
                               pinned + strlen("sha256:"));
    return at_file_exists(folder) && (j->n_rules == 0 || signatures_by_note(j, NULL) == AT_OK);
}

static void work(void *ctx)
{
    struct job *j = ctx;
    enum at_rc rc = at_pkg_ref_parse(j->uri, &j->ref, &j->err);
    agent_cache_fetch_begin(j->owner->agent->cache);
    if (rc == AT_OK && atomic_load(&j->cancel)) {
        rc = at_err_set(&j->err, AT_CANCELLED, "stopped");
    } else if (rc == AT_OK && !at_hand(j)) {
        rc = j->ref.place == AT_PKG_REGISTRY ? from_registry(j, &j->err)
             : j->ref.place == AT_PKG_LAYOUT ? from_layout(j, &j->err)
                                             : from_archive(j, &j->err);
        rc = rc != AT_OK ? at_err_wrap(&j->err, rc, "model %.200s", j->uri) : rc;
    }
    if (rc == AT_OK) {
        rc = unpack(j, &j->err);
        rc = rc != AT_OK ? at_err_wrap(&j->err, rc, "model %.200s", j->uri) : rc;
    }
    agent_cache_fetch_end(j->owner->agent->cache);
    j->rc = rc;
}

static void submit(struct job *j)
{
    struct agent_packages *p = j->owner;
    if (p->store == NULL) {
        job_fail(j, AT_IO, "the model cache of this node cannot be written");
    } else if (at_pool_submit(p->pool, p->agent->loop, work, job_done, j) != AT_OK) {
        job_fail(j, AT_EXHAUSTED, "too many models are being fetched on this node");
    }
}

/* --- what the server says --- */

static bool word_in(const json_t *list, const char *word)
{
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        if (at_streq(json_string_value(item), word)) {
            return true;
        }
    }
    return json_array_size(list) == 0;
}

static bool beginning_in(const json_t *list, const char *uri)
{
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *begin = json_string_value(item);
        if (begin != NULL && strncmp(uri, begin, strlen(begin)) == 0) {
            return true;
        }
    }
    return json_array_size(list) == 0;
}

static void rules_take(struct job *j, const json_t *policies)
{
    size_t i, k;
    const json_t *policy, *rule;
    json_array_foreach(json_object_get(policies, "items"), i, policy)
    {
        json_array_foreach(at_json_at(policy, "spec.signatures"), k, rule)
        {
            if (word_in(json_object_get(rule, "namespaces"), j->ns) &&
                beginning_in(json_object_get(rule, "models"), j->uri)) {
                j->rules = at_realloc(j->rules, (j->n_rules + 1) * sizeof *j->rules);
                j->rules[j->n_rules++] = (struct rule){at_strdup(at_json_str_at(rule, "name", "?")),
                                                       json_incref(json_object_get(rule, "keys"))};
            }
        }
    }
}

/* .dockerconfigjson as Kubernetes has it, or username and password. */
static enum at_rc secret_take(struct job *j, const json_t *data, struct at_err *err)
{
    static const char *const KEYS[] = {".dockerconfigjson", "username", "password"};
    struct at_buf values[3] = {{0}};
    enum at_rc rc = AT_OK;
    struct at_pkg_ref ref;
    for (size_t i = 0; i < AT_ARRAY_LEN(KEYS) && rc == AT_OK; i++) {
        const char *coded = json_string_value(json_object_get(data, KEYS[i]));
        rc = coded == NULL ? AT_OK : at_base64_decode(coded, strlen(coded), &values[i]);
    }
    rc = rc != AT_OK ? at_err_set(err, AT_INVALID, "Secret %s cannot be read", j->secret)
                     : at_pkg_ref_parse(j->uri, &ref, err);
    if (rc == AT_OK && values[0].len > 0) {
        rc =
            at_pkg_credentials_parse(values[0].data, values[0].len, ref.host, &j->credentials, err);
        rc = rc != AT_OK ? at_err_wrap(err, rc, "Secret %s", j->secret) : rc;
    } else if (rc == AT_OK && values[1].len > 0) {
        j->credentials.user = at_strdup(values[1].data);
        j->credentials.password = at_strdup(values[2].data != NULL ? values[2].data : "");
    } else if (rc == AT_OK) {
        rc = at_err_set(err, AT_INVALID,
                        "Secret %s has neither .dockerconfigjson nor username and password",
                        j->secret);
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(values); i++) {
        at_buf_done(&values[i]);
    }
    return rc;
}

static void on_secret(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    struct job *j = ctx;
    (void)status;
    j->call = 0;
    if (rc != AT_OK) {
        j->err = *err;
        j->rc = at_err_wrap(&j->err, rc, "Secret %s for model %s", j->secret, j->uri);
        job_done(j);
        return;
    }
    j->rc = secret_take(j, json_object_get(body, "data"), &j->err);
    if (j->rc != AT_OK) {
        job_done(j);
        return;
    }
    submit(j);
}

static void ruled(struct job *j)
{
    if (j->only_ask && j->n_rules > 0) {
        char what[400];
        snprintf(what, sizeof what,
                 "model %.200s is no package and so has no signature, and the signature rule %.60s "
                 "asks for one",
                 j->uri, j->rules[0].name);
        job_fail(j, AT_FORBIDDEN, what);
    } else if (j->only_ask) {
        job_done(j);
    } else if (j->secret[0] != '\0') {
        j->call =
            at_client_get(j->owner->agent->client, &AT_KIND_SECRET, j->ns, j->secret, on_secret, j);
    } else {
        submit(j);
    }
}

static void on_policies(void *ctx, enum at_rc rc, int status, json_t *body,
                        const struct at_err *err)
{
    struct job *j = ctx;
    struct agent_packages *p = j->owner;
    (void)status;
    j->call = 0;
    if (rc == AT_OK) {
        json_decref(p->policies);
        p->policies = json_incref(body);
    } else if (p->policies == NULL) {
        j->err = *err;
        j->rc = at_err_wrap(&j->err, rc, "whether model %s must be signed cannot be asked", j->uri);
        job_done(j);
        return;
    } /* else: what it said last */
    rules_take(j, p->policies);
    ruled(j);
}

/* --- asking --- */

static struct job *job_new(struct agent_packages *p, const char *ns, const char *uri,
                           const char *digest, const char *secret, agent_package_fn *fn, void *ctx)
{
    struct job *j = AT_NEW(struct job);
    *j = (struct job){.owner = p,
                      .next = p->jobs,
                      .fn = fn,
                      .ctx = ctx,
                      .ns = at_strdup(ns),
                      .uri = at_strdup(uri),
                      .digest = at_strdup(digest != NULL ? digest : ""),
                      .secret = at_strdup(secret != NULL ? secret : "")};
    p->jobs = j;
    char path[512];
    at_client_path(&AT_KIND_POLICY, NULL, NULL, NULL, path, sizeof path);
    j->call = at_client_request(p->agent->client, AT_HTTP_GET, path, NULL, NULL, on_policies, j);
    return j;
}

void agent_package_get(struct agent_packages *p, const char *ns, const char *uri,
                       const char *digest, const char *secret, agent_package_fn *fn, void *ctx)
{
    (void)job_new(p, ns, uri, digest, secret, fn, ctx);
}

void agent_package_ask(struct agent_packages *p, const char *ns, const char *uri,
                       agent_package_fn *fn, void *ctx)
{
    job_new(p, ns, uri, NULL, NULL, fn, ctx)->only_ask = true;
}

void agent_package_forget(struct agent_packages *p, void *ctx)
{
    struct job *next = NULL;
    for (struct job *j = p != NULL ? p->jobs : NULL; j != NULL; j = next) {
        next = j->next;
        if (j->ctx != ctx) {
            continue;
        }
        j->fn = NULL;
        atomic_store(&j->cancel, true);
        if (j->call != 0) { /* no thread has it yet */
            at_client_cancel(p->agent->client, j->call);
            j->rc = AT_CANCELLED;
            job_done(j);
        }
    }
}

struct agent_packages *agent_packages_new(struct at_agent *a)
{
    struct agent_packages *p = AT_NEW(struct agent_packages);
    AT_CLEANUP(at_cleanup_free) char *blobs = at_asprintf("%s/models/sha256", a->state_dir);
    AT_CLEANUP(at_cleanup_free) char *parts = at_asprintf("%s/models/parts", a->state_dir);
    struct at_err err = {0};
    p->agent = a;
    pthread_mutex_init(&p->lock, NULL);
    p->pool = at_pool_new(AGENT_PACKAGE_THREADS, AGENT_PACKAGES_WAITING_MAX);
    if (at_pkg_store_open_blobs(blobs, parts, &p->store, &err) != AT_OK) {
        at_log(AT_LOG_ERROR, "models.store", "%s", err.msg);
    } else {
        at_pkg_store_sweep(p->store, at_sys_wall_ns(at_sys_real()) - AGENT_PARTS_KEPT_NS);
    }
    return p;
}

void agent_packages_free(struct agent_packages *p)
{
    if (p == NULL) {
        return;
    }
    struct job *submitted = NULL;
    while (p->jobs != NULL) {
        struct job *j = p->jobs;
        p->jobs = j->next;
        j->fn = NULL;
        atomic_store(&j->cancel, true);
        if (j->call != 0) {
            at_client_cancel(p->agent->client, j->call);
            job_free(j);
        } else {
            j->next = submitted;
            submitted = j;
        }
    }
    at_pool_finish(p->pool); /* soon: all are cancelled */
    for (struct job *j = submitted; j != NULL; j = j->next) {
        j->owner = NULL; /* its end, which the loop has, frees it */
    }
    at_pkg_store_free(p->store);
    at_pkg_curl_free(p->curl);
    json_decref(p->policies);
    pthread_mutex_destroy(&p->lock);
    at_free(p);
}
