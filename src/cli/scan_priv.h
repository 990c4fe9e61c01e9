/* Inside of the verb scan. */
#ifndef AT_CLI_SCAN_PRIV_H
#define AT_CLI_SCAN_PRIV_H

#include "cli/cli_priv.h"
#include "core/map.h"
#include "scan/scan.h"

/* A document that was looked at, and where it stands. */
struct scan_doc {
    json_t *object;   /* own */
    const char *file; /* "-": standard input; NULL: a live object */
    size_t line;      /* where it begins */
    size_t text;      /* index of its file's text */
};

struct scan_run {
    struct cli *cli;
    struct scan_doc *docs;
    size_t n, room;
    struct at_buf *texts; /* of files */
    size_t n_texts, room_texts;
    size_t files, other; /* documents that are no objects */
    size_t failed;       /* files that could not be read */
    size_t refused;      /* kinds that one may not list */
    struct at_scan_result result;
    size_t *doc_of; /* per finding, in the order of result */
};

/* scan_live.c: the context in use and the server's certificate as one object of kind Config. own:
 * caller decrefs. */
json_t *scan_connection(struct cli *cli);

struct scan_place {
    const char *file; /* NULL: live */
    size_t line;
    const char *kind, *ns, *name; /* ns "": none */
};
struct scan_place scan_place_of(const struct scan_run *run, size_t finding);

/* own: caller decrefs. */
json_t *scan_json(const struct scan_run *run);
json_t *scan_sarif(const struct scan_run *run);
void scan_print_text(const struct scan_run *run);
void scan_print_wide(const struct scan_run *run);
void scan_print_names(const struct scan_run *run);
/* The table of rules. */
enum at_rc scan_print_rules(struct cli *cli, struct at_err *err) AT_WARN_UNUSED;

#endif
