/* WebSocket frames: no bytes break the machine, and how they are cut changes nothing. */
#include "net/ws.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sum {
    size_t bytes, firsts, lasts, controls;
    enum at_rc rc;
};

static struct sum run(const char *data, size_t size, size_t cut)
{
    struct at_ws ws;
    struct sum sum = {.rc = AT_OK};
    at_ws_init(&ws);
    for (size_t at = 0; at < size && sum.rc == AT_OK;) {
        size_t len = cut < size - at ? cut : size - at;
        struct at_ws_event e;
        do {
            size_t used = 0;
            sum.rc = at_ws_take(&ws, data + at, len, &used, &e, NULL);
            if (sum.rc != AT_OK) {
                return sum;
            }
            assert(used <= len);
            at += used;
            len -= used;
            sum.bytes += e.type == AT_WS_EVENT_DATA ? e.len : 0;
            sum.firsts += e.first;
            sum.lasts += e.last;
            sum.controls += e.type == AT_WS_EVENT_CONTROL;
        } while (e.type != AT_WS_EVENT_NONE);
        assert(len == 0);
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sum whole = run((const char *)data, size, size > 0 ? size : 1);
    struct sum single = run((const char *)data, size, 1);
    assert(whole.rc == single.rc);
    assert(whole.bytes == single.bytes);
    assert(whole.firsts == single.firsts);
    assert(whole.lasts == single.lasts);
    assert(whole.controls == single.controls);
    return 0;
}
