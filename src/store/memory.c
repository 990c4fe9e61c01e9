/* The back end that keeps nothing: for tests, simulation and throw-away servers. */
#include "core/mem.h"
#include "store/store_priv.h"

static enum at_rc memory_open(const char *path, const struct at_store_load *load, void **ret,
                              struct at_err *err)
{
    (void)path;
    (void)load;
    (void)err;
    *ret = NULL;
    return AT_OK;
}

static enum at_rc memory_commit(void *backend, const struct at_store_batch *batch,
                                struct at_err *err)
{
    (void)backend;
    (void)batch;
    (void)err;
    return AT_OK;
}

static void memory_close(void *backend)
{
    (void)backend;
}

const struct at_store_backend AT_STORE_MEMORY = {
    .kind = "memory",
    .open = memory_open,
    .commit = memory_commit,
    .close = memory_close,
};
