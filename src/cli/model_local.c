/* Model folders and the packages of this machine. */
#include "cli/model_priv.h"
#include "core/str.h"
#include "package/image.h"
#include "runners/gguf.h"
#include "runners/process.h"
#include "sys/file.h"
#include "sys/machine.h"

#include <dlfcn.h>
#include <string.h>

enum at_rc model_check(const char *format, const char *path, struct at_err *err)
{
    return at_streq(format, "gguf") ? at_gguf_check_file(path, err) : AT_OK;
}

enum at_rc model_init(struct cli *cli, struct at_err *err)
{
    struct at_pkg_model m = {0};
    const char *folder = cli->args[1];
    struct at_pkg_init init = {.name = cli_value(cli, OPT_NAME, NULL),
                               .version = cli_value(cli, OPT_MODEL_VERSION, NULL),
                               .licence = cli_value(cli, OPT_LICENCE, NULL),
                               .data_class = cli_value(cli, OPT_DATA_CLASS, NULL),
                               .file = cli_value(cli, OPT_MODEL_FILE, NULL),
                               .force = cli_flag(cli, OPT_FORCE),
                               .check = model_check};
    if (!model_is_folder(folder)) {
        return at_err_set(err, AT_NOT_FOUND, "%s is no folder", folder);
    }
    enum at_rc rc = at_pkg_model_init(folder, &init, err);
    rc = rc != AT_OK ? rc : at_pkg_model_read(folder, &m, err);
    if (rc != AT_OK) {
        return rc;
    }
    size_t files = json_array_size(json_object_get(m.json, "files"));
    fprintf(cli->env->out, "wrote %s/" AT_PKG_YAML ": %s, version %s, %s, %zu file%s\n", folder,
            m.name, m.version, m.format, files, files == 1 ? "" : "s");
    if (m.licence[0] == '\0' && json_object_get(m.json, "license") == NULL) {
        fprintf(cli->env->err, "note: it says nothing of a licence yet (--licence, or by hand)\n");
    }
    at_pkg_model_done(&m);
    return rc;
}

/* --- pack --- */

static int64_t size_of(const struct model_work *w, const char *digest)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    struct at_pkg_manifest m = {0};
    const struct at_pkg_descriptor **blobs = NULL;
    size_t n = 0;
    int64_t sum = 0;
    if (at_pkg_store_read(w->store, digest, PKG_DOCUMENT_BYTES_MAX, &text, NULL) == AT_OK &&
        at_pkg_manifest_parse(text.data, text.len, arena, &m, NULL) == AT_OK &&
        at_pkg_blobs_of(&m, arena, &blobs, &n, NULL) == AT_OK) {
        for (size_t i = 0; i < n; i++) {
            sum += blobs[i]->bytes;
        }
    }
    at_pkg_manifest_done(&m);
    return sum;
}

static void tell_left_out(const struct cli *cli, const json_t *left_out)
{
    size_t i;
    const json_t *path;
    json_array_foreach(left_out, i, path)
    {
        fputs("note: not in " AT_PKG_YAML ", left out: ", cli->env->err);
        cli_print_text(cli->env->err, json_string_value(path));
        fputc('\n', cli->env->err);
    }
}

static enum at_rc pack(struct model_work *w, const char *folder, struct at_err *err)
{
    struct cli *cli = w->cli;
    struct at_pkg_model m = {0};
    AT_CLEANUP(at_cleanup_json) json_t *left_out = NULL;
    char digest[AT_PKG_DIGEST_BYTES];
    const char *image = cli_value(cli, OPT_RUNNABLE, NULL);
    enum at_rc rc = at_pkg_model_read(folder, &m, err);
    rc = rc != AT_OK ? rc : at_pkg_pack(folder, w->store, digest, &left_out, err);
    if (rc != AT_OK) {
        left_out = NULL;
    }
    const char *own = rc == AT_OK ? at_arena_printf(cli->arena, "%s:%s", m.name, m.version) : "";
    at_pkg_model_done(&m);
    if (rc != AT_OK) {
        return rc;
    }
    tell_left_out(cli, left_out);
    const char *name = cli_value(cli, OPT_TAG, own);
    name = strncmp(name, "oci://", 6) == 0 ? name + 6 : name;
    rc = model_name(w, name, digest, err);
    if (rc == AT_OK) {
        fputs("packed ", cli->env->out);
        cli_print_text(cli->env->out, name);
        fprintf(cli->env->out, "@%s, %s\n", digest, model_bytes(cli, size_of(w, digest)));
    }
    return rc != AT_OK || image == NULL ? rc : model_image(w, digest, image, err);
}

enum at_rc model_pack(struct cli *cli, struct at_err *err)
{
    struct model_work w;
    enum at_rc rc = model_open(cli, &w, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = pack(&w, cli->args[1], err);
    model_close(&w);
    return rc;
}

/* --- image --- */

static char *try_path(char *path_take)
{
    if (at_file_exists(path_take)) {
        return path_take;
    }
    at_free(path_take);
    return NULL;
}

#define IMAGE_FILES_MAX 1024

struct image_files {
    struct at_pkg_image_file items[IMAGE_FILES_MAX];
    size_t n;
};

static void add_file(struct image_files *f, char *from_take, char *to_take)
{
    for (size_t i = 0; i < f->n; i++) {
        if (strcmp(f->items[i].to, to_take) == 0 || f->n == IMAGE_FILES_MAX) {
            at_free(from_take);
            at_free(to_take);
            return;
        }
    }
    f->items[f->n++] = (struct at_pkg_image_file){from_take, to_take};
}

/* The engine's library, or all of its folder, to where runners look last. Opened here too, so that
 * what they need in turn is among what is loaded. */
static enum at_rc add_engine(struct image_files *f, const char *runner, struct at_err *err)
{
    static const struct runner_library ONNX = {.variable = "ATOLL_ONNXRUNTIME",
                                               .name = "libonnxruntime.so.1",
                                               .third_party = "onnxruntime/lib/libonnxruntime.so.1",
                                               .try_take = try_path};
    static const struct runner_library LLAMA = {.variable = "ATOLL_LLAMA",
                                                .name = "llama",
                                                .third_party = "llama/lib",
                                                .try_take = try_path};
    bool llm = at_streq(runner, "llm");
    AT_CLEANUP(at_cleanup_free) char *path = runner_library_find(llm ? &LLAMA : &ONNX);
    char **names = NULL;
    size_t n = 0;
    if (path == NULL) {
        return at_err_set(
            err, AT_NOT_FOUND,
            "the engine's library is not here, and the image needs it: name it by $%s",
            llm ? LLAMA.variable : ONNX.variable);
    }
    if (!llm) {
        (void)dlopen(path, RTLD_LAZY | RTLD_LOCAL);
        add_file(f, at_strdup(path), at_strdup("/usr/lib/atoll/libonnxruntime.so.1"));
        return AT_OK;
    }
    enum at_rc rc = at_dir_list(path, &names, &n, err);
    for (size_t i = 0; i < n; i++) {
        char *file = at_asprintf("%s/%s", path, names[i]);
        if (strstr(names[i], ".so") != NULL) {
            (void)dlopen(file, RTLD_LAZY | RTLD_LOCAL);
            add_file(f, file, at_asprintf("/usr/lib/atoll/llama/%s", names[i]));
        } else {
            at_free(file);
        }
        at_free(names[i]);
    }
    at_free(names);
    return rc;
}

static void add_loaded(struct image_files *f)
{
    struct at_pkg_image_file *loaded = NULL;
    size_t n = 0, engine = f->n;
    at_pkg_loaded_libraries(&loaded, &n);
    for (size_t i = 0; i < n; i++) {
        bool known = false;
        for (size_t k = 0; k < engine && !known; k++) {
            known = strcmp(f->items[k].from, loaded[i].from) == 0;
        }
        if (known) {
            at_free(loaded[i].from);
            at_free(loaded[i].to);
        } else {
            add_file(f, loaded[i].from, loaded[i].to);
        }
    }
    at_free(loaded);
}

static enum at_rc runner_of(struct model_work *w, const char *digest, const char **ret,
                            struct at_err *err)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    struct at_pkg_manifest m = {0};
    enum at_rc rc = at_pkg_store_read(w->store, digest, PKG_DOCUMENT_BYTES_MAX, &text, err);
    rc = rc != AT_OK ? rc : at_pkg_manifest_parse(text.data, text.len, arena, &m, err);
    if (rc == AT_OK) {
        const json_t *notes = json_object_get(m.json, "annotations");
        const char *runner = json_string_value(json_object_get(notes, "dev.atoll.model.runner"));
        *ret = at_arena_strdup(w->cli->arena, runner != NULL ? runner : "");
    }
    at_pkg_manifest_done(&m);
    return rc;
}

enum at_rc model_image(struct model_work *w, const char *digest, const char *name,
                       struct at_err *err)
{
    struct cli *cli = w->cli;
    struct image_files *files = AT_NEW(struct image_files);
    struct at_machine machine;
    char base[AT_PKG_DIGEST_BYTES], made[AT_PKG_DIGEST_BYTES];
    const char *runner = "", *base_name = cli_value(cli, OPT_BASE, NULL);
    AT_CLEANUP(at_cleanup_free) char *program = at_sys_self_exe();
    at_machine_read(&machine);
    enum at_rc rc = runner_of(w, digest, &runner, err);
    if (rc == AT_OK && runner[0] == '\0') {
        rc = at_err_set(err, AT_UNSUPPORTED,
                        AT_PKG_YAML " names no runner (onnx or llm), so the "
                                    "image would have nothing to start");
    }
    if (rc == AT_OK && base_name != NULL && model_find(w, base_name, base, NULL) != AT_OK) {
        rc = model_fetch(w, base_name, NULL, base, err);
    }
    rc = rc != AT_OK ? rc : add_engine(files, runner, err);
    if (rc == AT_OK) {
        add_loaded(files);
        struct at_pkg_image image = {.model_digest = digest,
                                     .base_digest = base_name != NULL ? base : NULL,
                                     .program = program,
                                     .files = files->items,
                                     .n_files = files->n,
                                     .architecture =
                                         strcmp(machine.arch, "x86_64") == 0 ? "amd64" : "arm64"};
        rc = at_pkg_image_make(w->store, &image, made, err);
    }
    rc = rc != AT_OK ? rc : model_name(w, name, made, err);
    if (rc == AT_OK) {
        fputs("image ", cli->env->out);
        cli_print_text(cli->env->out, name);
        fprintf(cli->env->out, "@%s, %s\n", made, model_bytes(cli, size_of(w, made)));
    }
    for (size_t i = 0; i < files->n; i++) {
        at_free(files->items[i].from);
        at_free(files->items[i].to);
    }
    at_free(files);
    return rc;
}

/* --- list, remove --- */

static json_t *list_json(struct model_work *w, const struct at_pkg_index *index)
{
    json_t *list = json_array();
    for (size_t i = 0; i < index->n_manifests; i++) {
        const struct at_pkg_descriptor *d = &index->manifests[i];
        const char *name = at_pkg_note(d, AT_PKG_NOTE_NAME);
        bool model = at_streq(d->artifact_type, AT_PKG_TYPE_MODEL);
        bool signature = name != NULL && strncmp(name, "sha256-", 7) == 0;
        if (!signature) {
            json_array_append_new(list,
                                  json_pack("{s:s,s:s,s:s,s:I}", "name", name != NULL ? name : "",
                                            "digest", d->digest, "type", model ? "model" : "image",
                                            "size", (json_int_t)size_of(w, d->digest)));
        }
    }
    return list;
}

static void list_table(const struct cli *cli, const json_t *list)
{
    struct cli_table table;
    size_t i;
    const json_t *row;
    cli_table_init(&table, cli->arena, 4);
    static const char *const HEAD[] = {"NAME", "TYPE", "SIZE", "DIGEST"};
    for (size_t k = 0; k < AT_ARRAY_LEN(HEAD); k++) {
        cli_table_add(&table, HEAD[k]);
    }
    json_array_foreach(list, i, row)
    {
        cli_table_add(&table, at_json_str_at(row, "name", ""));
        cli_table_add(&table, at_json_str_at(row, "type", ""));
        cli_table_add(&table, model_bytes(cli, at_json_int_at(row, "size", 0)));
        cli_table_add(&table, at_json_str_at(row, "digest", ""));
    }
    cli_table_print(cli, &table, !cli_flag(cli, OPT_NO_HEADERS));
}

enum at_rc model_list(struct cli *cli, struct at_err *err)
{
    struct model_work w;
    struct at_pkg_index index = {0};
    enum cli_format format;
    enum at_rc rc = cli_format_of(cli, &format, err);
    rc = rc != AT_OK ? rc : model_open(cli, &w, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = at_pkg_store_index(w.store, cli->arena, &index, err);
    if (rc == AT_OK) {
        AT_CLEANUP(at_cleanup_json) json_t *list = list_json(&w, &index);
        if (format == CLI_TABLE || format == CLI_WIDE) {
            list_table(cli, list);
        } else if (format == CLI_NAME) {
            size_t i;
            const json_t *row;
            json_array_foreach(list, i, row)
            {
                cli_print_text(cli->env->out, at_json_str_at(row, "name", ""));
                fputc('\n', cli->env->out);
            }
        } else {
            AT_CLEANUP(at_cleanup_json) json_t *whole = json_pack("{s:O}", "items", list);
            rc = cli_print_value(cli, format, whole, err);
        }
    }
    at_pkg_index_done(&index);
    model_close(&w);
    return rc;
}

enum at_rc model_remove(struct cli *cli, struct at_err *err)
{
    struct model_work w;
    int64_t freed = 0;
    enum at_rc rc = model_open(cli, &w, err);
    if (rc != AT_OK) {
        return rc;
    }
    for (size_t i = 1; i < cli->n_args && rc == AT_OK; i++) {
        rc = at_pkg_store_unname(w.store, cli->args[i], err);
        if (rc == AT_OK) {
            fputs("removed ", cli->env->out);
            cli_print_text(cli->env->out, cli->args[i]);
            fputc('\n', cli->env->out);
        }
    }
    at_pkg_store_part_done(w.use); /* we are no longer among those who add */
    w.use = -1;
    if (rc == AT_OK) {
        rc = at_pkg_store_collect(w.store, &freed, err);
        if (rc == AT_OK) {
            fprintf(cli->env->out, "freed %s\n", model_bytes(cli, freed));
        } else if (rc == AT_AGAIN) {
            fputs("note: another atoll model adds packages now; the next rm frees the space\n",
                  cli->env->err);
            rc = AT_OK;
        }
    }
    model_close(&w);
    return rc;
}
