/* Inside of the SQLite back end. */
#ifndef AT_STORE_SQLITE_PRIV_H
#define AT_STORE_SQLITE_PRIV_H

#include "store/store_priv.h"

#include <sqlite3.h>

/* sqlite_journal.c; calls return SQLite's codes. */
struct at_sqlite_journal;
/* Tells each batch that is kept. own: at_sqlite_journal_free. */
int at_sqlite_journal_new(sqlite3 *db, at_store_journal_fn *each, void *ctx,
                          struct at_sqlite_journal **ret);
void at_sqlite_journal_free(struct at_sqlite_journal *j); /* accepts NULL */
/* Within a transaction. */
int at_sqlite_journal_write(struct at_sqlite_journal *j, struct at_store_rider *rider);
/* After it. Is what was taken kept? */
bool at_sqlite_journal_end(struct at_sqlite_journal *j, bool committed);

#endif
