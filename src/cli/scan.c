/* scan: files, folders, standard input, and what the server holds, against the rules of src/scan.
 */
#include "cli/scan_priv.h"
#include "core/str.h"
#include "sys/file.h"
#include "sys/sys.h"

#include <string.h>

#define DOCS_MAX 100000
#define FILES_MAX 10000
#define FOLDER_DEPTH_MAX 32

static void run_done(struct scan_run *run)
{
    for (size_t i = 0; i < run->n; i++) {
        json_decref(run->docs[i].object);
    }
    for (size_t i = 0; i < run->n_texts; i++) {
        at_buf_done(&run->texts[i]);
    }
    at_free(run->docs);
    at_free(run->texts);
    at_free(run->doc_of);
    at_scan_result_done(&run->result);
}

static enum at_rc doc_add(struct scan_run *run, struct scan_doc doc, struct at_err *err)
{
    if (!json_is_object(doc.object) || !json_is_string(json_object_get(doc.object, "kind")) ||
        !json_is_string(json_object_get(doc.object, "apiVersion"))) {
        run->other++;
        return AT_OK;
    }
    if (run->n == DOCS_MAX) {
        return at_err_set(err, AT_TOO_LARGE, "more than %d objects: scan them in parts", DOCS_MAX);
    }
    if (run->n == run->room) {
        run->room = run->room * 2 + 16;
        run->docs = at_realloc(run->docs, run->room * sizeof *run->docs);
    }
    json_incref(doc.object);
    run->docs[run->n++] = doc;
    return AT_OK;
}

/* --- files --- */

static enum at_rc file_load(struct scan_run *run, const char *path, struct at_err *err)
{
    if (run->n_texts == FILES_MAX) {
        return at_err_set(err, AT_TOO_LARGE, "more than %d files: scan them in parts", FILES_MAX);
    }
    if (run->n_texts == run->room_texts) {
        run->room_texts = run->room_texts * 2 + 16;
        run->texts = at_realloc(run->texts, run->room_texts * sizeof *run->texts);
    }
    struct at_buf *text = &run->texts[run->n_texts];
    *text = (struct at_buf){.max = CLI_FILE_BYTES_MAX};
    run->n_texts++;
    run->files++;
    struct at_yaml_doc *docs = NULL;
    size_t count = 0;
    enum at_rc rc = cli_read(run->cli, path, CLI_FILE_BYTES_MAX, text, err);
    if (rc == AT_OK) {
        rc = at_yaml_parse(text->data != NULL ? text->data : "", text->len, &docs, &count, err);
    }
    if (rc != AT_OK && strcmp(path, "-") != 0 && strstr(err->msg, path) == NULL) {
        at_err_wrap(err, rc, "%s", path);
    }
    for (size_t i = 0; i < count && rc == AT_OK; i++) {
        rc = doc_add(run,
                     (struct scan_doc){docs[i].value, at_arena_strdup(run->cli->arena, path),
                                       docs[i].line, run->n_texts - 1},
                     err);
    }
    at_yaml_docs_free(docs, count);
    return rc;
}

static bool is_manifest(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL &&
           (at_streq(dot, ".yaml") || at_streq(dot, ".yml") || at_streq(dot, ".json"));
}

/* One file that cannot be read does not hide what is in the others. */
static void file_tried(struct scan_run *run, const char *path)
{
    struct at_err err = {0};
    err.rc = file_load(run, path, &err);
    if (err.rc != AT_OK) {
        run->failed++;
        cli_report(run->cli, &err);
    }
}

static bool folder_tried(struct scan_run *run, const char *path, unsigned depth)
{
    char **names = NULL;
    size_t count = 0;
    if (depth > FOLDER_DEPTH_MAX || at_dir_list(path, &names, &count, NULL) != AT_OK) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(path);
        AT_CLEANUP(at_cleanup_free)
        char *below =
            at_asprintf("%s%s%s", path, len > 0 && path[len - 1] == '/' ? "" : "/", names[i]);
        /* Folders that begin with a dot are tools' own. */
        if (names[i][0] != '.' && !folder_tried(run, below, depth + 1) && is_manifest(names[i])) {
            file_tried(run, below);
        }
        at_free(names[i]);
    }
    at_free(names);
    return true;
}

static void paths_load(struct scan_run *run)
{
    const struct cli_values *files = &run->cli->values[OPT_FILE];
    for (size_t i = 0; i < files->n + run->cli->n_args; i++) {
        const char *path = i < files->n ? files->items[i] : run->cli->args[i - files->n];
        size_t before = run->files;
        if (at_streq(path, "-") || !folder_tried(run, path, 0)) {
            file_tried(run, path);
        } else if (run->files == before) { /* a mistyped path must not pass a pipeline */
            struct at_err err = {0};
            err.rc = at_err_set(&err, AT_NOT_FOUND, "no .yaml, .yml or .json file in the folder %s",
                                path);
            run->failed++;
            cli_report(run->cli, &err);
        }
    }
}

/* --- the live state --- */

/* Copies, reports and records say nothing that their makers do not. */
static bool is_of_interest(const struct at_model_kind *kind)
{
    static const struct at_model_kind *const NOT[] = {&AT_KIND_EVENT, &AT_KIND_LEASE, &AT_KIND_NODE,
                                                      &AT_KIND_GATEWAY_REPORT};
    for (size_t i = 0; i < AT_ARRAY_LEN(NOT); i++) {
        if (NOT[i] == kind) {
            return false;
        }
    }
    return true;
}

static enum at_rc kind_load(struct scan_run *run, const struct at_model_kind *kind,
                            struct at_err *err)
{
    json_t *items = NULL;
    enum at_rc rc = cli_list(run->cli, kind, NULL, &items, err);
    if (rc == AT_FORBIDDEN) {
        fprintf(run->cli->env->err, "note: %s were not looked at: you may not list them\n",
                kind->plural);
        run->refused++;
        return AT_OK;
    }
    size_t i;
    json_t *item;
    json_array_foreach(items, i, item)
    {
        if (rc == AT_OK) {
            json_object_set_new(item, "apiVersion", json_string(kind->api_version));
            json_object_set_new(item, "kind", json_string(kind->kind));
            rc = doc_add(run, (struct scan_doc){.object = item}, err);
        }
    }
    json_decref(items);
    return rc;
}

static enum at_rc live_load(struct scan_run *run, struct at_err *err)
{
    size_t count;
    const struct at_model_kind *const *kinds = at_model_kinds(&count);
    enum at_rc rc = cli_connect(run->cli, err);
    if (rc == AT_OK) {
        AT_CLEANUP(at_cleanup_json) json_t *connection = scan_connection(run->cli);
        rc = doc_add(run, (struct scan_doc){.object = connection}, err);
    }
    if (rc == AT_OK && cli_value(run->cli, OPT_NAMESPACE, NULL) == NULL) {
        run->cli->ns = NULL; /* everywhere */
    }
    size_t asked = 0;
    for (size_t i = 0; i < count && rc == AT_OK; i++) {
        if (is_of_interest(kinds[i])) {
            rc = kind_load(run, kinds[i], err);
            asked++;
        }
    }
    if (rc == AT_OK && asked > 0 && run->refused == asked) { /* that is not "no findings" */
        rc = at_err_set(err, AT_FORBIDDEN, "nothing could be looked at%s",
                        run->cli->ns == NULL ? ": you may list nothing in all namespaces; name one "
                                               "with --namespace"
                                             : "");
    }
    return rc;
}

/* --- looking --- */

/* The findings of each document, then all by severity; doc_of keeps which document each is of. */
static void look(struct scan_run *run)
{
    struct at_scan_world *world = at_scan_world_new();
    for (size_t i = 0; i < run->n; i++) {
        at_scan_world_add(world, run->docs[i].object);
    }
    int64_t now = at_sys_wall_ns(run->cli->env->sys);
    size_t *ends = at_alloc((run->n + 1) * sizeof *ends);
    for (size_t i = 0; i < run->n; i++) {
        at_scan_object(&(struct at_scan_input){.object = run->docs[i].object,
                                               .world = world,
                                               .now_wall_ns = now,
                                               .from_file = run->docs[i].file != NULL},
                       &run->result);
        ends[i] = run->result.n;
    }
    /* The same stable order as at_scan_sort. */
    run->doc_of = at_alloc((run->result.n + 1) * sizeof *run->doc_of);
    size_t n = 0;
    for (int s = AT_SCAN_SEVERITIES - 1; s >= 0; s--) {
        size_t doc = 0;
        for (size_t i = 0; i < run->result.n; i++) {
            while (doc < run->n && i >= ends[doc]) {
                doc++;
            }
            if ((int)run->result.items[i].severity == s) {
                run->doc_of[n++] = doc;
            }
        }
    }
    at_scan_sort(&run->result);
    at_free(ends);
    at_scan_world_free(world);
}

struct scan_place scan_place_of(const struct scan_run *run, size_t finding)
{
    const struct at_scan_finding *f = &run->result.items[finding];
    const struct scan_doc *doc = &run->docs[run->doc_of[finding]];
    struct scan_place place = {
        .file = doc->file == NULL          ? NULL
                : at_streq(doc->file, "-") ? "stdin"
                                           : doc->file,
        .kind = at_json_str_at(f->object, "kind", ""),
        .ns = at_json_str_at(f->object, "metadata.namespace", ""),
        .name = at_json_str_at(f->object, "metadata.name", ""),
    };
    if (doc->file != NULL) {
        const struct at_buf *text = &run->texts[doc->text];
        place.line = at_yaml_find_line(text->data, text->len, doc->line, f->field);
    }
    return place;
}

static enum at_rc print(const struct scan_run *run, const char *format, struct at_err *err)
{
    json_t *value = NULL;
    if (at_streq(format, "")) {
        scan_print_text(run);
    } else if (at_streq(format, "wide")) {
        scan_print_wide(run);
    } else if (at_streq(format, "name")) {
        scan_print_names(run);
    } else {
        bool sarif = at_streq(format, "sarif");
        value = sarif ? scan_sarif(run) : scan_json(run);
        enum at_rc rc =
            cli_print_value(run->cli, at_streq(format, "yaml") ? CLI_YAML : CLI_JSON, value, err);
        json_decref(value);
        return rc;
    }
    return AT_OK;
}

static enum at_rc format_check(const char *format, bool rules, struct at_err *err)
{
    static const char *const FORMATS[] = {"", "json", "yaml", "wide", "name"};
    for (size_t i = 0; i < AT_ARRAY_LEN(FORMATS); i++) {
        if (at_streq(format, FORMATS[i])) {
            return AT_OK;
        }
    }
    if (at_streq(format, rules ? "markdown" : "sarif")) {
        return AT_OK;
    }
    return at_err_set(err, AT_BAD_REQUEST,
                      "unknown output \"%s\": choose json, yaml, wide, name or %s", format,
                      rules ? "markdown" : "sarif");
}

static enum at_rc scanned(struct scan_run *run, const char *format, bool never,
                          enum at_scan_severity least, struct at_err *err)
{
    paths_load(run);
    enum at_rc rc = cli_flag(run->cli, OPT_LIVE) ? live_load(run, err) : AT_OK;
    if (rc != AT_OK) {
        return rc;
    }
    look(run);
    rc = print(run, format, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (run->failed > 0) {
        return at_err_set(err, AT_BAD_REQUEST, "%zu of what was named could not be looked at",
                          run->failed);
    }
    run->cli->exit_status = !never && at_scan_count(&run->result, least) > 0 ? 1 : 0;
    return AT_OK;
}

enum at_rc cli_scan(struct cli *cli, struct at_err *err)
{
    const char *format = cli_value(cli, OPT_OUTPUT, "");
    const char *fail_on = cli_value(cli, OPT_FAIL_ON, "high");
    bool rules = cli_flag(cli, OPT_RULES), never = at_streq(fail_on, "none");
    enum at_scan_severity least = AT_SCAN_HIGH;
    enum at_rc rc = format_check(format, rules, err);
    if (rc != AT_OK || rules) {
        return rc != AT_OK ? rc : scan_print_rules(cli, err);
    }
    if (!never && !at_scan_severity_parse(fail_on, &least)) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "--fail-on %s: choose low, medium, high, critical or none", fail_on);
    }
    if (cli->n_args + cli->values[OPT_FILE].n == 0 && !cli_flag(cli, OPT_LIVE)) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "say what to scan: FILE, FOLDER, - for standard input, or --live");
    }
    struct scan_run run = {.cli = cli};
    at_scan_result_init(&run.result);
    rc = scanned(&run, format, never, least, err);
    run_done(&run);
    return rc;
}
