/* `atoll model`: which word, and what all of them need: the store, registries, progress. */
#include "cli/model_priv.h"
#include "core/str.h"
#include "sys/entry.h"
#include "sys/file.h"

#include <string.h>

#define PASSWORD_BYTES_MAX 65536

static const struct {
    const char *name;
    size_t args; /* after the word */
    enum at_rc (*run)(struct cli *cli, struct at_err *err);
    const char *synopsis;
} WORDS[] = {
    {"init", 1, model_init, "init FOLDER"},
    {"pack", 1, model_pack, "pack FOLDER"},
    {"push", 1, model_push, "push NAME [WHERE]"},
    {"pull", 1, model_pull, "pull PACKAGE"},
    {"save", 2, model_save, "save NAME FILE.tar"},
    {"load", 1, model_pull, "load FILE.tar"},
    {"inspect", 1, model_inspect, "inspect PACKAGE|FOLDER"},
    {"ls", 0, model_list, "ls"},
    {"rm", 1, model_remove, "rm NAME..."},
    {"sign", 1, model_sign, "sign PACKAGE --key FILE"},
    {"verify", 1, model_verify_word, "verify PACKAGE --key FILE"},
    {"run", 1, model_run, "run FOLDER|PACKAGE"},
};

enum at_rc cli_model(struct cli *cli, struct at_err *err)
{
    const char *names[AT_ARRAY_LEN(WORDS)];
    for (size_t i = 0; i < AT_ARRAY_LEN(WORDS); i++) {
        names[i] = WORDS[i].name;
        if (strcmp(cli->args[0], WORDS[i].name) != 0) {
            continue;
        }
        if (cli->n_args < 1 + WORDS[i].args) {
            return at_err_set(err, AT_BAD_REQUEST, "something is missing: atoll model %s",
                              WORDS[i].synopsis);
        }
        size_t most = WORDS[i].run == model_remove ? (size_t)-1
                      : WORDS[i].run == model_push ? 3
                                                   : 1 + WORDS[i].args;
        if (cli->n_args > most) {
            return at_err_set(err, AT_BAD_REQUEST, "\"%s\" is too much: atoll model %s",
                              cli->args[most], WORDS[i].synopsis);
        }
        return WORDS[i].run(cli, err);
    }
    const char *near = cli_nearest(cli->args[0], names, AT_ARRAY_LEN(names));
    return at_err_set(err, AT_BAD_REQUEST, "there is no atoll model %s%s%s; see atoll model --help",
                      cli->args[0], near != NULL ? ", did you mean " : "",
                      near != NULL ? near : "");
}

/* --- the store --- */

static char *store_path(const struct cli *cli)
{
    const char *told = cli_value(cli, OPT_STORE, at_sys_getenv("ATOLL_MODELS"));
    const char *data = at_sys_getenv("XDG_DATA_HOME");
    const char *home = at_sys_getenv("HOME");
    return told != NULL && told[0] != '\0'   ? at_strdup(told)
           : data != NULL && data[0] != '\0' ? at_asprintf("%s/atoll/models", data)
           : home != NULL                    ? at_asprintf("%s/.local/share/atoll/models", home)
                                             : at_strdup("/var/lib/atoll/models");
}

enum at_rc model_open(struct cli *cli, struct model_work *ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = store_path(cli);
    *ret = (struct model_work){.cli = cli, .use = -1};
    pthread_mutex_init(&ret->progress.lock, NULL);
    enum at_rc rc = at_pkg_store_open(path, true, &ret->store, err);
    rc = rc != AT_OK ? rc : at_pkg_store_use(ret->store, &ret->use, err);
    if (rc != AT_OK) {
        model_close(ret);
    }
    return rc;
}

void model_close(struct model_work *w)
{
    at_pkg_store_part_done(w->use);
    at_pkg_store_free(w->store);
    at_pkg_credentials_done(&w->credentials);
    at_pkg_curl_free(w->curl);
    at_free(w->password);
    pthread_mutex_destroy(&w->progress.lock);
    *w = (struct model_work){.use = -1};
}

bool model_is_folder(const char *text)
{
    AT_CLEANUP(at_cleanup_free) char *inside = at_asprintf("%s/.", text);
    return at_file_exists(inside);
}

enum at_rc model_name(struct model_work *w, const char *name, const char *digest,
                      struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *descriptor = NULL;
    if (name[0] == '\0' || strlen(name) >= PKG_REF_BYTES_MAX || strpbrk(name, " \t\r\n") != NULL) {
        return at_err_set(err, AT_INVALID, "\"%.100s\" is no name for a package", name);
    }
    enum at_rc rc = at_pkg_descriptor_of(w->store, digest, &descriptor, err);
    return rc != AT_OK ? rc : at_pkg_store_name(w->store, name, descriptor, err);
}

/* The only name that goes on with a colon after text. */
static enum at_rc find_by_beginning(struct model_work *w, const char *text,
                                    char ret_digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    struct at_pkg_index index = {0};
    size_t n = strlen(text), found = 0;
    enum at_rc rc = at_pkg_store_index(w->store, arena, &index, err);
    for (size_t i = 0; i < index.n_manifests; i++) {
        const char *name = at_pkg_note(&index.manifests[i], AT_PKG_NOTE_NAME);
        if (name != NULL && strncmp(name, text, n) == 0 && name[n] == ':') {
            memcpy(ret_digest, index.manifests[i].digest, AT_PKG_DIGEST_BYTES);
            found++;
        }
    }
    at_pkg_index_done(&index);
    return rc != AT_OK || found == 1
               ? rc
               : at_err_set(err, AT_NOT_FOUND,
                            "%s is not one of the packages here (atoll model ls)", text);
}

enum at_rc model_find(struct model_work *w, const char *name, char ret_digest[AT_PKG_DIGEST_BYTES],
                      struct at_err *err)
{
    size_t scheme = strncmp(name, "oci://", 6) == 0 ? 6 : 0;
    AT_CLEANUP(at_cleanup_free) char *bare = at_strdup(name + scheme);
    AT_CLEANUP(at_cleanup_free) char *latest = at_asprintf("%s:latest", bare);
    enum at_rc rc = at_pkg_store_find(w->store, bare, ret_digest, NULL);
    const char *at = strstr(bare, "@sha256:");
    if (rc == AT_NOT_FOUND && at != NULL) {
        rc = at_pkg_store_find(w->store, at + 1, ret_digest, NULL);
    }
    rc = rc == AT_NOT_FOUND ? at_pkg_store_find(w->store, latest, ret_digest, NULL) : rc;
    return rc == AT_OK ? rc : find_by_beginning(w, bare, ret_digest, err);
}

/* --- registries --- */

/* --username with --password-stdin, else docker's config. */
static enum at_rc credentials(struct model_work *w, const char *host, struct at_err *err)
{
    struct cli *cli = w->cli;
    const char *user = cli_value(cli, OPT_USERNAME, NULL);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    at_pkg_credentials_done(&w->credentials);
    if ((user != NULL) != cli_flag(cli, OPT_PASSWORD_STDIN)) {
        return at_err_set(err, AT_BAD_REQUEST, "--username and --password-stdin go together");
    }
    if (user == NULL) {
        return at_pkg_credentials_find(host, &w->credentials, err);
    }
    if (w->password == NULL) {
        enum at_rc rc = cli_read(cli, "-", PASSWORD_BYTES_MAX, &text, err);
        if (rc != AT_OK) {
            return rc;
        }
        w->password = at_strndup(text.data != NULL ? text.data : "",
                                 text.data != NULL ? strcspn(text.data, "\r\n") : 0);
    }
    w->credentials.user = at_strdup(user);
    w->credentials.password = at_strdup(w->password);
    return AT_OK;
}

static void on_bytes(void *ctx, int64_t more);

enum at_rc model_registry(struct model_work *w, const struct at_pkg_ref *ref, bool push,
                          struct at_pkg_registry **ret, struct at_err *err)
{
    int64_t stall_ns = 0, chunk = 0;
    enum at_rc rc = cli_duration(w->cli, OPT_TIMEOUT, 0, &stall_ns, err);
    const char *chunk_text = cli_value(w->cli, OPT_CHUNK, NULL);
    if (rc == AT_OK && chunk_text != NULL &&
        (at_quantity_units(chunk_text, &chunk, err) != AT_OK || chunk <= 0)) {
        rc = at_err_set(err, AT_BAD_REQUEST, "--chunk %s: a size such as 64Mi", chunk_text);
    }
    rc = rc != AT_OK ? rc : credentials(w, ref->host, err);
    if (rc == AT_OK && w->curl == NULL) {
        rc = at_pkg_curl_open(&w->curl, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    struct at_pkg_registry_options options = {
        .host = ref->host,
        .repository = ref->path,
        .credentials = &w->credentials,
        .plain_http = cli_flag(w->cli, OPT_PLAIN_HTTP),
        .push = push,
        .http = {.ca_file = cli_value(w->cli, OPT_CA, NULL),
                 .cancel = &w->cancel,
                 .stall_ns = stall_ns},
        .chunk_bytes = chunk,
        .ctx = &w->progress,
        .on_bytes = on_bytes,
    };
    return at_pkg_registry_open(w->curl, &options, ret, err);
}

enum at_rc model_parallel(const struct cli *cli, size_t *ret, struct at_err *err)
{
    int64_t n = PKG_PARALLEL;
    enum at_rc rc =
        cli->values[OPT_PARALLEL].n == 0 ? AT_OK : cli_integer(cli, OPT_PARALLEL, 1, 64, &n, err);
    *ret = (size_t)n;
    return rc;
}

/* --- progress --- */

const char *model_bytes(const struct cli *cli, int64_t bytes)
{
    static const char *const UNITS[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1000 && unit + 1 < AT_ARRAY_LEN(UNITS)) {
        value /= 1000;
        unit++;
    }
    return at_arena_printf(cli->arena, unit == 0 ? "%.0f %s" : "%.1f %s", value, UNITS[unit]);
}

#define SHOW_NS (100 * AT_NS_PER_MS)

static void show(struct model_progress *p, int64_t now)
{
    double seconds = (double)(now - p->began_ns) / 1e9;
    double rate = seconds > 0.2 ? (double)p->done / seconds / 1e6 : 0;
    int percent = p->total > 0 ? (int)(p->done * 100 / p->total) : 100;
    char bar[21];
    for (int i = 0; i < 20; i++) {
        bar[i] = i < percent / 5 ? '#' : '.';
    }
    bar[20] = '\0';
    fprintf(p->out, "\r%s [%s] %3d %%  %.1f of %.1f MB  %.1f MB/s\033[K", p->what, bar, percent,
            (double)p->done / 1e6, (double)p->total / 1e6, rate);
    fflush(p->out);
    p->shown_ns = now;
}

static void on_bytes(void *ctx, int64_t more)
{
    struct model_progress *p = ctx;
    pthread_mutex_lock(&p->lock);
    p->done += more;
    if (p->out != NULL) {
        int64_t now = at_sys_mono_ns(p->sys);
        if (now - p->shown_ns > SHOW_NS) {
            show(p, now);
        }
    }
    pthread_mutex_unlock(&p->lock);
}

static enum at_rc on_total(void *ctx, int64_t bytes, int64_t lacking, struct at_err *err)
{
    (void)lacking;
    (void)err;
    struct model_progress *p = ctx;
    pthread_mutex_lock(&p->lock);
    p->total = bytes;
    p->done = 0;
    pthread_mutex_unlock(&p->lock);
    return AT_OK;
}

void model_progress_begin(struct model_work *w, const char *what)
{
    struct model_progress *p = &w->progress;
    p->out = w->cli->env->err_is_terminal ? w->cli->env->err : NULL;
    p->what = what;
    p->sys = w->cli->env->sys;
    p->began_ns = at_sys_mono_ns(p->sys);
    p->shown_ns = p->done = p->total = 0;
}

void model_progress_end(struct model_work *w)
{
    if (w->progress.out != NULL) {
        fputs("\r\033[K", w->progress.out);
        fflush(w->progress.out);
        w->progress.out = NULL;
    }
}

struct at_pkg_transfer model_transfer(struct model_work *w)
{
    struct at_pkg_transfer t = {.cancel = &w->cancel, .ctx = &w->progress, .on_total = on_total};
    struct at_err ignored = {0};
    if (model_parallel(w->cli, &t.parallel, &ignored) != AT_OK) {
        t.parallel = PKG_PARALLEL; /* the word checked it before */
    }
    return t;
}
