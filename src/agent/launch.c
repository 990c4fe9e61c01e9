#include "agent/agent_priv.h"
#include "agent/gpu.h"

#include "core/digest.h"
#include "core/log.h"
#include "sys/file.h"
#include "sys/socket.h"

#include <stdio.h>
#include <string.h>

/* Zero-terminated list of texts that grows in an arena; too many are an error at the end. */
struct words {
    struct at_arena *arena;
    const char **items;
    size_t n;
    bool full;
};

static void words_add(struct words *w, const char *text)
{
    if (w->n + 1 >= AGENT_ARGS_MAX || text == NULL) {
        w->full = true;
        return;
    }
    w->items[w->n++] = text;
}

const struct agent_driver *agent_driver_for(struct at_agent *a, const struct at_workload *w)
{
    const char *name = w->driver;
    if (name == NULL || name[0] == '\0') {
        name = w->image != NULL && w->image[0] != '\0' ? "oci" : "process";
    }
    for (size_t i = 0; i < a->n_drivers; i++) {
        if (at_streq(a->drivers[i].ops->name, name)) {
            return &a->drivers[i];
        }
    }
    return NULL;
}

/* --- secrets --- */

static void fail(struct agent_instance *i, const char *reason, enum at_rc rc, const char *what)
{
    struct at_err err = {0};
    rc = at_err_set(&err, rc, "%s", what);
    (void)rc;
    agent_instance_failed_start(i, reason, &err);
}

static void on_secret(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)status;
    struct agent_instance *i = ctx;
    i->secret_call = 0;
    if (i->phase != PHASE_SECRETS) {
        return;
    }
    const struct at_key_ref *ref = i->typed->spec.env.items[i->secret_index].secret_key_ref;
    if (rc != AT_OK) {
        agent_instance_failed_start(i, "SecretUnavailable", err);
        return;
    }
    const char *coded = json_string_value(json_object_get(json_object_get(body, "data"), ref->key));
    AT_CLEANUP(at_cleanup_buf) struct at_buf value = {0};
    char what[256];
    snprintf(what, sizeof what, "Secret %s has no usable key %s", ref->name, ref->key);
    if (coded == NULL || at_base64_decode(coded, strlen(coded), &value) != AT_OK) {
        fail(i, "SecretUnavailable", AT_NOT_FOUND, what);
        return;
    }
    snprintf(what, sizeof what, "%s/%s", ref->name, ref->key);
    json_object_set_new(i->secrets, what,
                        json_stringn(value.data != NULL ? value.data : "", value.len));
    i->secret_index++;
    agent_secrets_next(i);
}

void agent_secrets_next(struct agent_instance *i)
{
    const struct at_workload *w = &i->typed->spec;
    while (i->secret_index < w->env.n && w->env.items[i->secret_index].secret_key_ref == NULL) {
        i->secret_index++;
    }
    if (i->secret_index == w->env.n) {
        if (agent_instance_set_starting(i)) {
            agent_launch_start(i);
        }
        return;
    }
    const char *name = w->env.items[i->secret_index].secret_key_ref->name;
    i->secret_call = at_client_get(i->agent->client, &AT_KIND_SECRET, i->ns, name, on_secret, i);
}

void agent_launch(struct agent_instance *i)
{
    json_decref(i->secrets);
    i->secrets = json_object();
    i->secret_index = 0;
    agent_secrets_next(i);
}

/* --- the port --- */

static bool port_in_use(struct at_agent *a, int port)
{
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        if (((struct agent_instance *)value)->port == port) {
            return true;
        }
    }
    return false;
}

/* A free port: bound once to learn its number, and kept from our other instances. */
static enum at_rc port_choose(struct agent_instance *i, struct at_err *err)
{
    int64_t wanted = i->typed->spec.port;
    struct at_agent *a = i->agent;
    i->port = 0;
    at_free(i->endpoint);
    at_free(i->local_endpoint);
    i->endpoint = i->local_endpoint = NULL;
    if (wanted < 0) {
        return AT_OK;
    }
    for (int tries = 0; wanted == 0 && tries < 50; tries++) {
        char addr[AT_ADDR_TEXT_BYTES_MAX];
        char bound[AT_ADDR_TEXT_BYTES_MAX];
        int fd = -1;
        snprintf(addr, sizeof addr, AGENT_INSTANCE_HOST ":0");
        enum at_rc rc = at_sock_listen(addr, 1, false, &fd, bound, err);
        if (rc != AT_OK) {
            return rc;
        }
        at_sock_close(fd);
        uint64_t port = 0;
        const char *colon = strrchr(bound, ':');
        if (colon != NULL && at_str_to_u64(at_str_of(colon + 1), &port) == AT_OK &&
            !port_in_use(a, (int)port)) {
            wanted = (int64_t)port;
        }
    }
    if (wanted == 0) {
        return at_err_set(err, AT_EXHAUSTED, "no free port on " AGENT_INSTANCE_HOST);
    }
    i->port = (int)wanted;
    i->endpoint = at_asprintf(AGENT_INSTANCE_HOST ":%d", i->port);
    const char *runner = i->typed->spec.runner;
    size_t len = strlen(i->dir) + sizeof AT_LOCAL_SOCKET_NAME;
    if (runner != NULL && runner[0] != '\0' && len < AGENT_SOCKET_PATH_BYTES_MAX) {
        i->local_endpoint = at_asprintf("unix:%s/%s", i->dir, AT_LOCAL_SOCKET_NAME);
    }
    return AT_OK;
}

/* --- arguments and environment --- */

/* $(PORT) becomes the port; everything else stays. */
static const char *expand(struct at_arena *arena, const char *text, int port)
{
    const char *at = strstr(text, "$(PORT)");
    if (at == NULL) {
        return at_arena_strdup(arena, text);
    }
    const char *head = at_arena_printf(arena, "%.*s%d", (int)(at - text), text, port);
    const char *tail = expand(arena, at + strlen("$(PORT)"), port);
    return head != NULL && tail != NULL ? at_arena_printf(arena, "%s%s", head, tail) : NULL;
}

static void runner_words(const struct agent_instance *i, struct words *w)
{
    const struct at_model_ref *model = i->typed->spec.model;
    const char *fallback = at_model_map_get(&i->typed->meta.labels, "atoll.dev/deployment");
    const char *name = model->name != NULL && model->name[0] != '\0' ? model->name : fallback;
    words_add(w, i->agent->self_exe);
    words_add(w, "runner");
    words_add(w, i->typed->spec.runner);
    words_add(w, "--model");
    words_add(w, i->model_path);
    words_add(w, "--name");
    words_add(w, name != NULL ? name : i->name);
    words_add(w, "--version");
    words_add(w, model->version != NULL ? model->version : "1");
    words_add(w, "--listen");
    words_add(w, i->endpoint);
    if (i->local_endpoint != NULL) {
        words_add(w, "--local-listen");
        words_add(w, i->local_endpoint);
    }
}

/* Models beside the first, as the runner's option. */
static void runner_models(const struct agent_instance *i, struct words *w)
{
    const struct at_workload *spec = &i->typed->spec;
    AT_CLEANUP(at_cleanup_json) json_t *list = json_array();
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    for (size_t k = 0; k < spec->models.n && k < i->n_more_paths; k++) {
        const struct at_model_ref *m = &spec->models.items[k];
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", m->name, "version",
                                              m->version != NULL ? m->version : "1", "path",
                                              i->more_paths[k]));
    }
    if (json_array_size(list) == 0) {
        return;
    }
    if (at_json_dump(list, &text) != AT_OK) {
        w->full = true;
        return;
    }
    words_add(w, "--models");
    words_add(w, at_arena_strndup(w->arena, text.data, text.len));
}

/* What the Deployment says about batching, as the runner's option. */
static void runner_batching(const struct agent_instance *i, struct words *w)
{
    const struct at_batching *batching = i->typed->spec.batching;
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (batching == NULL) {
        return;
    }
    if (at_model_encode_struct(&AT_BATCHING_FIELDS, batching, &json, NULL) != AT_OK ||
        at_json_dump(json, &text) != AT_OK) {
        w->full = true;
        return;
    }
    words_add(w, "--batching");
    words_add(w, at_arena_strndup(w->arena, text.data, text.len));
}

static void argv_make(const struct agent_instance *i, struct words *w)
{
    const struct at_workload *spec = &i->typed->spec;
    if (spec->runner != NULL && spec->runner[0] != '\0') {
        runner_words(i, w);
        runner_batching(i, w);
        runner_models(i, w);
    }
    if (spec->command.n == 0 && spec->args.n != 0 && spec->image != NULL) {
        words_add(w, ""); /* the image's entrypoint, with our arguments */
    }
    for (size_t n = 0; n < spec->command.n; n++) {
        words_add(w, expand(w->arena, spec->command.items[n], i->port));
    }
    for (size_t n = 0; n < spec->args.n; n++) {
        words_add(w, expand(w->arena, spec->args.items[n], i->port));
    }
}

/* The GPUs that the scheduler gave it: what CUDA and the container toolkits look at, and how much
 * of each. Identities when all are known, else positions. */
static void env_gpus(const struct agent_instance *i, struct words *w)
{
    const struct at_instance_status *s = &i->typed->status;
    const char *list = "";
    bool by_id = true;
    for (size_t k = 0; k < s->gpus.n; k++) {
        const char *id = s->gpus.items[k].id != NULL ? s->gpus.items[k].id : "";
        by_id = by_id && (strncmp(id, "GPU-", 4) == 0 || strncmp(id, "MIG-", 4) == 0);
    }
    for (size_t k = 0; k < s->gpus.n && list != NULL; k++) {
        const struct at_instance_gpu *g = &s->gpus.items[k];
        const char *sep = k > 0 ? "," : "";
        list = by_id ? at_arena_printf(w->arena, "%s%s%s", list, sep, g->id)
                     : at_arena_printf(w->arena, "%s%s%lld", list, sep, (long long)g->index);
    }
    if (s->gpus.n == 0 || list == NULL) {
        return;
    }
    words_add(w, at_arena_printf(w->arena, "CUDA_VISIBLE_DEVICES=%s", list));
    words_add(w, at_arena_printf(w->arena, "NVIDIA_VISIBLE_DEVICES=%s", list));
    if (at_streq(agent_gpu_vendor(i->agent, s->gpus.items[0].id), "AMD")) {
        words_add(w, at_arena_printf(w->arena, "ROCR_VISIBLE_DEVICES=%s", list));
    }
    words_add(w,
              at_arena_printf(w->arena, "ATOLL_GPU_MILLI=%lld", (long long)s->gpus.items[0].milli));
    int64_t memory = agent_share_memory(i->agent, &s->gpus.items[0]);
    if (memory > 0) {
        words_add(w, at_arena_printf(w->arena, "ATOLL_GPU_MEMORY_BYTES=%lld", (long long)memory));
    }
    const char *pipe = agent_mps_pipe(i);
    if (pipe != NULL) {
        words_add(w, at_arena_printf(w->arena, "CUDA_MPS_PIPE_DIRECTORY=%s", pipe));
        words_add(w, at_arena_printf(w->arena, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=%lld",
                                     (long long)agent_mps_percent(s->gpus.items[0].milli)));
        words_add(w, at_arena_printf(w->arena, "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=%lldM",
                                     (long long)((memory + (1 << 20) - 1) >> 20)));
    }
    /* Only where /etc/ld.so.preload cannot be shown does this hold the program. */
    if (agent_share_library(i) != NULL) {
        words_add(w, at_arena_printf(w->arena, "LD_PRELOAD=%s", agent_share_library(i)));
    }
}

/* The folder of a package, else the file itself: what must be readable. */
static const char *dir_of(const char *path, struct at_arena *arena)
{
    const char *in = path != NULL ? strstr(path, "/models/packages/") : NULL;
    if (in == NULL) {
        return path;
    }
    size_t head = (size_t)(in - path) + strlen("/models/packages/");
    return at_arena_strndup(arena, path, head + strcspn(path + head, "/"));
}

static const char *model_dir(const struct agent_instance *i, struct at_arena *arena)
{
    bool package = i->model_digest != NULL && i->model_digest[0] != '\0';
    return package ? dir_of(i->model_path, arena) : i->model_path;
}

static void env_make(const struct agent_instance *i, struct words *w)
{
    const struct at_agent *a = i->agent;
    const struct at_workload *spec = &i->typed->spec;
    words_add(w, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    words_add(w, at_arena_printf(w->arena, "HOME=%s", i->dir));
    words_add(w, at_arena_printf(w->arena, "ATOLL_INSTANCE=%s", i->name));
    words_add(w, at_arena_printf(w->arena, "ATOLL_NAMESPACE=%s", i->ns));
    words_add(w, at_arena_printf(w->arena, "ATOLL_NODE=%s", a->name));
    words_add(w, at_arena_printf(w->arena, "ATOLL_SITE=%s", a->site));
    if (i->port > 0) {
        words_add(w, at_arena_printf(w->arena, "PORT=%d", i->port));
    }
    env_gpus(i, w);
    if (i->model_path != NULL) {
        words_add(w, at_arena_printf(w->arena, "ATOLL_MODEL=%s", i->model_path));
        words_add(w, at_arena_printf(w->arena, "ATOLL_MODEL_DIR=%s", model_dir(i, w->arena)));
    }
    static const char *const LIBRARIES[] = {"ATOLL_ONNXRUNTIME", "ATOLL_LLAMA"};
    for (size_t n = 0; n < AT_ARRAY_LEN(LIBRARIES); n++) {
        const char *library = at_sys_getenv(LIBRARIES[n]);
        if (library != NULL && spec->runner != NULL && spec->runner[0] != '\0') {
            words_add(w, at_arena_printf(w->arena, "%s=%s", LIBRARIES[n], library));
        }
    }
#if defined(__SANITIZE_ADDRESS__)
    /* The leak check traces its own process, which instances may not do. */
    words_add(w, "ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0");
#endif
    for (size_t n = 0; n < spec->env.n; n++) {
        const struct at_env_var *var = &spec->env.items[n];
        const char *value = var->value != NULL ? expand(w->arena, var->value, i->port) : "";
        if (var->secret_key_ref != NULL) {
            char key[256];
            snprintf(key, sizeof key, "%s/%s", var->secret_key_ref->name, var->secret_key_ref->key);
            value = json_string_value(json_object_get(i->secrets, key));
        }
        words_add(w, at_arena_printf(w->arena, "%s=%s", var->name, value != NULL ? value : ""));
    }
}

/* --- the start --- */

static void on_started(void *ctx, enum at_rc rc, struct at_runtime_task *task, int pid,
                       const char *isolation, const struct at_err *err)
{
    struct agent_instance *i = ctx;
    if (rc != AT_OK) {
        agent_instance_failed_start(i, "StartFailed", err);
        return;
    }
    agent_instance_started(i, task, pid, isolation);
}

static struct at_cgroup_limits limits_of(const struct at_workload *w)
{
    struct at_cgroup_limits limits = {.pids = AGENT_PIDS_MAX};
    if (w->resources != NULL) {
        limits.cpu_milli = w->resources->cpu_milli;
        limits.memory_bytes = w->resources->memory_bytes;
    }
    return limits;
}

static enum at_rc driver_check(const struct agent_instance *i, struct at_err *err)
{
    if (i->driver == NULL) {
        return at_err_set(err, AT_UNSUPPORTED, "this agent has no driver %s",
                          i->typed->spec.driver);
    }
    if (i->driver->rt == NULL) {
        return at_err_set(err, AT_UNSUPPORTED, "driver %s is not usable here: %s",
                          i->driver->ops->name, i->driver->message);
    }
    return AT_OK;
}

void agent_launch_start(struct agent_instance *i)
{
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new((size_t)8 << 20);
    struct words argv = {.arena = arena,
                         .items = at_arena_alloc(arena, AGENT_ARGS_MAX * sizeof(char *))};
    struct words envp = {.arena = arena,
                         .items = at_arena_alloc(arena, AGENT_ARGS_MAX * sizeof(char *))};
    const char *reason = "StartFailed";
    enum at_rc rc = driver_check(i, &err);
    if (rc == AT_OK) {
        rc = port_choose(i, &err);
    }
    if (rc == AT_OK) {
        rc = at_dir_make(i->dir, 0711, &err);
    }
    if (rc == AT_OK) {
        rc = agent_record_write(i, &err);
    }
    if (rc == AT_OK) {
        rc = agent_share_apply(i, &err);
    }
    if (rc == AT_OK) {
        rc = agent_mps_admit(i, &err);
        if (rc == AT_AGAIN) {
            return; /* and here again */
        }
        reason = rc != AT_OK ? "GPUSharingUnavailable" : reason;
    }
    if (rc == AT_OK) {
        argv_make(i, &argv);
        env_make(i, &envp);
        if (argv.full || envp.full) {
            rc = at_err_set(&err, AT_TOO_LARGE, "arguments or environment are too large");
        }
    }
    json_decref(i->secrets); /* not kept longer than needed */
    i->secrets = NULL;
    if (rc != AT_OK) {
        agent_instance_failed_start(i, reason, &err);
        return;
    }
    const char **readable = at_arena_alloc(arena, (i->n_more_paths + 2) * sizeof *readable);
    if (readable == NULL) {
        at_err_set(&err, AT_TOO_LARGE, "it has too many models");
        agent_instance_failed_start(i, "StartFailed", &err);
        return;
    }
    readable[0] = model_dir(i, arena);
    for (size_t k = 0; k < i->n_more_paths; k++) {
        readable[k + 1] = dir_of(i->more_paths[k], arena);
    }
    readable[i->n_more_paths + 1] = NULL;
    const struct at_workload *w = &i->typed->spec;
    struct agent_gpu_view view;
    agent_gpu_view_make(i, &view);
    struct at_runtime_spec spec = {.id = i->uid,
                                   .node = i->agent->name,
                                   .dir = i->dir,
                                   .log_path = i->log_path,
                                   .image = w->image,
                                   .argv = argv.items,
                                   .envp = envp.items,
                                   .working_dir = w->working_dir,
                                   .uid = w->user > 0 ? w->user : -1,
                                   .user_of = agent_mps_pipe(i),
                                   .own_network = agent_network_own(i),
                                   .limits = limits_of(w),
                                   .binds = view.binds,
                                   .readable_paths = readable};
    i->driver->ops->start(i->driver->rt, &spec, on_started, agent_instance_exited, i);
    agent_gpu_view_done(&view);
}
