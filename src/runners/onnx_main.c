#include "runners/onnx.h"
#include "runners/onnx_priv.h"

#include "core/mem.h"
#include "core/units.h"
#include "sys/file.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

/* sysexits(3), so that whoever starts a runner can tell a bad model from a bad machine. */
enum {
    STATUS_USAGE = 2,
    STATUS_BAD_MODEL = 65,
    STATUS_NO_MODEL = 66,
    STATUS_NO_LIBRARY = 69,
    STATUS_OS = 71,
    STATUS_NO_MEMORY = 75
};

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
    "  --provider P     auto, cpu or cuda; auto takes a GPU where library and machine have one\n"
    "examples:\n"
    "  atoll runner onnx --model digits.onnx --listen 127.0.0.1:8000 --batch 64 --delay 2ms\n"
    "  atoll runner onnx --model digits.onnx --threads 2 --batching '{preferredBatchSizes: [8, "
    "16]}'\n";

struct options {
    const char *model;
    const char *threads, *compute, *batch, *delay, *batching, *provider;
    enum at_ort_provider ort_provider;
    struct at_onnx_options service;
};

static enum at_rc parse_options(int argc, char **argv, struct options *ret, struct at_err *err)
{
    const struct {
        const char *name;
        const char **value;
    } rows[] = {
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
    };
    for (int i = 1; i < argc; i++) {
        size_t row = 0;
        size_t len = 0;
        for (; row < AT_ARRAY_LEN(rows); row++) {
            len = strlen(rows[row].name);
            if (strncmp(argv[i], rows[row].name, len) == 0 &&
                (argv[i][len] == '=' || argv[i][len] == '\0')) {
                break;
            }
        }
        if (row == AT_ARRAY_LEN(rows)) {
            return at_err_set(err, AT_BAD_REQUEST, "unknown option %s", argv[i]);
        }
        if (argv[i][len] == '=') {
            *rows[row].value = argv[i] + len + 1;
        } else if (i + 1 < argc) {
            *rows[row].value = argv[++i];
        } else {
            return at_err_set(err, AT_BAD_REQUEST, "%s needs a value", argv[i]);
        }
    }
    if (ret->model == NULL) {
        return at_err_set(err, AT_BAD_REQUEST, "--model is needed");
    }
    return AT_OK;
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
static enum at_rc parse_batching(struct options *o, struct at_err *err)
{
    struct at_batching_options *batching = &o->service.batching;
    AT_CLEANUP(at_cleanup_json) json_t *single = json_object();
    const struct {
        const char *option, *key, *text;
    } rows[] = {{"--threads", "instances", o->threads},
                {"--compute", "computeThreads", o->compute},
                {"--batch", "maxBatchSize", o->batch}};
    at_batching_init(batching);
    enum at_rc rc = read_settings_file(o->model, batching, err);
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

/* Where libonnxruntime.so.1 is: $ATOLL_ONNXRUNTIME, beside the executable, third_party/ in a folder
 * above it (a source tree's build), an installation. own: caller at_free; NULL: nowhere. */
static char *find_library(void)
{
    static const char FILE_NAME[] = "libonnxruntime.so.1";
    const char *told = at_sys_getenv("ATOLL_ONNXRUNTIME");
    if (told != NULL && told[0] != '\0') {
        return at_strdup(told);
    }
    AT_CLEANUP(at_cleanup_free) char *dir = at_sys_self_exe();
    for (int level = 0; level < 4 && dir != NULL; level++) {
        char *slash = strrchr(dir, '/');
        if (slash == NULL) {
            break;
        }
        *slash = '\0';
        char *path = level == 0 ? at_asprintf("%s/%s", dir, FILE_NAME)
                                : at_asprintf("%s/third_party/onnxruntime/lib/%s", dir, FILE_NAME);
        if (at_file_exists(path)) {
            return path;
        }
        at_free(path);
        path = at_asprintf("%s/lib/atoll/%s", dir, FILE_NAME); /* PREFIX/bin/atoll */
        if (at_file_exists(path)) {
            return path;
        }
        at_free(path);
    }
    char *installed = at_asprintf("/usr/lib/atoll/%s", FILE_NAME);
    if (at_file_exists(installed)) {
        return installed;
    }
    at_free(installed);
    return NULL;
}

/* "models/digits.onnx" is "digits". own: caller at_free. */
static char *name_of_file(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    return at_strndup(base, dot != NULL && dot != base ? (size_t)(dot - base) : strlen(base));
}

struct process {
    struct at_loop *loop;
    struct at_onnx_service *service;
    bool stopping;
};

static void stop_loop(void *ctx)
{
    struct process *p = ctx;
    at_loop_stop(p->loop);
}

/* First signal: finish what is in flight, for a while. Second: end at once. */
static void on_signal(void *ctx, int signal_number)
{
    struct process *p = ctx;
    (void)signal_number;
    if (p->stopping) {
        at_loop_stop(p->loop);
        return;
    }
    p->stopping = true;
    at_loop_timer(p->loop, AT_RUNNER_DRAIN_NS, stop_loop, p);
    at_onnx_service_drain(p->service, stop_loop, p);
}

static int say(int status, const struct at_err *err, const char *advice)
{
    fprintf(stderr, "atoll runner onnx: %s%s\n", err->msg, advice);
    return status;
}

static int serve(struct process *p, const struct at_ort_model *model,
                 const struct at_onnx_options *options, struct at_onnx_start *start)
{
    struct at_err err = {0};
    const struct at_sys *sys = at_loop_sys(p->loop);
    int64_t begun = at_sys_mono_ns(sys);
    if (at_onnx_service_new(p->loop, model, options, &p->service, &err) != AT_OK) {
        return say(STATUS_OS, &err, "");
    }
    start->prepare_ns = at_sys_mono_ns(sys) - begun;
    at_onnx_service_started(p->service, start);
    const char *unbatched = at_onnx_service_unbatched(p->service);
    if (unbatched[0] != '\0' && options->batching.batch_max > 1) {
        fprintf(stderr, "atoll runner onnx: requests are not batched: %s\n", unbatched);
    }
    const char *addr = at_onnx_service_addr(p->service);
    printf("ready runner %s%s\n", strncmp(addr, "unix:", 5) == 0 ? "" : "http://", addr);
    fflush(stdout);
    at_loop_run(p->loop);
    at_onnx_service_free(p->service);
    return 0;
}

static int say_load(enum at_rc rc, const struct at_err *err)
{
    if (rc == AT_NOMEM) {
        return say(STATUS_NO_MEMORY, err, "\n  There is not enough memory for this model.");
    }
    if (rc == AT_UNAVAILABLE) {
        return say(STATUS_NO_LIBRARY, err, "");
    }
    return say(STATUS_BAD_MODEL, err, "\n  This file cannot be served as an ONNX model.");
}

static int load_and_serve(struct process *p, const struct options *o)
{
    struct at_err err = {0};
    AT_CLEANUP(at_cleanup_free) char *library = find_library();
    struct at_ort *ort = NULL;
    struct at_ort_model *model = NULL;
    const struct at_sys *sys = at_loop_sys(p->loop);
    struct at_onnx_start start = {0};
    int64_t begun = at_sys_mono_ns(sys);
    if (library == NULL) {
        at_err_set(&err, AT_NOT_FOUND, "libonnxruntime.so.1 was not found");
    }
    if (library == NULL || at_ort_open(library, &ort, &err) != AT_OK) {
        if (strstr(err.msg, "bad_alloc") != NULL || strstr(err.msg, "failed to map") != NULL) {
            return say_load(AT_NOMEM, &err);
        }
        return say(
            STATUS_NO_LIBRARY, &err,
            "\n  In the source tree run `make`, which fetches it; elsewhere put it beside the "
            "executable or in /usr/lib/atoll, or name it by ATOLL_ONNXRUNTIME.");
    }
    start.engine_ns = at_sys_mono_ns(sys) - begun;
    AT_CLEANUP(at_cleanup_free) char *name = name_of_file(o->model);
    struct at_onnx_options service = o->service;
    service.name = service.name != NULL ? service.name : name;
    service.listen = service.listen != NULL ? service.listen : "127.0.0.1:0";
    struct at_ort_load load = {.path = o->model,
                               .name = service.name,
                               .version = service.version,
                               .compute_threads = (int)service.batching.compute_threads,
                               .provider = o->ort_provider};
    begun = at_sys_mono_ns(sys);
    enum at_rc rc = at_ort_model_load_with(ort, &load, &model, &err);
    start.load_ns = at_sys_mono_ns(sys) - begun;
    int status = rc != AT_OK ? say_load(rc, &err) : serve(p, model, &service, &start);
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
        return STATUS_USAGE;
    }
    if (!at_file_exists(o.model)) {
        at_err_set(&err, AT_NOT_FOUND, "%s: no such file", o.model);
        return say(STATUS_NO_MODEL, &err, "");
    }
    if (parse_batching(&o, &err) != AT_OK) {
        fprintf(stderr, "atoll runner onnx: %s\n%s", err.msg, USAGE);
        return STATUS_USAGE;
    }
    /* Before the library is opened: threads that it makes must inherit the blocked signals. */
    struct process p = {.loop = at_loop_new(sys)};
    int status;
    if (at_loop_signal(p.loop, SIGTERM, on_signal, &p, &err) != AT_OK ||
        at_loop_signal(p.loop, SIGINT, on_signal, &p, &err) != AT_OK) {
        status = say(STATUS_OS, &err, "");
    } else {
        status = load_and_serve(&p, &o);
    }
    at_loop_free(p.loop);
    return status;
}
