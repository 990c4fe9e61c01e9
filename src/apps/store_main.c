/* The role `atoll store`: a store looked at and moved while no server uses it. */
#include "apps/apps.h"
#include "apps/move.h"
#include "core/mem.h"
#include "core/str.h"
#include "state/check.h"
#include "store/check.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

#define ROLE "store"
#define PIECE_BYTES ((size_t)1 << 20)

struct args {
    struct at_app_place place;
    const char *file; /* NULL: of check */
    int64_t step;
};

/* --- export --- */

static enum at_rc piece_write(struct at_file_writer *file, struct at_buf *piece, struct at_err *err)
{
    enum at_rc rc = at_file_writer_write(file, piece->data, piece->len, err);
    at_buf_clear(piece);
    return rc;
}

static enum at_rc dump_write(const struct at_store_snapshot *all, int64_t compact_rev,
                             struct at_file_writer *file, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf piece = {0};
    struct at_dump_writer *w = NULL;
    enum at_rc rc = at_dump_writer_new(at_store_snapshot_rev(all), compact_rev, &piece, &w);
    for (size_t i = 0; i < at_store_snapshot_count(all) && rc == AT_OK; i++) {
        struct at_store_kv kv = at_store_snapshot_at(all, i);
        rc = at_dump_write_key(w, &kv);
        if (rc == AT_OK && piece.len >= PIECE_BYTES) {
            rc = piece_write(file, &piece, err);
        }
    }
    if (rc == AT_OK) {
        rc = at_dump_write_end(w);
    }
    at_dump_writer_free(w);
    return rc == AT_OK ? piece_write(file, &piece, err) : rc;
}

static enum at_rc store_open(const struct at_app_place *place, struct at_loop *loop,
                             struct at_store **ret, struct at_err *err)
{
    if (place->file && !at_file_exists(place->path)) {
        return at_err_set(err, AT_NOT_FOUND, "there is no store %s", place->path);
    }
    enum at_rc rc = at_store_open(place->store, place->path, loop, ret, err);
    return rc == AT_CONFLICT
               ? at_err_wrap(err, rc, "a server uses it (atoll backup works with a live one)")
               : rc;
}

static enum at_rc export_run(const struct args *a, struct at_err *err)
{
    struct at_loop *loop = at_loop_new(at_sys_real());
    struct at_store *store = NULL;
    struct at_file_writer *file = NULL;
    enum at_rc rc = store_open(&a->place, loop, &store, err);
    if (rc == AT_OK) {
        rc = at_file_writer_new(a->file, 0600, &file, err);
    }
    if (rc == AT_OK) {
        struct at_store_snapshot *all = at_store_snapshot_new(store);
        rc = dump_write(all, at_store_compact_rev(store), file, err);
        if (rc == AT_OK) {
            rc = at_file_writer_commit(file, err);
        }
        if (rc == AT_OK) {
            fprintf(stderr, "exported %zu keys at revision %lld\n", at_store_snapshot_count(all),
                    (long long)at_store_snapshot_rev(all));
        }
        at_store_snapshot_free(all);
    }
    at_file_writer_free(file);
    at_store_close(store);
    at_loop_free(loop);
    return rc;
}

/* --- import --- */

static enum at_rc import_run(const struct args *a, struct at_err *err)
{
    struct at_app_dump dump = {.path = a->file};
    struct at_dump_summary summary;
    int64_t rev = 0;
    enum at_rc rc = at_app_dump_read(&dump, NULL, &summary, err);
    if (rc == AT_OK) {
        rc = at_app_fill(&a->place, &dump, &summary, a->step, &rev, err);
    }
    if (rc == AT_OK) {
        fprintf(stderr, "imported %zu keys; the revision was %lld and is %lld\n", summary.keys,
                (long long)summary.head.rev, (long long)rev);
    }
    if (rc == AT_OK && summary.files != 0) {
        fputs("note: this is a backup; its certificate authority was left out, which only atoll "
              "restore puts back\n",
              stderr);
    }
    at_app_dump_done(&dump);
    return rc;
}

/* --- check --- */

struct findings {
    size_t problems, notes;
};

static void on_object(void *ctx, bool note, const char *text)
{
    struct findings *f = ctx;
    f->problems += !note;
    f->notes += note;
    printf("%s: %s\n", note ? "note" : "problem", text);
}

static void on_store(void *ctx, const char *problem)
{
    on_object(ctx, false, problem);
}

static enum at_rc check_run(const struct args *a, struct at_err *err)
{
    struct findings f = {0};
    struct at_state_checked seen = {0};
    struct at_loop *loop = at_loop_new(at_sys_real());
    struct at_store *store = NULL;
    int64_t rev = 0;
    enum at_rc rc =
        at_store_check(a->place.file ? "sqlite" : a->place.store, a->place.path, on_store, &f, err);
    if (rc == AT_OK && f.problems == 0) {
        rc = store_open(&a->place, loop, &store, err);
        if (rc == AT_CORRUPT) {
            on_store(&f, err->msg);
            rc = AT_OK;
        }
    }
    if (store != NULL) {
        at_state_check(store, on_object, &f, &seen);
        rev = at_store_rev(store);
        at_store_close(store);
    }
    at_loop_free(loop);
    if (rc != AT_OK) {
        return rc;
    }
    if (f.problems != 0) {
        return at_err_set(err, AT_CORRUPT, "%zu problems, %zu notes", f.problems, f.notes);
    }
    printf("sound: %zu keys, %zu objects at revision %lld; %zu notes\n", seen.keys, seen.objects,
           (long long)rev, f.notes);
    return AT_OK;
}

/* --- the words --- */

static const struct action {
    const char *name;
    const char *summary;
    bool file;
    enum at_rc (*run)(const struct args *a, struct at_err *err);
} ACTIONS[] = {
    {"export", "write all of a store into FILE (- for standard output), while no server uses it",
     true, export_run},
    {"import", "fill a new store from FILE (- for standard input); revisions go on above the old",
     true, import_run},
    {"check", "look for damage: the database, its history, every object; exit 1 with a list", false,
     check_run},
};

static int usage(FILE *out)
{
    fputs("atoll store: look at a store and move it, while no server uses it\n\nUsage:\n", out);
    for (size_t i = 0; i < AT_ARRAY_LEN(ACTIONS); i++) {
        fprintf(out, "  atoll store %s%s [options]\n      %s\n", ACTIONS[i].name,
                ACTIONS[i].file ? " FILE|-" : "", ACTIONS[i].summary);
    }
    fputs("\nOptions (atoll store export --help):\n"
          "  --store KIND  sqlite (default) or etcd:http://HOST:PORT, as of atoll server\n"
          "  --state DIR   state folder of the server (default ~/.local/state/atoll/server)\n"
          "  --step N      import: raise the revision by so much more (default 0)\n",
          out);
    return out == stdout ? 0 : at_rc_exit_status(AT_BAD_REQUEST);
}

static int action_run(const struct action *action, int argc, char **argv)
{
    const char *store = "sqlite";
    const char *dir = NULL;
    const char *step = NULL;
    char role[32];
    struct at_err err = {0};
    struct args a = {0};
    int exit_status = 0;
    const struct at_app_option options[] = {
        {"store", &store, NULL, NULL, "KIND",
         "sqlite (default) or etcd:http://HOST:PORT, as of atoll server."},
        {"state", &dir, NULL, NULL, "DIR",
         "State folder of the server (default ~/.local/state/atoll/server)."},
        {"step", &step, NULL, NULL, "N", "import: raise the revision by so much more (default 0)."},
        {NULL, NULL, NULL, NULL, NULL, NULL}};
    snprintf(role, sizeof role, ROLE " %s", action->name);
    if (action->file && argc > 0 && strncmp(argv[0], "--", 2) != 0) {
        a.file = argv[0];
        argc--;
        argv++;
    }
    if (!at_app_options(role, action->summary, options, argc, argv, &exit_status)) {
        return exit_status;
    }
    enum at_rc rc = AT_OK;
    if (action->file && a.file == NULL) {
        rc = at_err_set(&err, AT_BAD_REQUEST, "which file? atoll %s FILE", role);
    } else if (step != NULL && (at_str_to_i64(at_str_of(step), &a.step) != AT_OK || a.step < 0)) {
        rc = at_err_set(&err, AT_BAD_REQUEST, "--step is no number: %s", step);
    }
    if (rc == AT_OK) {
        rc = at_app_place_init(&a.place, store, dir, &err);
    }
    if (rc == AT_OK) {
        rc = action->run(&a, &err);
        err.rc = rc;
    }
    at_app_place_done(&a.place);
    return rc != AT_OK ? at_app_fail(role, &err) : 0;
}

int at_app_store(int argc, char **argv)
{
    for (size_t i = 0; argc > 0 && i < AT_ARRAY_LEN(ACTIONS); i++) {
        if (strcmp(argv[0], ACTIONS[i].name) == 0) {
            return action_run(&ACTIONS[i], argc - 1, argv + 1);
        }
    }
    return usage(argc > 0 && strcmp(argv[0], "--help") == 0 ? stdout : stderr);
}
