#include "runners/llama_api.h"

#include "core/mem.h"
#include "sys/file.h"
#include "sys/sys.h"

#include <dlfcn.h>
#include <ggml-backend.h>
#include <stdio.h>
#include <string.h>

#define PIECE_BYTES 256

/* The library's name carries its version; a newer one has another layout of its structures. */
static const char *const NAMES[] = {"libllama.v" AT_LLAMA_VERSION ".so"};
static const char *const GGML_NAMES[] = {"libggml.v" AT_LLAMA_VERSION ".so"};

static void on_log(enum ggml_log_level level, const char *text, void *ctx)
{
    struct at_llama *l = ctx;
    if (level == GGML_LOG_LEVEL_ERROR || level == GGML_LOG_LEVEL_WARN) {
        size_t len = strcspn(text, "\n");
        if (len > 3) {
            snprintf(l->last_log, sizeof l->last_log, "%.*s", (int)len, text);
        }
    }
}

static void *open_one(const char *dir, const char *name, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", dir, name);
    if (!at_file_exists(path)) {
        at_err_set(err, AT_NOT_FOUND, "%s: no such file", path);
        return NULL;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        at_err_set(err, AT_NOT_FOUND, "%s", dlerror());
    }
    return library;
}

static const char *take_symbols(struct at_llama *l, void *llama, void *ggml, void *base)
{
#define X(name)                                                                                    \
    *(void **)&l->name = dlsym(llama, #name);                                                      \
    if (l->name == NULL) {                                                                         \
        return #name;                                                                              \
    }
    AT_LLAMA_FUNCTIONS(X)
#undef X
#define X(name)                                                                                    \
    *(void **)&l->name = dlsym(ggml, #name);                                                       \
    if (l->name == NULL) {                                                                         \
        *(void **)&l->name = dlsym(base, #name);                                                   \
    }                                                                                              \
    if (l->name == NULL) {                                                                         \
        return #name;                                                                              \
    }
    AT_GGML_FUNCTIONS(X)
#undef X
    return NULL;
}

/* The back ends are libraries of their own, of which the library picks the best for this CPU. */
static void load_devices(struct at_llama *l, const char *dir)
{
    l->ggml_backend_load_all_from_path(dir);
    for (size_t i = 0; i < l->ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t device = l->ggml_backend_dev_get(i);
        enum ggml_backend_dev_type type = l->ggml_backend_dev_type(device);
        bool gpu = type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU;
        if (l->device[0] == '\0' || (gpu && !l->gpu)) {
            snprintf(l->device, sizeof l->device, "%s", l->ggml_backend_dev_description(device));
        }
        l->gpu = l->gpu || gpu;
    }
}

enum at_rc at_llama_open(const char *dir, struct at_llama **ret, struct at_err *err)
{
    void *llama = open_one(dir, NAMES[0], err);
    void *ggml = llama != NULL ? open_one(dir, GGML_NAMES[0], err) : NULL;
    void *base = ggml != NULL ? open_one(dir, "libggml-base.so", err) : NULL;
    if (base == NULL) {
        return err != NULL && err->rc != AT_OK ? err->rc : AT_NOT_FOUND;
    }
    struct at_llama *l = AT_NEW(struct at_llama);
    const char *missing = take_symbols(l, llama, ggml, base);
    if (missing != NULL) {
        at_free(l);
        return at_err_set(err, AT_UNSUPPORTED, "%s: libllama lacks %s", dir, missing);
    }
    l->llama_log_set(on_log, l);
    l->llama_backend_init();
    load_devices(l, dir);
    if (l->ggml_backend_dev_count() == 0) {
        at_free(l);
        return at_err_set(err, AT_NOT_FOUND, "%s: no libggml-cpu-*.so that runs on this machine",
                          dir);
    }
    *ret = l;
    return AT_OK;
}

void at_llama_piece(const struct at_llama *l, const struct llama_vocab *vocab, int32_t token,
                    bool special, struct at_buf *out)
{
    char piece[PIECE_BYTES];
    int32_t n = l->llama_token_to_piece(vocab, token, piece, sizeof piece, 0, special);
    if (n >= 0) {
        (void)!at_buf_append(out, piece, (size_t)n);
        return;
    }
    char *place = NULL;
    if (at_buf_reserve(out, (size_t)-n, &place) == AT_OK) {
        n = l->llama_token_to_piece(vocab, token, place, -n, 0, special);
        at_buf_commit(out, n > 0 ? (size_t)n : 0);
    }
}
