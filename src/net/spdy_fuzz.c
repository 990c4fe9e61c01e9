/* Any bytes as SPDY frames: taken whole and byte by byte they must mean the same. */
#include "core/mem.h"
#include "net/spdy.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct sum {
    size_t events, bytes, headers;
};

static void add(struct sum *sum, const struct at_spdy_event *e)
{
    sum->events += e->type != AT_SPDY_NONE && e->type != AT_SPDY_DATA;
    sum->bytes += e->len;
    for (size_t i = 0; i < e->n_headers; i++) {
        sum->headers += strlen(e->headers[i].name) + strlen(e->headers[i].value);
    }
}

static struct sum read_all(const char *data, size_t len, size_t step)
{
    struct at_spdy *spdy = at_spdy_new();
    struct sum sum = {0};
    size_t at = 0;
    while (at < len) {
        struct at_spdy_event e;
        size_t used = 0;
        size_t n = len - at < step ? len - at : step;
        if (at_spdy_take(spdy, data + at, n, &used, &e, NULL) != AT_OK) {
            break;
        }
        if (used > n) {
            abort();
        }
        add(&sum, &e);
        at += used;
        if (used == 0 && e.type == AT_SPDY_NONE) {
            abort(); /* it would never go on */
        }
    }
    at_spdy_free(spdy);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct sum whole = read_all((const char *)data, len, len + 1);
    struct sum single = read_all((const char *)data, len, 1);
    if (whole.events != single.events || whole.headers != single.headers) {
        abort();
    }
    return 0;
}
