/* Is what a back end has on disk sound? Looked at without opening it as a store, so that a damaged
 * one can be told about as well. Changes nothing. */
#ifndef AT_STORE_CHECK_H
#define AT_STORE_CHECK_H

#include "store/store.h"

typedef void at_store_check_fn(void *ctx, const char *problem);

/* kind, path: as for at_store_open; fn is called for each problem, at most AT_STORE_PROBLEMS_MAX
 * times. Back ends that keep no file have nothing to look at. err: AT_NOT_FOUND no file;
 * AT_CONFLICT another process has it open; AT_FORBIDDEN. */
#define AT_STORE_PROBLEMS_MAX 200
enum at_rc at_store_check(const char *kind, const char *path, at_store_check_fn *fn, void *ctx,
                          struct at_err *err) AT_WARN_UNUSED;

#endif
