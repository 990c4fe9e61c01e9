/* Bodies of plain services that are passed on before they are whole. Nothing is read from the
 * client before a replica's connection is open, so until then another one can be asked; and no
 * more than the replica takes. */
#include "gateway/upload.h"

#include "gateway/proxy_priv.h"

static void on_data(void *ctx, const char *data, size_t len)
{
    struct gw_request *r = ctx;
    struct at_http_client *client = r->worker->client;
    r->obs.bytes_in += len;
    if (at_http_call_write(client, r->call, data, len) != AT_OK) {
        at_http_body_pause(r->ex, true); /* on_done tells why, or an answer is on its way */
    } else if (at_http_call_queued_bytes(client, r->call) > AT_GW_PAUSE_BYTES) {
        at_http_body_pause(r->ex, true);
    }
}

static void on_end(void *ctx, enum at_rc rc, const char *message)
{
    struct gw_request *r = ctx;
    if (rc == AT_OK) {
        at_http_call_end(r->worker->client, r->call);
        return;
    }
    r->upload.problem = rc == AT_TIMEOUT ? 408 : at_rc_http_status(rc);
    r->upload.message = message;
    at_http_call_cancel(r->worker->client, r->call); /* on_done answers */
}

static void on_writable(void *ctx)
{
    struct gw_request *r = ctx;
    if (r->ex == NULL) {
        return;
    }
    if (r->upload.begun) {
        at_http_body_pause(r->ex, false);
        return;
    }
    r->upload.begun = true;
    at_http_body_take(r->ex, &(struct at_http_body_events){r, on_data, on_end});
}

void gw_upload_call(struct gw_request *r, struct at_http_call *call)
{
    const struct at_http_head *head = at_http_request(r->ex);
    if (r->upload.is) {
        call->body_later = true;
        call->has_body_length = head->has_length;
        call->body_length = head->content_length;
        call->on_writable = on_writable;
    }
}

bool gw_upload_failed(struct gw_request *r)
{
    if (r->upload.problem == 0) {
        return false;
    }
    if (!r->streaming) {
        gw_request_fail(r, r->upload.problem, r->upload.message);
        return true;
    }
    struct at_http_exchange *ex = r->ex;
    r->ex = NULL;
    gw_request_answered(r, r->upload.problem);
    at_http_abort(ex);
    gw_request_over(r);
    return true;
}
