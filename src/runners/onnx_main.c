#include "runners/onnx.h"
#include "runners/onnx_priv.h"
#include "runners/process.h"

#include "core/mem.h"
#include "core/units.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

static const char USAGE[] =
    "usage: atoll runner onnx --model FILE [options]\n"
    "  --model FILE     the ONNX model to serve\n"
    "  --listen ADDR    host:port or unix:/path (127.0.0.1:0: a free port, told in the ready "
    "line)\n"
    "  --local-listen A unix:/path besides, for gateways on this machine; left out if it cannot "
    "be\n"
    "  --name NAME      name of the model in the protocol (the file's name without .onnx)\n"
    "  --version V      version of the model in the protocol\n"
    "  --threads N      instances: runs of the model at the same time, 1 by default; 0: on the\n"
    "                   thread that serves\n"
    "  --compute N      threads inside one run, 1 by default\n"
    "  --batch N        most rows put together for one run, 32 by default; 1: no batching\n"
    "  --delay TIME     how long a request may wait for others, 0s by default\n"
    "  --batching TEXT  all of batching as YAML or JSON, as in a Deployment; goes over what\n"
    "                   FILE.batching.yaml beside the model says, and under the options above\n"
    "  --models TEXT    more models for this process, as JSON: [{name, version, path}, ...]\n"
    "  --provider P     auto, cpu or cuda; auto takes a GPU where library and machine have one\n"
    "examples:\n"
    "  atoll runner onnx --model digits.onnx --listen 127.0.0.1:8000 --batch 64 --delay 2ms\n"
    "  atoll runner onnx --model digits.onnx --threads 2 --batching '{preferredBatchSizes: [8, "
    "16]}'\n";

struct options {
    const char *model;
    const char *threads, *compute, *batch, *delay, *batching, *provider, *models;
    enum at_ort_provider ort_provider;
    struct at_onnx_options service;
};

static enum at_rc parse_options(int argc, char **argv, struct options *ret, struct at_err *err)
{
    const struct runner_option rows[] = {
        {"--model", &ret->model},
        {"--listen", &ret->service.listen},
        {"--local-listen", &ret->service.local_listen},
        {"--name", &ret->service.name},
        {"--version", &ret->service.version},
        {"--threads", &ret->threads},
        {"--compute", &ret->compute},
        {"--batch", &ret->batch},
        {"--delay", &ret->delay},
        {"--batching", &ret->batching},
        {"--provider", &ret->provider},
        {"--models", &ret->models},
    };
    return runner_options(argc, argv, rows, AT_ARRAY_LEN(rows), err);
}

/* "digits.onnx" has its settings in "digits.batching.yaml", if it has any. */
static enum at_rc read_settings_file(const char *model, struct at_batching_options *batching,
                                     struct at_err *err)
{
    const char *dot = strrchr(model, '.');
    const char *slash = strrchr(model, '/');
    size_t stem =
        dot != NULL && (slash == NULL || dot > slash) ? (size_t)(dot - model) : strlen(model);
    AT_CLEANUP(at_cleanup_free)
    char *path = at_asprintf("%.*s.batching.yaml", (int)stem, model);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (!at_file_exists(path)) {
        return AT_OK;
    }
    enum at_rc rc = at_file_read(path, AT_BATCH_FILE_BYTES_MAX, &text, err);
    rc = rc != AT_OK ? rc : at_batching_apply_text(batching, text.data, text.len, err);
    return rc != AT_OK ? at_err_wrap(err, rc, "%s", path) : AT_OK;
}

/* Single options go over the Deployment's words, those over the file beside the model. */
static enum at_rc parse_batching(const struct options *o, const char *model,
                                 struct at_batching_options *batching, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *single = json_object();
    const struct {
        const char *option, *key, *text;
    } rows[] = {{"--threads", "instances", o->threads},
                {"--compute", "computeThreads", o->compute},
                {"--batch", "maxBatchSize", o->batch}};
    at_batching_init(batching);
    enum at_rc rc = read_settings_file(model, batching, err);
    if (rc == AT_OK && o->batching != NULL) {
        rc = at_batching_apply_text(batching, o->batching, strlen(o->batching), err);
        rc = rc != AT_OK ? at_err_wrap(err, rc, "--batching") : AT_OK;
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(rows) && rc == AT_OK; i++) {
        uint64_t number = 0;
        if (rows[i].text != NULL && (at_str_to_u64(at_str_of(rows[i].text), &number) != AT_OK ||
                                     number > AT_BATCH_ROWS_MAX)) {
            return at_err_set(err, AT_BAD_REQUEST, "%s %s: a number is needed", rows[i].option,
                              rows[i].text);
        }
        if (rows[i].text != NULL) {
            json_object_set_new(single, rows[i].key, json_integer((json_int_t)number));
        }
    }
    if (o->delay != NULL) {
        json_object_set_new(single, "maxQueueDelay", json_string(o->delay));
    }
    rc = rc != AT_OK ? rc : at_batching_apply(batching, single, err);
    return rc != AT_OK ? rc : at_batching_check(batching, err);
}

static enum at_rc parse_provider(struct options *o, struct at_err *err)
{
    static const char *const NAMES[] = {"auto", "cpu", "cuda"};
    for (size_t i = 0; i < AT_ARRAY_LEN(NAMES); i++) {
        if (o->provider == NULL || strcmp(o->provider, NAMES[i]) == 0) {
            o->ort_provider = (enum at_ort_provider)i;
            return AT_OK;
        }
    }
    return at_err_set(err, AT_BAD_REQUEST, "--provider %s: there are auto, cpu, cuda", o->provider);
}

static char *try_file(char *path_take)
{
    if (at_file_exists(path_take)) {
        return path_take;
    }
    at_free(path_take);
    return NULL;
}

static const struct runner_library LIBRARY = {.variable = "ATOLL_ONNXRUNTIME",
                                              .name = "libonnxruntime.so.1",
                                              .third_party = "onnxruntime/lib/libonnxruntime.so.1",
                                              .try_take = try_file};

static int say(int status, const struct at_err *err, const char *advice)
{
    return runner_say("onnx", status, err, advice);
}

static void drain(void *service, at_post_fn *done, void *ctx)
{
    at_onnx_service_drain(service, done, ctx);
}

/* --- several models --- */

struct more {
    struct at_ort_model *items[AT_RUNNER_MODELS_MAX];
    size_t n;
};

static int say_load(enum at_rc rc, const struct at_err *err);

/* Load those of --models beside the first. Returns an exit status. */
static int add_models(const struct options *o, struct at_ort *ort, struct at_onnx_service *service,
                      struct more *more)
{
    AT_CLEANUP(at_cleanup_json) json_t *list = NULL;
    struct at_err err = {0};
    size_t i;
    json_t *one;
    if (o->models != NULL &&
        (at_json_parse(o->models, strlen(o->models), &list, &err) != AT_OK ||
         !json_is_array(list) || json_array_size(list) > AT_RUNNER_MODELS_MAX)) {
        at_err_set(&err, AT_BAD_REQUEST, "--models: a list of at most %d models is needed",
                   AT_RUNNER_MODELS_MAX);
        return say(RUNNER_USAGE, &err, "");
    }
    json_array_foreach(list, i, one)
    {
        struct at_batching_options batching;
        struct at_ort_load load = {.path = at_json_str_at(one, "path", NULL),
                                   .name = at_json_str_at(one, "name", NULL),
                                   .version = at_json_str_at(one, "version", NULL),
                                   .provider = o->ort_provider};
        if (load.path == NULL || load.name == NULL || !at_file_exists(load.path)) {
            at_err_set(&err, AT_NOT_FOUND, "--models: item %zu: %s: no such file", i,
                       load.path != NULL ? load.path : "it has no path and name");
            return say(RUNNER_NO_MODEL, &err, "");
        }
        if (parse_batching(o, load.path, &batching, &err) != AT_OK) {
            return say(RUNNER_USAGE, &err, "");
        }
        load.compute_threads = (int)batching.compute_threads;
        enum at_rc rc = at_ort_model_load_with(ort, &load, &more->items[more->n], &err);
        if (rc != AT_OK) {
            return say_load(at_err_wrap(&err, rc, "model %s", load.name), &err);
        }
        more->n++;
        if (at_onnx_service_add(service, more->items[more->n - 1], &batching, &err) != AT_OK) {
            return say(RUNNER_OS, &err, "");
        }
    }
    return 0;
}

static int serve(struct runner_process *p, const struct options *o, struct at_ort *ort,
                 const struct at_ort_model *model, const struct at_onnx_options *options)
{
    struct more more = {.n = 0};
    struct at_err err = {0};
    struct at_onnx_service *service;
    if (at_onnx_service_new(p->loop, model, options, &service, &err) != AT_OK) {
        return say(RUNNER_OS, &err, "");
    }
    const char *unbatched = at_onnx_service_unbatched(service);
    if (unbatched[0] != '\0' && options->batching.batch_max > 1) {
        fprintf(stderr, "atoll runner onnx: requests are not batched: %s\n", unbatched);
    }
    int status = add_models(o, ort, service, &more);
    p->service = service;
    if (status == 0) {
        runner_say_ready(at_onnx_service_addr(service));
        at_loop_run(p->loop);
    }
    at_onnx_service_free(service);
    for (size_t i = 0; i < more.n; i++) {
        at_ort_model_free(more.items[i]);
    }
    return status;
}

static int say_load(enum at_rc rc, const struct at_err *err)
{
    if (rc == AT_NOMEM) {
        return say(RUNNER_NO_MEMORY, err, "\n  There is not enough memory for this model.");
    }
    if (rc == AT_UNAVAILABLE) {
        return say(RUNNER_NO_LIBRARY, err, "");
    }
    return say(RUNNER_BAD_MODEL, err, "\n  This file cannot be served as an ONNX model.");
}

static void on_engine_throw(void)
{
    runner_engine_threw("onnx", "ask less of it: --threads, --batch");
}

static int load_and_serve(struct runner_process *p, const struct options *o)
{
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_free) char *library = runner_library_find(&LIBRARY);
    struct at_ort *ort = NULL;
    struct at_ort_model *model = NULL;
    const struct at_sys *sys = at_loop_sys(p->loop);
    struct at_onnx_options service = o->service;
    int64_t begun = at_sys_mono_ns(sys);
    if (library == NULL) {
        at_err_set(&err, AT_NOT_FOUND, "libonnxruntime.so.1 was not found");
    }
    if (library == NULL || at_ort_open(library, &ort, &err) != AT_OK) {
        if (strstr(err.msg, "bad_alloc") != NULL || strstr(err.msg, "failed to map") != NULL) {
            return say_load(AT_NOMEM, &err);
        }
        return say(
            RUNNER_NO_LIBRARY, &err,
            "\n  In the source tree run `make`, which fetches it; elsewhere put it beside the "
            "executable or in /usr/lib/atoll, or name it by ATOLL_ONNXRUNTIME.");
    }
    service.start.engine_ns = at_sys_mono_ns(sys) - begun;
    runner_on_throw(on_engine_throw);
    AT_CLEANUP(at_cleanup_free) char *name = runner_model_name(o->model);
    service.name = service.name != NULL ? service.name : name;
    service.listen = service.listen != NULL ? service.listen : "127.0.0.1:0";
    struct at_ort_load load = {.path = o->model,
                               .name = service.name,
                               .version = service.version,
                               .compute_threads = (int)service.batching.compute_threads,
                               .provider = o->ort_provider};
    begun = at_sys_mono_ns(sys);
    enum at_rc rc = at_ort_model_load_with(ort, &load, &model, &err);
    service.start.load_ns = at_sys_mono_ns(sys) - begun;
    int status = rc != AT_OK ? say_load(rc, &err) : serve(p, o, ort, model, &service);
    at_ort_model_free(model);
    at_ort_free(ort);
    return status;
}

int at_runner_onnx_main(const struct at_sys *sys, int argc, char **argv)
{
    struct options o = {0};
    struct at_err err = {0};
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(USAGE, stdout);
        return 0;
    }
    if (parse_options(argc, argv, &o, &err) != AT_OK || parse_provider(&o, &err) != AT_OK) {
        fprintf(stderr, "atoll runner onnx: %s\n%s", err.msg, USAGE);
        return RUNNER_USAGE;
    }
    if (!at_file_exists(o.model)) {
        at_err_set(&err, AT_NOT_FOUND, "%s: no such file", o.model);
        return say(RUNNER_NO_MODEL, &err, "");
    }
    if (parse_batching(&o, o.model, &o.service.batching, &err) != AT_OK) {
        fprintf(stderr, "atoll runner onnx: %s\n%s", err.msg, USAGE);
        return RUNNER_USAGE;
    }
    /* Before the library is opened: threads that it makes must inherit the blocked signals. */
    struct runner_process p = {.loop = at_loop_new(sys), .drain = drain};
    int status = runner_process_signals(&p, &err) != AT_OK ? say(RUNNER_OS, &err, "")
                                                           : load_and_serve(&p, &o);
    at_loop_free(p.loop);
    return status;
}
