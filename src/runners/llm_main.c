#include "runners/llm.h"
#include "runners/llm_priv.h"

#include "core/mem.h"
#include "core/units.h"
#include "runners/batching.h"
#include "runners/gguf.h"
#include "runners/process.h"
#include "sys/file.h"
#include "sys/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALL_MODEL_BYTES ((int64_t)100 << 20) /* gains nothing from more than one thread */
#define THREADS_DEFAULT_MAX 8
#define TEMPLATE_BYTES_MAX ((size_t)256 << 10)

static const char USAGE[] =
    "usage: atoll runner llm --model FILE [options]\n"
    "  --model FILE      the GGUF model to serve\n"
    "  --listen ADDR     host:port or unix:/path (127.0.0.1:0: a free port, told in the ready "
    "line)\n"
    "  --local-listen A  unix:/path besides, for gateways on this machine\n"
    "  --name NAME       name of the model in the protocol (the file's name without .gguf)\n"
    "  --version V       version of the model in the protocol\n"
    "  --sequences N     sequences that compute at the same time, 16 by default\n"
    "  --step-tokens N   tokens of prompts and answers in one step, 512 by default\n"
    "  --context N       tokens that all sequences together keep (the model's context, 8192 at "
    "most)\n"
    "  --threads N       threads of the engine (1 for models under 100 MiB, else as there are "
    "CPUs)\n"
    "  --gpu-layers N    layers computed on a GPU; all by default, where library and machine have "
    "one\n"
    "  --cache split|shared  cells for each sequence, --context of them, or --context for all\n"
    "                    together (split where that takes little memory)\n"
    "  --cache-type T    f16 (default), f32 or q8_0: how the cache keeps its numbers\n"
    "  --prefix-cache on|off  keep and share what prompts have in common (on)\n"
    "  --chat-template T name of a template of llama.cpp's (chatml, llama3, ...), or @FILE\n"
    "  --batching TEXT   maxSequences, maxBatchTokens, contextTokens, computeThreads and "
    "queue.maxSize\n"
    "                    as in a Deployment, under the options above\n"
    "examples:\n"
    "  atoll runner llm --model qwen.gguf --listen 127.0.0.1:8000 --sequences 32 --context 32768\n"
    "  atoll runner llm --model qwen.gguf --threads 4 --cache-type q8_0\n";

struct options {
    const char *model, *sequences, *step_tokens, *context, *threads, *gpu_layers, *cache,
        *cache_type;
    const char *prefix_cache, *chat_template, *batching;
    char *template_text;
    int n_gpu_layers;
    struct at_llm_options service;
};

static enum at_rc parse_options(int argc, char **argv, struct options *ret, struct at_err *err)
{
    const struct runner_option rows[] = {
        {"--model", &ret->model},
        {"--listen", &ret->service.listen},
        {"--local-listen", &ret->service.local_listen},
        {"--name", &ret->service.name},
        {"--version", &ret->service.version},
        {"--sequences", &ret->sequences},
        {"--step-tokens", &ret->step_tokens},
        {"--context", &ret->context},
        {"--threads", &ret->threads},
        {"--gpu-layers", &ret->gpu_layers},
        {"--cache", &ret->cache},
        {"--cache-type", &ret->cache_type},
        {"--prefix-cache", &ret->prefix_cache},
        {"--chat-template", &ret->chat_template},
        {"--batching", &ret->batching},
    };
    return runner_options(argc, argv, rows, AT_ARRAY_LEN(rows), err);
}

static enum at_rc parse_count(const char *option, const char *text, uint64_t least, uint64_t most,
                              size_t *ret, struct at_err *err)
{
    uint64_t number;
    if (text == NULL) {
        return AT_OK;
    }
    if (at_str_to_u64(at_str_of(text), &number) != AT_OK || number < least || number > most) {
        return at_err_set(err, AT_BAD_REQUEST, "%s %s: a number of %llu to %llu is needed", option,
                          text, (unsigned long long)least, (unsigned long long)most);
    }
    *ret = number;
    return AT_OK;
}

static enum at_rc parse_words(struct options *o, struct at_err *err)
{
    static const struct {
        const char *name;
        enum ggml_type type;
    } CACHES[] = {{"f16", GGML_TYPE_F16}, {"f32", GGML_TYPE_F32}, {"q8_0", GGML_TYPE_Q8_0}};
    bool found = o->cache_type == NULL;
    o->service.cache_type = GGML_TYPE_F16;
    for (size_t i = 0; i < AT_ARRAY_LEN(CACHES) && !found; i++) {
        found = strcmp(o->cache_type, CACHES[i].name) == 0;
        o->service.cache_type = CACHES[i].type;
    }
    if (!found) {
        return at_err_set(err, AT_BAD_REQUEST, "--cache-type %s: there are f16, f32, q8_0",
                          o->cache_type);
    }
    if (o->cache != NULL) {
        o->service.split = strcmp(o->cache, "split") == 0 ? AT_LLM_SPLIT_ON : AT_LLM_SPLIT_OFF;
        if (o->service.split != AT_LLM_SPLIT_ON && strcmp(o->cache, "shared") != 0) {
            return at_err_set(err, AT_BAD_REQUEST, "--cache %s: split or shared", o->cache);
        }
    }
    const char *prefix = o->prefix_cache != NULL ? o->prefix_cache : "on";
    o->service.sched.reuse = strcmp(prefix, "on") == 0;
    if (!o->service.sched.reuse && strcmp(prefix, "off") != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "--prefix-cache %s: on or off", prefix);
    }
    if (o->chat_template != NULL && o->chat_template[0] == '@') {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        enum at_rc rc = at_file_read(o->chat_template + 1, TEMPLATE_BYTES_MAX, &text, err);
        if (rc != AT_OK) {
            return rc;
        }
        o->template_text = at_buf_steal(&text, NULL);
        o->service.chat_template = o->template_text;
    } else {
        o->service.chat_template = o->chat_template;
    }
    return AT_OK;
}

static enum at_rc parse_sizes(struct options *o, struct at_err *err)
{
    struct at_batching_options batching;
    struct at_llm_sched_options *sched = &o->service.sched;
    size_t threads = 0, layers = 0;
    at_batching_init(&batching);
    batching.compute_threads = 0;
    enum at_rc rc = o->batching == NULL
                        ? AT_OK
                        : at_batching_apply_text(&batching, o->batching, strlen(o->batching), err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "--batching");
    }
    sched->sequences_max =
        batching.sequences_max != 0 ? batching.sequences_max : AT_LLM_SEQUENCES_DEFAULT;
    sched->step_tokens_max =
        batching.step_tokens_max != 0 ? batching.step_tokens_max : AT_LLM_STEP_TOKENS_DEFAULT;
    sched->cells = batching.context_tokens;
    threads = batching.compute_threads;
    o->service.queue_max = batching.bounds[0].queue_max;
    rc = parse_count("--sequences", o->sequences, 1, AT_LLM_SEQUENCES_MAX, &sched->sequences_max,
                     err);
    if (rc == AT_OK) {
        rc = parse_count("--step-tokens", o->step_tokens, 1, AT_LLM_STEP_TOKENS_MAX,
                         &sched->step_tokens_max, err);
    }
    if (rc == AT_OK) {
        rc =
            parse_count("--context", o->context, 16, AT_LLM_CONTEXT_TOKENS_MAX, &sched->cells, err);
    }
    if (rc == AT_OK) {
        rc = parse_count("--threads", o->threads, 1, AT_RUNNER_THREADS_MAX, &threads, err);
    }
    if (rc == AT_OK) {
        rc = parse_count("--gpu-layers", o->gpu_layers, 0, 100000, &layers, err);
    }
    o->n_gpu_layers = o->gpu_layers != NULL ? (int)layers : -1;
    o->service.threads = (int)threads;
    /* A step has room for one token of each sequence. */
    if (sched->step_tokens_max < sched->sequences_max) {
        sched->step_tokens_max = sched->sequences_max;
    }
    return rc;
}

static int threads_for(const char *model)
{
    struct at_machine machine;
    if (at_file_size(model) < SMALL_MODEL_BYTES) {
        return 1;
    }
    at_machine_read(&machine);
    return machine.cpus < THREADS_DEFAULT_MAX ? machine.cpus : THREADS_DEFAULT_MAX;
}

static bool folder_has_llama(const char *dir)
{
    AT_CLEANUP(at_cleanup_free)
    char *path = at_asprintf("%s/libllama.v" AT_LLAMA_VERSION ".so", dir);
    return at_file_exists(path);
}

/* dir when libllama is in it, or NULL; takes dir. A GPU's build stands beside it as dir-cuda or
 * dir-vulkan and is preferred where the machine has a device for it. */
static char *try_folder(char *dir_take)
{
    static const struct {
        const char *suffix, *device;
    } GPUS[] = {{"-cuda", "/dev/nvidiactl"}, {"-vulkan", "/dev/dri/renderD128"}};
    for (size_t i = 0; i < AT_ARRAY_LEN(GPUS); i++) {
        char *gpu = at_asprintf("%s%s", dir_take, GPUS[i].suffix);
        if (at_file_exists(GPUS[i].device) && folder_has_llama(gpu)) {
            at_free(dir_take);
            return gpu;
        }
        at_free(gpu);
    }
    if (folder_has_llama(dir_take)) {
        return dir_take;
    }
    at_free(dir_take);
    return NULL;
}

static const struct runner_library LIBRARY = {
    .variable = "ATOLL_LLAMA", .name = "llama", .third_party = "llama/lib", .try_take = try_folder};

static int say(int status, const struct at_err *err, const char *advice)
{
    return runner_say("llm", status, err, advice);
}

static void drain(void *service, at_post_fn *done, void *ctx)
{
    at_llm_service_drain(service, done, ctx);
}

/* The library ends the process when it meets what it did not expect: at least it says so first, in
 * a line of ours. */
static void on_engine_abort(const char *message)
{
    const char *why = message != NULL ? message : "it does not say why";
    bool memory = strstr(why, "alloc") != NULL || strstr(why, "memory") != NULL;
    fprintf(stderr, "atoll runner llm: the engine gave up: %.300s\n", why);
    _Exit(memory ? RUNNER_NO_MEMORY : RUNNER_ENGINE);
}

static void on_engine_throw(void)
{
    runner_engine_threw("llm", "ask less of it: --context, --sequences");
}

static int serve(struct runner_process *p, const struct at_llama *l, struct llama_model *model,
                 const struct options *o)
{
    struct at_err err = {0};
    struct at_llm_service *service;
    enum at_rc rc = at_llm_service_new(p->loop, l, model, &o->service, &service, &err);
    if (rc != AT_OK) {
        return rc == AT_NOMEM
                   ? say(RUNNER_NO_MEMORY, &err, "\n  Give it less: --context, --sequences.")
                   : say(RUNNER_OS, &err, "");
    }
    if (!at_llm_service_chats(service)) {
        fputs("atoll runner llm: no chat template that is known here: chats are refused, "
              "completions are served (see --chat-template)\n",
              stderr);
    }
    p->service = service;
    runner_say_ready(at_llm_service_addr(service));
    at_loop_run(p->loop);
    at_llm_service_free(service);
    return 0;
}

static int load(struct runner_process *p, const struct at_llama *l, struct options *o)
{
    struct at_err err = {0};
    const struct at_sys *sys = at_loop_sys(p->loop);
    AT_CLEANUP(at_cleanup_free) char *name = runner_model_name(o->model);
    o->service.name = o->service.name != NULL ? o->service.name : name;
    o->service.listen = o->service.listen != NULL ? o->service.listen : "127.0.0.1:0";
    o->service.threads = o->service.threads != 0 ? o->service.threads : threads_for(o->model);
    struct llama_model_params params = l->llama_model_default_params();
    params.n_gpu_layers = l->gpu ? o->n_gpu_layers : 0;
    struct at_machine machine;
    at_machine_read(&machine);
    if (!l->gpu && machine.memory_bytes > 0 && at_file_size(o->model) > machine.memory_bytes) {
        (void)!at_err_set(&err, AT_NOMEM, "%s has %lld MiB, this machine %lld MiB of memory",
                          o->model, (long long)(at_file_size(o->model) >> 20),
                          (long long)(machine.memory_bytes >> 20));
        return say(RUNNER_NO_MEMORY, &err, "\n  A model that fits into memory is needed.");
    }
    int64_t begun = at_sys_mono_ns(sys);
    struct llama_model *model = l->llama_model_load_from_file(o->model, params);
    o->service.start.load_ns = at_sys_mono_ns(sys) - begun;
    if (model == NULL) {
        bool memory = strstr(l->last_log, "alloc") != NULL || strstr(l->last_log, "mmap") != NULL;
        (void)!at_err_set(&err, AT_CORRUPT, "%s: %s", o->model,
                          l->last_log[0] != '\0' ? l->last_log : "libllama refuses it");
        return memory
                   ? say(RUNNER_NO_MEMORY, &err, "\n  There is not enough memory for this model.")
                   : say(RUNNER_BAD_MODEL, &err, "\n  This file cannot be served as a model.");
    }
    int status = serve(p, l, model, o);
    l->llama_model_free(model);
    return status;
}

static int open_and_load(struct runner_process *p, struct options *o)
{
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_free) char *dir = runner_library_find(&LIBRARY);
    struct at_llama *l = NULL;
    enum at_rc rc = at_gguf_check_file(o->model, &err);
    if (rc != AT_OK) {
        return say(RUNNER_BAD_MODEL, &err, "\n  This file cannot be served as a model.");
    }
    const struct at_sys *sys = at_loop_sys(p->loop);
    int64_t begun = at_sys_mono_ns(sys);
    if (dir == NULL) {
        (void)!at_err_set(&err, AT_NOT_FOUND, "libllama.v" AT_LLAMA_VERSION ".so was not found");
    }
    if (dir == NULL || at_llama_open(dir, &l, &err) != AT_OK) {
        return say(RUNNER_NO_LIBRARY, &err,
                   "\n  In the source tree run `make`, which fetches it; elsewhere put its folder "
                   "beside the executable as llama/ or at /usr/lib/atoll/llama, or name it by "
                   "ATOLL_LLAMA.");
    }
    o->service.start.engine_ns = at_sys_mono_ns(sys) - begun;
    l->ggml_set_abort_callback(on_engine_abort);
    runner_on_throw(on_engine_throw);
    int status = load(p, l, o);
    at_free(l);
    return status;
}

int at_runner_llm_main(const struct at_sys *sys, int argc, char **argv)
{
    struct options o = {0};
    struct at_err err = {0};
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(USAGE, stdout);
        return 0;
    }
    if (parse_options(argc, argv, &o, &err) != AT_OK || parse_words(&o, &err) != AT_OK ||
        parse_sizes(&o, &err) != AT_OK) {
        fprintf(stderr, "atoll runner llm: %s\n%s", err.msg, USAGE);
        return RUNNER_USAGE;
    }
    if (!at_file_exists(o.model)) {
        (void)!at_err_set(&err, AT_NOT_FOUND, "%s: no such file", o.model);
        return say(RUNNER_NO_MODEL, &err, "");
    }
    struct runner_process p = {.loop = at_loop_new(sys), .drain = drain};
    int status = runner_process_signals(&p, &err) != AT_OK ? say(RUNNER_OS, &err, "")
                                                           : open_and_load(&p, &o);
    at_loop_free(p.loop);
    at_free(o.template_text);
    return status;
}
