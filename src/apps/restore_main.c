/* The role `atoll restore`: a backup becomes the state folder of a server that goes on. */
#include "apps/apps.h"
#include "apps/move.h"
#include "core/mem.h"
#include "core/str.h"
#include "security/security.h"
#include "sys/file.h"

#include <stdio.h>
#include <string.h>

/* Far more than the writes that a server can have acknowledged since the backup: a client that saw
 * them is never shown the same revision again with something else. */
#define REVISION_STEP INT64_C(1000000000)

struct restore {
    struct at_app_place place;
    char *pki;
    bool certificate, key;
    bool write;
};

static enum at_rc on_file(void *ctx, const char *name, const char *data, size_t len,
                          struct at_err *err)
{
    struct restore *r = ctx;
    bool certificate = strcmp(name, "pki/ca.crt") == 0;
    if (!certificate && strcmp(name, "pki/ca.key") != 0) {
        return at_err_set(err, AT_INVALID, "file %s is not known to this version of atoll", name);
    }
    r->certificate = r->certificate || certificate;
    r->key = r->key || !certificate;
    if (!r->write) {
        return AT_OK;
    }
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", r->place.dir, name);
    return at_file_write_atomic(path, data, len, 0600, err);
}

static enum at_rc folder_empty(const char *dir, struct at_err *err)
{
    char **names = NULL;
    size_t n = 0;
    if (!at_file_exists(dir)) {
        return AT_OK;
    }
    enum at_rc rc = at_dir_list(dir, &names, &n, err);
    for (size_t i = 0; i < n; i++) {
        at_free(names[i]);
    }
    at_free(names);
    return rc != AT_OK || n == 0
               ? rc
               : at_err_set(err, AT_EXISTS,
                            "%s is not empty: only an empty folder is restored into", dir);
}

/* The authority must be usable before there is a store that would be served. */
static enum at_rc pki_write(struct restore *r, struct at_app_dump *dump, struct at_err *err)
{
    struct at_dump_events events = {.ctx = r, .file = on_file};
    struct at_dump_summary again;
    struct at_ca *ca = NULL;
    r->write = true;
    enum at_rc rc = at_dir_make(r->pki, 0700, err);
    if (rc == AT_OK) {
        rc = at_app_dump_read(dump, &events, &again, err);
    }
    if (rc == AT_OK) {
        rc = at_ca_open(r->pki, at_sys_real(), &ca, err);
        at_ca_free(ca);
    }
    return rc;
}

/* The folder was empty, so all that is there now is ours. */
static void take_back(const struct restore *r)
{
    AT_CLEANUP(at_cleanup_free) char *lock = at_asprintf("%s/lock", r->place.dir);
    (void)!at_tree_remove(r->pki, NULL);
    (void)!at_file_remove(lock, NULL);
}

static enum at_rc restore_run(struct restore *r, struct at_app_dump *dump, struct at_err *err)
{
    struct at_dump_events events = {.ctx = r, .file = on_file};
    struct at_dump_summary summary;
    int64_t rev = 0;
    enum at_rc rc = folder_empty(r->place.dir, err);
    if (rc == AT_OK) {
        rc = at_app_dump_read(dump, &events, &summary, err);
    }
    if (rc == AT_OK && (!r->certificate || !r->key)) {
        rc =
            at_err_set(err, AT_INVALID,
                       "%s holds no certificate authority: it is an export, see atoll store import",
                       dump->path);
    }
    if (rc != AT_OK) {
        return rc;
    }
    rc = pki_write(r, dump, err);
    if (rc == AT_OK) {
        rc = at_app_fill(&r->place, dump, &summary, REVISION_STEP, &rev, err);
    }
    if (rc != AT_OK) {
        take_back(r);
        return rc;
    }
    fprintf(stderr,
            "restored %zu keys of revision %lld into %s; the revision goes on after %lld\n"
            "now start it: atoll server --state %s --store %s\n",
            summary.keys, (long long)summary.head.rev, r->place.dir, (long long)rev, r->place.dir,
            r->place.store);
    return AT_OK;
}

int at_app_restore(int argc, char **argv)
{
    const char *store = "sqlite";
    const char *dir = NULL;
    struct at_app_dump dump = {0};
    struct restore r = {0};
    struct at_err err = {0};
    int exit_status = 0;
    const struct at_app_option options[] = {
        {"state", &dir, NULL, NULL, "DIR", "State folder to make; it must be empty or absent."},
        {"store", &store, NULL, NULL, "KIND",
         "sqlite (default) or etcd:http://HOST:PORT, an empty one."},
        {NULL, NULL, NULL, NULL, NULL, NULL}};
    if (argc > 0 && strncmp(argv[0], "--", 2) != 0) {
        dump.path = argv[0];
        argc--;
        argv++;
    }
    if (!at_app_options("restore", "FILE: a server's state from a backup that atoll backup made",
                        options, argc, argv, &exit_status)) {
        return exit_status;
    }
    enum at_rc rc = AT_OK;
    if (dump.path == NULL || dir == NULL) {
        rc =
            at_err_set(&err, AT_BAD_REQUEST, "say which and where: atoll restore FILE --state DIR");
    }
    if (rc == AT_OK) {
        rc = at_app_place_init(&r.place, store, dir, &err);
    }
    if (rc == AT_OK) {
        r.pki = at_asprintf("%s/pki", dir);
        rc = restore_run(&r, &dump, &err);
        err.rc = rc;
    }
    at_app_dump_done(&dump);
    at_app_place_done(&r.place);
    at_free(r.pki);
    return rc != AT_OK ? at_app_fail("restore", &err) : 0;
}
