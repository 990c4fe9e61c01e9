/* What is OpenAI's own in requests and answers below /v1/: the body names the model, and errors are
 * objects that its clients make exceptions of. */
#include "core/json.h"
#include "core/mem.h"
#include "gateway/gateway_priv.h"
#include "gateway/json_scan.h"

#include <inttypes.h>
#include <stdio.h>

bool gw_openai_is(const struct at_http_head *head)
{
    return at_str_starts(head->path, "/v1/");
}

static const char *type_of(int status)
{
    return status == 429   ? "rate_limit_error"
           : status >= 500 ? "server_error"
                           : "invalid_request_error";
}

static const char *code_of(int status)
{
    return status == 401 ? "invalid_api_key" : status == 429 ? "rate_limit_exceeded" : NULL;
}

static enum at_rc put_text_or_null(const char *text, struct at_buf *out)
{
    return text != NULL ? at_json_dump_text(text, strlen(text), out)
                        : at_buf_append_str(out, "null");
}

static enum at_rc put_error(int status, const struct gw_openai_error *e, const char *message,
                            struct at_buf *out)
{
    const struct {
        const char *before, *text;
    } parts[] = {{"{\"error\":{\"message\":", message},
                 {",\"type\":", e->type != NULL ? e->type : type_of(status)},
                 {",\"param\":", e->param},
                 {",\"code\":", e->code != NULL ? e->code : code_of(status)}};
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < AT_ARRAY_LEN(parts) && rc == AT_OK; i++) {
        rc = at_buf_append_str(out, parts[i].before);
        rc = rc == AT_OK ? put_text_or_null(parts[i].text, out) : rc;
    }
    return rc == AT_OK ? at_buf_append_str(out, "}}") : rc;
}

/* The client's own id, if it has one that is no burden; else a new one. */
static struct at_str request_id(struct gw_worker *w, const struct at_http_head *head, char made[17])
{
    struct at_str id = at_http_header_get(head, "x-request-id");
    if (id.len == 0 || id.len > AT_GW_REQUEST_ID_BYTES_MAX) {
        snprintf(made, 17, "%016" PRIx64, gw_random(w));
        id = (struct at_str){made, 16};
    }
    return id;
}

void gw_openai_answer_error(struct gw_worker *worker, struct at_http_exchange *ex, int status,
                            const struct gw_openai_error *error, const char *fmt, ...)
{
    char message[AT_ERR_MSG_BYTES_MAX], made[17];
    AT_CLEANUP(at_cleanup_buf) struct at_buf lines = {0};
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    struct at_str id = error->request_id;
    if (id.len == 0) {
        id = request_id(worker, at_http_request(ex), made);
    }
    enum at_rc rc = at_buf_append_str(&lines, error->headers != NULL ? error->headers : "");
    if (rc == AT_OK) {
        rc = at_buf_printf(&lines, "X-Request-Id: %.*s\r\n", (int)id.len, id.ptr);
    }
    if (rc == AT_OK && !error->says_when && (status == 429 || status == 503)) {
        rc = at_buf_printf(&lines, "Retry-After: 1\r\nretry-after-ms: %d\r\n", AT_GW_RETRY_HINT_MS);
    }
    if (rc == AT_OK) {
        rc = put_error(status, error, message, &text);
    }
    if (rc != AT_OK) {
        at_buf_clear(&text); /* the status says enough */
    }
    at_http_respond(ex, status, "application/json", lines.data, text.data, text.len);
}

static void refuse_body(struct gw_worker *w, struct at_http_exchange *ex, enum at_rc rc,
                        const struct at_err *err)
{
    gw_count(w, "", "", 400);
    if (rc == AT_INVALID) {
        gw_openai_answer_error(w, ex, 400, &(struct gw_openai_error){.param = err->field}, "%s: %s",
                               err->field, err->msg);
    } else {
        gw_openai_answer_error(w, ex, 400, &(struct gw_openai_error){.code = "invalid_json"},
                               "the body is no JSON that can be taken: %s", err->msg);
    }
}

static void no_model(struct gw_worker *worker, struct at_http_exchange *ex, const char *model)
{
    int status = worker->has_table ? 404 : 503;
    gw_count(worker, "", "", status);
    if (status == 404) {
        gw_openai_answer_error(
            worker, ex, 404, &(struct gw_openai_error){.param = "model", .code = "model_not_found"},
            "no model is called %s; GET /v1/models lists those that there are", model);
    } else {
        gw_openai_answer_error(worker, ex, 503, &(struct gw_openai_error){0},
                               "model %s: no routes are known yet", model);
    }
}

bool gw_openai_route(struct gw_worker *worker, struct at_http_exchange *ex, struct gw_path *path)
{
    const struct at_http_head *head = at_http_request(ex);
    struct at_str encoding = at_http_header_get(head, "content-encoding");
    struct gw_scan scan;
    struct at_err err;
    if (head->method != AT_HTTP_POST) {
        gw_count(worker, "", "", 405);
        gw_openai_answer_error(worker, ex, 405,
                               &(struct gw_openai_error){.headers = "Allow: POST\r\n"},
                               "only POST is possible here");
        return false;
    }
    if (encoding.len > 0 && !at_str_eq_nocase(encoding, "identity")) {
        gw_count(worker, "", "", 415);
        gw_openai_answer_error(
            worker, ex, 415, &(struct gw_openai_error){.headers = "Accept-Encoding: identity\r\n"},
            "the body must come without a content-encoding");
        return false;
    }
    enum at_rc rc = gw_json_scan(at_http_request_body(ex), &scan, &err);
    if (rc != AT_OK) {
        refuse_body(worker, ex, rc, &err);
        return false;
    }
    struct gw_model *model = gw_model_find(worker, scan.model, scan.model_len);
    if (model == NULL || !gw_meter_may_ask(worker, model)) { /* who may not know hears the same */
        no_model(worker, ex, scan.model);
        return false;
    }
    memcpy(path->model, scan.model, scan.model_len + 1);
    path->model_len = scan.model_len;
    path->found = model;
    path->stream = scan.stream;
    path->raw_model = scan.raw_model;
    path->user = scan.user;
    path->session = scan.session;
    path->prompt = scan.prompt;
    path->tools = scan.tools;
    path->more = scan.more;
    return true;
}

/* Dollars in full, as a text: the smallest prices are no numbers that doubles keep. */
static json_t *dollars(int64_t amount, int decimals)
{
    int64_t scale = 1;
    for (int i = 0; i < decimals; i++) {
        scale *= 10;
    }
    char text[48];
    snprintf(text, sizeof text, "%" PRId64 ".%0*" PRId64, amount / scale, decimals, amount % scale);
    return json_string(text);
}

/* What a token of either side and a request cost, in the words of OpenRouter's list; NULL: nothing
 * is asked for it, or nobody has said what. */
static json_t *pricing_of(const struct gw_model *model)
{
    const struct at_meter_price *p = &model->policy.price;
    if (p->input_microusd == 0 && p->output_microusd == 0 && p->request_microusd == 0) {
        return NULL;
    }
    return json_pack("{s:o, s:o, s:o}", "prompt", dollars(p->input_microusd, 12), "completion",
                     dollars(p->output_microusd, 12), "request", dollars(p->request_microusd, 6));
}

static json_t *card_of(const struct gw_model *model)
{
    return json_pack("{s:s, s:s, s:i, s:s, s:b, s:o*}", "id", model->name, "object", "model",
                     "created", 0, "owned_by", "atoll", "ready", model->n_replicas > 0, "pricing",
                     pricing_of(model));
}

static void answer_json(struct gw_worker *w, struct at_http_exchange *ex, json_t *take)
{
    char made[17], line[AT_GW_REQUEST_ID_BYTES_MAX + 32];
    struct at_str id = request_id(w, at_http_request(ex), made);
    snprintf(line, sizeof line, "X-Request-Id: %.*s\r\n", (int)id.len, id.ptr);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_json_dump(take, &text);
    json_decref(take);
    at_http_respond(ex, rc == AT_OK ? 200 : 500, "application/json", line, text.data,
                    rc == AT_OK ? text.len : 0);
}

void gw_openai_answer_models(struct gw_worker *worker, struct at_http_exchange *ex)
{
    if (!worker->has_table) { /* an empty list would be a lie */
        gw_openai_answer_error(worker, ex, 503, &(struct gw_openai_error){0},
                               "no routes are known yet");
        return;
    }
    json_t *data = json_array();
    void *value;
    for (size_t it = 0; at_map_next(worker->models, &it, NULL, &value);) {
        if (gw_meter_may_ask(worker, value)) {
            json_array_append_new(data, card_of(value));
        }
    }
    answer_json(worker, ex, json_pack("{s:s, s:o}", "object", "list", "data", data));
}

void gw_openai_answer_model(struct gw_worker *worker, struct at_http_exchange *ex,
                            const struct gw_path *path)
{
    const struct gw_model *model = gw_model_find(worker, path->model, path->model_len);
    if (model == NULL || !gw_meter_may_ask(worker, model)) {
        no_model(worker, ex, path->model);
        return;
    }
    answer_json(worker, ex, card_of(model));
}
