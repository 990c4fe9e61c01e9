/* Dumps into stores and out of them, for `atoll store` and `atoll restore`. */
#ifndef AT_APPS_MOVE_H
#define AT_APPS_MOVE_H

#include "core/buf.h"
#include "store/dump.h"

/* Where a store is: what --store and --state say. */
struct at_app_place {
    const char *store; /* "sqlite", "etcd:http://..." */
    char *dir, *path;  /* own; path: the database file of sqlite */
    bool file;         /* it is kept in that file */
};
/* err: AT_INVALID a store that keeps nothing. own: at_app_place_done. */
enum at_rc at_app_place_init(struct at_app_place *place, const char *store, const char *dir,
                             struct at_err *err) AT_WARN_UNUSED;
void at_app_place_done(struct at_app_place *place);

/* A dump to read, more than once: a file, or "-" for standard input, which is kept in memory. */
struct at_app_dump {
    const char *path;
    struct at_buf input; /* of standard input */
    bool loaded;
};
#define AT_APP_DUMP_INPUT_BYTES_MAX ((size_t)1 << 30)
/* err: AT_INVALID with the line; what events return. */
enum at_rc at_app_dump_read(struct at_app_dump *dump, const struct at_dump_events *events,
                            struct at_dump_summary *ret, struct at_err *err) AT_WARN_UNUSED;
void at_app_dump_done(struct at_app_dump *dump);

/* Fill the store at place, which must not be there yet (etcd: be empty), from a dump that was read
 * to its end already. Every key gets a new revision; all are greater than the dump's by more than
 * step, and what is before them counts as compacted, so that nobody resumes a watch across it.
 * A file takes its place only when it is complete. err: AT_EXISTS something is there. */
enum at_rc at_app_fill(const struct at_app_place *place, struct at_app_dump *dump,
                       const struct at_dump_summary *summary, int64_t step, int64_t *ret_rev,
                       struct at_err *err) AT_WARN_UNUSED;

#endif
