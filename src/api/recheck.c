/* What goes on (watches, logs, commands, ports, tunnels) is asked again whether it may: once after
 * many changes of rights, and now and then whether what it came in by has ended. */
#include "api/api_priv.h"
#include "api/entry.h"

bool api_goes_on(struct api_req *req, const char **ret_why)
{
    if (api_over_time(req)) {
        *ret_why = "what you came in by has ended";
        return false;
    }
    *ret_why = "the right to do this was taken away";
    return api_still_may(req);
}

static void look_again(void *ctx)
{
    struct at_api *api = ctx;
    api_links_recheck(api);
    api_tunnels_recheck(api);
    api->recheck_again_timer = at_loop_timer(api->options.loop, AT_API_RECHECK_NS, look_again, api);
}

static void recheck(void *ctx)
{
    struct at_api *api = ctx;
    api->recheck_timer = 0;
    at_loop_timer_cancel(api->options.loop, api->recheck_again_timer);
    api_streams_recheck(api);
    look_again(api);
}

void api_recheck_soon(struct at_api *api)
{
    if (api->recheck_timer == 0) { /* many changes, one look */
        api->recheck_timer = at_loop_timer(api->options.loop, 0, recheck, api);
    }
}

void api_recheck_done(struct at_api *api)
{
    at_loop_timer_cancel(api->options.loop, api->recheck_timer);
    at_loop_timer_cancel(api->options.loop, api->recheck_again_timer);
}
