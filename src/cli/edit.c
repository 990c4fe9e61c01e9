/* edit: an object in an editor, and back. What is wrong with it is told in comments at its top;
 * what others changed meanwhile is kept, unless it is the same field. */
#include "cli/fields.h"
#include "cli/program.h"
#include "core/str.h"
#include "sys/file.h"

#include <string.h>

#define ROUNDS_MAX 100
#define CONFLICTS_MAX 10

struct edit {
    struct cli *cli;
    const struct cli_target *target;
    const char *path, *ref; /* of the object at the server */
    char *dir;              /* own; of the file */
    const char *file;
    json_t *original;   /* own: as it was when the text was made */
    struct at_buf text; /* what the editor gave last; empty: none yet */
    struct at_buf why;  /* comment lines for the next round */
    bool json;
};

static const char HEADER[] =
    "# Edit the object below. Lines that begin with '#' are left out; an empty file means that\n"
    "# nothing is changed. If it is refused, it is opened again with what is wrong.\n#\n";

/* For people: without what only the server writes. */
static json_t *editable(const json_t *object)
{
    json_t *copy = json_deep_copy(object);
    json_object_del(json_object_get(copy, "metadata"), "managedFields");
    return copy;
}

/* Each line of message as a comment. */
static void explain_line(struct edit *e, const char *message)
{
    struct at_str rest = at_str_of(message);
    while (rest.len != 0) {
        struct at_str line = at_str_cut(&rest, '\n');
        (void)!at_buf_printf(&e->why, "# %.*s\n", (int)line.len, line.ptr);
    }
}

static enum at_rc write_file(struct edit *e, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    enum at_rc rc = at_buf_append_str(&out, HEADER);
    if (rc == AT_OK && e->why.len != 0) {
        rc = at_buf_append(&out, e->why.data, e->why.len);
        rc = rc == AT_OK ? at_buf_append_str(&out, "#\n") : rc;
    }
    if (rc == AT_OK && e->text.len != 0) {
        rc = at_buf_append(&out, e->text.data, e->text.len);
    } else if (rc == AT_OK) {
        AT_CLEANUP(at_cleanup_json) json_t *value = editable(e->original);
        rc = e->json ? at_json_dump_pretty(value, &out) : at_yaml_dump(value, &out);
        rc = rc == AT_OK && e->json ? at_buf_append_str(&out, "\n") : rc;
    }
    return rc == AT_OK ? at_file_write_atomic(e->file, out.data, out.len, 0600, err)
                       : at_err_set(err, rc, "the object is too large to be edited");
}

/* Without the comments at its top. */
static enum at_rc read_file(struct edit *e, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf all = {0};
    enum at_rc rc = at_file_read(e->file, CLI_FILE_BYTES_MAX, &all, err);
    struct at_str rest = {all.data, all.len};
    at_buf_clear(&e->text);
    while (rc == AT_OK && rest.len != 0 && rest.ptr[0] == '#') {
        (void)at_str_cut(&rest, '\n');
    }
    return rc == AT_OK ? at_buf_append(&e->text, rest.ptr != NULL ? rest.ptr : "", rest.len) : rc;
}

static enum at_rc open_editor(struct edit *e, struct at_err *err)
{
    static const char *const NAMES[] = {"ATOLL_EDITOR", "KUBE_EDITOR", "VISUAL", "EDITOR"};
    const char *editor = NULL;
    int code = 0;
    for (size_t i = 0; i < AT_ARRAY_LEN(NAMES) && (editor == NULL || editor[0] == '\0'); i++) {
        editor = at_sys_getenv(NAMES[i]);
    }
    editor = editor != NULL && editor[0] != '\0' ? editor : "vi";
    /* By a shell, for editors are given with options: "code --wait". */
    const char *line = at_arena_printf(e->cli->arena, "exec %s \"$1\"", editor);
    const char *argv[] = {"/bin/sh", "-c", line, "atoll-edit", e->file, NULL};
    enum at_rc rc = cli_program_run(e->cli, argv, 0, 1, &code, err);
    if (rc == AT_OK && code != 0) {
        rc = at_err_set(err, AT_INTERNAL,
                        "the editor \"%s\" ended with status %d, so nothing is changed%s", editor,
                        code, code == 127 ? "; name one in $EDITOR" : "");
    }
    return rc;
}

static bool is_blank(const struct at_buf *text)
{
    for (size_t i = 0; i < text->len; i++) {
        if (strchr(" \t\r\n", text->data[i]) == NULL) {
            return false;
        }
    }
    return true;
}

/* What the text says, as an object of the same name. */
static enum at_rc parse(struct edit *e, json_t **ret, struct at_err *err)
{
    static const char *const FIXED[] = {"apiVersion", "kind", "metadata.name", "metadata.namespace",
                                        "metadata.uid"};
    struct at_yaml_doc *docs = NULL;
    size_t count = 0;
    enum at_rc rc = at_yaml_parse(e->text.data, e->text.len, &docs, &count, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (count != 1 || !json_is_object(docs[0].value)) {
        rc =
            at_err_set(err, AT_BAD_REQUEST, "one object is wanted, there are %zu documents", count);
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(FIXED) && rc == AT_OK; i++) {
        const char *was = at_json_str_at(e->original, FIXED[i], "");
        if (strcmp(at_json_str_at(docs[0].value, FIXED[i], ""), was) != 0) {
            rc = at_err_set(err, AT_INVALID, "%s cannot be changed here: it is \"%s\"", FIXED[i],
                            was);
        }
    }
    if (rc == AT_OK) {
        *ret = json_incref(docs[0].value);
    }
    at_yaml_docs_free(docs, count);
    return rc;
}

/* The merge patch from one to the other; NULL values take fields out. */
static json_t *patch_between(const json_t *from, const json_t *to)
{
    AT_CLEANUP(at_cleanup_json) json_t *a = editable(from);
    AT_CLEANUP(at_cleanup_json) json_t *b = editable(to);
    json_object_del(json_object_get(a, "metadata"), "resourceVersion");
    json_object_del(json_object_get(b, "metadata"), "resourceVersion");
    return cli_merge3(a, b, a);
}

/* Do two patches touch the same field in different ways? Its path into where. */
static bool collide(struct edit *e, const json_t *mine, const json_t *theirs, const char *at,
                    const char **where)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)mine, key, value)
    {
        const json_t *other = json_object_get(theirs, key);
        const char *path =
            at_arena_printf(e->cli->arena, "%s%s%s", at, at[0] != '\0' ? "." : "", key);
        if (other == NULL || json_equal(value, other)) {
            continue;
        }
        if (json_is_object(value) && json_is_object(other)) {
            if (collide(e, value, other, path, where)) {
                return true;
            }
            continue;
        }
        *where = path;
        return true;
    }
    return false;
}

/* The text of the object as it is now, with what was edited. */
static enum at_rc text_anew(struct edit *e, const json_t *patch, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *merged = at_json_merge_patch(editable(e->original), patch);
    at_buf_clear(&e->text);
    enum at_rc rc =
        e->json ? at_json_dump_pretty(merged, &e->text) : at_yaml_dump(merged, &e->text);
    return rc == AT_OK ? rc : at_err_set(err, rc, "the object is too large to be edited");
}

/* Somebody was faster. *ret_again: the text is to be opened once more, for both changed a field. */
static enum at_rc rebase(struct edit *e, const json_t *patch, bool *ret_again, struct at_err *err)
{
    json_t *live = NULL;
    const char *where = NULL;
    enum at_rc rc = cli_call(e->cli, AT_HTTP_GET, e->path, NULL, NULL, NULL, &live, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *theirs = patch_between(e->original, live);
    json_object_del(theirs, "status");
    at_json_set_at(theirs, "metadata.generation", NULL);
    *ret_again = collide(e, patch, theirs, "", &where);
    if (*ret_again) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf now = {0};
        const json_t *value = at_json_at(live, where);
        if (value == NULL || at_json_dump(value, &now) != AT_OK) {
            at_buf_clear(&now);
        }
        explain_line(e, at_arena_printf(e->cli->arena,
                                        "error: %s was changed by somebody else meanwhile; it is "
                                        "now %.200s. Save to have it your way.",
                                        where, now.len != 0 ? now.data : "not set"));
    }
    json_decref(e->original);
    e->original = live;
    return text_anew(e, patch, err);
}

static enum at_rc send_patch(struct edit *e, const json_t *patch, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *body = json_deep_copy(patch);
    at_json_set_at(body, "metadata.resourceVersion",
                   json_string(at_json_str_at(e->original, "metadata.resourceVersion", "")));
    const char *pairs[] = {"fieldManager", "atoll-edit", "fieldValidation", "Strict", NULL};
    return cli_call(e->cli, AT_HTTP_PATCH, cli_query(e->cli, e->path, pairs),
                    "application/merge-patch+json", NULL, body, NULL, err);
}

/* *ret_done: it is at the server. Else the text is opened again, with why. */
static enum at_rc send(struct edit *e, json_t *edited, bool *ret_done, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *patch = patch_between(e->original, edited);
    enum at_rc rc = AT_CONFLICT;
    bool again = false;
    for (int i = 0; i < CONFLICTS_MAX && rc == AT_CONFLICT && !again; i++) {
        *err = (struct at_err){0};
        rc = send_patch(e, patch, err);
        if (rc == AT_CONFLICT) {
            rc = rebase(e, patch, &again, err);
            rc = rc == AT_OK ? AT_CONFLICT : rc;
        }
    }
    *ret_done = rc == AT_OK;
    if (again) {
        return AT_OK;
    }
    if (rc == AT_INVALID || rc == AT_BAD_REQUEST) {
        explain_line(e, at_arena_printf(e->cli->arena, "error: %s%s%s", err->field,
                                        err->field[0] != '\0' ? ": " : "", err->msg));
        return AT_OK;
    }
    return rc;
}

/* Kept for the user when it cannot be had at the server. */
static void keep_copy(struct edit *e)
{
    if (e->text.len != 0) {
        fprintf(e->cli->env->err, "your text is kept in %s\n", e->file);
        at_free(e->dir);
        e->dir = NULL;
    }
}

static enum at_rc rounds(struct edit *e, bool *ret_changed, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf before = {0};
    for (int round = 0; round < ROUNDS_MAX; round++) {
        bool had_errors = e->why.len != 0;
        json_t *edited = NULL;
        struct at_err wrong = {0};
        bool done = false;
        at_buf_clear(&before);
        enum at_rc rc = write_file(e, err);
        if (rc == AT_OK && e->text.len != 0) {
            rc = at_buf_append(&before, e->text.data, e->text.len);
        }
        rc = rc == AT_OK ? open_editor(e, err) : rc;
        rc = rc == AT_OK ? read_file(e, err) : rc;
        if (rc != AT_OK) {
            return rc;
        }
        bool same = before.len == e->text.len &&
                    (before.len == 0 || memcmp(before.data, e->text.data, before.len) == 0);
        bool conflict = had_errors && strstr(e->why.data, "somebody else") != NULL;
        if (is_blank(&e->text) || (had_errors && same && !conflict)) {
            return had_errors
                       ? at_err_set(err, AT_INVALID, "cancelled: what is wrong was not changed")
                       : AT_OK;
        }
        at_buf_clear(&e->why);
        rc = parse(e, &edited, &wrong);
        if (rc != AT_OK) {
            explain_line(e, at_arena_printf(e->cli->arena, "error: %s", wrong.msg));
            continue;
        }
        AT_CLEANUP(at_cleanup_json) json_t *patch = patch_between(e->original, edited);
        if (json_object_size(patch) == 0) {
            json_decref(edited);
            return AT_OK;
        }
        rc = send(e, edited, &done, err);
        json_decref(edited);
        if (rc != AT_OK || done) {
            *ret_changed = done;
            return rc;
        }
    }
    return at_err_set(err, AT_INVALID, "given up after %d rounds", ROUNDS_MAX);
}

static enum at_rc edit_one(struct cli *cli, const struct cli_target *target, bool json,
                           struct at_err *err)
{
    struct edit e = {.cli = cli, .target = target, .json = json};
    bool changed = false;
    e.path = cli_path(cli, target->kind, target->name, NULL);
    e.ref = cli_ref(cli, target->kind, target->name);
    enum at_rc rc = cli_call(cli, AT_HTTP_GET, e.path, NULL, NULL, NULL, &e.original, err);
    if (rc == AT_OK) {
        rc = at_dir_make_temp("atoll-edit", &e.dir, err);
    }
    if (rc == AT_OK) {
        e.file =
            at_arena_printf(cli->arena, "%s/%s.%s", e.dir, target->name, json ? "json" : "yaml");
        rc = rounds(&e, &changed, err);
        if (rc != AT_OK) {
            keep_copy(&e);
        } else {
            fprintf(cli->env->out, changed ? "%s edited\n" : "%s is not changed\n", e.ref);
        }
    }
    if (e.dir != NULL) {
        (void)!at_tree_remove(e.dir, NULL);
    }
    at_free(e.dir);
    json_decref(e.original);
    at_buf_done(&e.text);
    at_buf_done(&e.why);
    return rc;
}

enum at_rc cli_edit(struct cli *cli, struct at_err *err)
{
    struct cli_target *targets = NULL;
    size_t n = 0;
    enum cli_format format;
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc == AT_OK && format != CLI_TABLE && format != CLI_YAML && format != CLI_JSON) {
        rc = at_err_set(err, AT_BAD_REQUEST, "edit as yaml or json");
    }
    if (rc == AT_OK) {
        rc = cli_connect(cli, err);
    }
    if (rc == AT_OK) {
        rc = cli_targets(cli, cli->args, cli->n_args, true, &targets, &n, err);
    }
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        rc = edit_one(cli, &targets[i], format == CLI_JSON, err);
    }
    return rc;
}
