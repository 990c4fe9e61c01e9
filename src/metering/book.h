/* What all keys used, summed up by key, team, model and day: read from the logs once they are on
 * the disk, kept in a file of its own, and found again at the start, whatever ended the process
 * before. Each request is counted once: a log's records up to the book's mark are in the book,
 * those behind it are not. One thread, but for at_meter_book_sync. */
#ifndef AT_METERING_BOOK_H
#define AT_METERING_BOOK_H

#include "metering/log.h"

struct at_meter_book;

struct at_meter_row {
    const char *uid, *ns, *key, *team, *model;
    int32_t day; /* 0: of all days that are not kept apart any more */
    uint64_t requests, errors, cached, prompt, completion;
    int64_t cost_nanousd;
};

/* Rows of a namespace and a day that are told together. */
struct at_meter_part {
    const char *ns;
    int32_t day;
    uint32_t number;
    const struct at_meter_row *const *rows;
    size_t n_rows;
    bool dirty; /* not told as it is; the teller's to clear */
};

struct at_meter_book_options {
    const char *folder; /* is made */
    const struct at_sys *sys;
    /* A request was counted, and is on the disk. May be NULL. */
    void (*on_use)(void *ctx, const struct at_meter_row *row, const struct at_meter_use *use);
    void *ctx;
};

/* Reads what is there, and begins a run. *ret_damage: a sentence about what could not be read and
 * was put aside, "" when all could. err: AT_IO; AT_CONFLICT another process has the folder.
 * own: at_meter_book_free. */
enum at_rc at_meter_book_open(const struct at_meter_book_options *options,
                              struct at_meter_book **ret, char ret_damage[AT_ERR_MSG_BYTES_MAX],
                              struct at_err *err) AT_WARN_UNUSED;
void at_meter_book_free(struct at_meter_book *book); /* logs too; accepts NULL */
/* Names the folder: eight hex digits that no other has. */
const char *at_meter_book_meter(const struct at_meter_book *book);
/* A log for one more loop. own: the book's. */
enum at_rc at_meter_book_log(struct at_meter_book *book, struct at_meter_log **ret,
                             struct at_err *err) AT_WARN_UNUSED;

/* A round: begin; sync on any thread; end counts what is on the disk now. No round while another is
 * under way. */
bool at_meter_book_begin(struct at_meter_book *book); /* false: there is nothing to wait for */
enum at_rc at_meter_book_sync(struct at_meter_book *book, struct at_err *err) AT_WARN_UNUSED;
void at_meter_book_end(struct at_meter_book *book, bool synced, int32_t today);

/* Is there something that is not on the disk, or not counted? */
bool at_meter_book_behind(const struct at_meter_book *book);
/* The i-th part, NULL at the end. One may be told when its rows are in the book's file. */
struct at_meter_part *at_meter_book_part(struct at_meter_book *book, size_t i);
bool at_meter_book_may_tell(const struct at_meter_book *book, const struct at_meter_part *part);
/* What was spent on days from on and after it: by one key, or by all keys for which match says yes.
 */
int64_t at_meter_book_spent_key(const struct at_meter_book *book, const char *uid, int32_t from);
int64_t at_meter_book_spent(const struct at_meter_book *book, int32_t from,
                            bool (*match)(void *ctx, const struct at_meter_row *row), void *ctx);

#endif
