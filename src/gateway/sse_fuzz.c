/* Anything at all as a stream, whole and in pieces, as an answer with usage, and as a traceparent.
 */
#include "core/mem.h"
#include "gateway/sse.h"
#include "gateway/trace.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct gw_sse whole = {0}, pieces = {0};
    struct gw_usage usage = {0};
    struct gw_trace trace = {0};
    size_t events = gw_sse_events(&whole, text, size), n = 0;
    for (size_t at = 0, step = 1; at < size; at += step, step = step % 7 + 1) {
        n += gw_sse_events(&pieces, text + at, step < size - at ? step : size - at);
    }
    assert(n == events);
    (void)gw_usage_find((struct at_str){text, size}, &usage);
    if (gw_trace_parse((struct at_str){text, size}, &trace)) {
        char again[GW_TRACE_TEXT_BYTES];
        struct gw_trace same = {0};
        gw_trace_put(&trace, trace.parent, again);
        bool ok = gw_trace_parse((struct at_str){again, sizeof again}, &same);
        assert(ok);
        assert(same.id[0] == trace.id[0] && same.id[1] == trace.id[1]);
        assert(same.parent == trace.parent && same.sampled == trace.sampled);
    }
    return 0;
}
