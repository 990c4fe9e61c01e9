/* Inside of the book. */
#ifndef AT_METERING_BOOK_PRIV_H
#define AT_METERING_BOOK_PRIV_H

#include "core/map.h"
#include "metering/book.h"
#include "sys/file.h"
#include "sys/sys.h"

struct row {
    struct at_meter_row pub;
    struct key *key;
    struct row *next_of_key; /* the newest day first */
    struct part *part;       /* NULL: of all older days */
    bool is_new;             /* not in the book's file yet */
    uint32_t n;              /* of its key, in a file that is being written */
};

struct key {
    char *uid, *ns, *name, *team;
    struct key *next_of_uid; /* as the key of another team */
    struct row *rows;
    uint32_t n;
};

struct part {
    struct at_meter_part pub;
    struct row **rows;
    size_t cap;
    size_t n_new; /* rows that are not in the book's file yet */
};

/* What numbers mean in one loop's log. */
struct names {
    struct key **keys;
    const char **models;
    size_t n_keys, n_models;
};

struct sync_range {
    struct at_meter_segment *segment;
    size_t to;
};

struct at_meter_book {
    struct at_meter_book_options options;
    char *folder;
    int lock_fd;
    char meter[16];
    uint32_t run;
    struct at_map *keys;   /* "uid team" → key */
    struct at_map *by_uid; /* uid → key */
    struct at_map *models; /* name → name */
    struct at_map *open;   /* "ns day" → part that has room */
    struct part **parts;
    size_t n_parts;
    struct at_meter_log **logs;
    struct names *names; /* of each log */
    size_t n_logs;
    int32_t today;
    /* A round. */
    struct sync_range *ranges;
    size_t n_ranges, cap_ranges;
    struct at_buf text; /* of the book's file, to be written by the next sync */
    bool wants_text, text_failed;
};

/* book.c */
struct key *at_meter_book_key(struct at_meter_book *book, struct at_str uid, struct at_str ns,
                              struct at_str name, struct at_str team);
const char *at_meter_book_model(struct at_meter_book *book, struct at_str name);
struct row *at_meter_book_row(struct at_meter_book *book, struct key *key, const char *model,
                              int32_t day, const uint32_t *part);
void at_meter_names_key(struct names *names, uint32_t id, struct key *key);
void at_meter_names_model(struct names *names, uint32_t id, const char *model);
struct row *at_meter_book_row_of(struct at_meter_book *book, const struct names *names,
                                 uint32_t key, uint32_t model, int32_t day, const uint32_t *part);
void at_meter_row_add(struct row *row, const struct at_meter_use *use);
void at_meter_names_done(struct names *names);
/* book_file.c */
enum at_rc at_meter_book_load(struct at_meter_book *book, char *damage, struct at_err *err);
enum at_rc at_meter_book_dump(struct at_meter_book *book, struct at_buf *out);
enum at_rc at_meter_book_write(struct at_meter_book *book, struct at_err *err);

#endif
