/* infer: one request to a model by the Open Inference Protocol v2, through the gateway. */
#include "cli/cli_priv.h"
#include "core/str.h"
#include "net/http_client.h"
#include "net/tls.h"
#include "net/url.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_NS_DEFAULT (30 * AT_NS_PER_S)
#define ANSWER_BYTES_MAX AT_JSON_BYTES_MAX
#define INPUT_BYTES_MAX ((size_t)16 << 20)
#define SHOWN_MAX 16 /* elements of an output */

struct gateway {
    struct cli *cli;
    struct at_loop *loop;
    struct at_http_client *http;
    struct at_tls_config *tls;
    struct at_url url;
    const char *headers;
    int64_t timeout_ns;
    /* the call that runs */
    struct at_buf answer;
    int status;
    char instance[256];
    int64_t took_ns;
    bool done, too_large;
    enum at_rc rc;
    struct at_err err;
};

static void on_head(void *ctx, const struct at_http_head *head)
{
    struct gateway *g = ctx;
    struct at_str instance = at_http_header_get(head, "x-atoll-instance");
    g->status = head->status;
    snprintf(g->instance, sizeof g->instance, "%.*s", (int)instance.len,
             instance.ptr != NULL ? instance.ptr : "");
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct gateway *g = ctx;
    g->too_large = g->too_large || at_buf_append(&g->answer, data, len) != AT_OK;
}

static void on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    struct gateway *g = ctx;
    (void)bytes_sent;
    g->done = true;
    g->rc = rc;
    if (rc != AT_OK && err != NULL) {
        g->err = *err;
    }
}

static enum at_rc rc_of_http(int status)
{
    static const struct {
        int status;
        enum at_rc rc;
    } ROWS[] = {{400, AT_BAD_REQUEST}, {401, AT_UNAUTHENTICATED}, {403, AT_FORBIDDEN},
                {404, AT_NOT_FOUND},   {413, AT_TOO_LARGE},       {422, AT_INVALID},
                {429, AT_EXHAUSTED},   {502, AT_UPSTREAM},        {503, AT_UNAVAILABLE},
                {504, AT_TIMEOUT}};
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        if (ROWS[i].status == status) {
            return ROWS[i].rc;
        }
    }
    return status >= 500 ? AT_INTERNAL : AT_BAD_REQUEST;
}

static enum at_rc judge(struct gateway *g, json_t **ret, struct at_err *err)
{
    json_t *answer = NULL;
    if (g->rc != AT_OK) {
        *err = g->err;
        return at_err_wrap(err, g->rc, "gateway %s", g->url.addr);
    }
    if (g->too_large) {
        return at_err_set(err, AT_TOO_LARGE, "the answer is over %zu bytes", ANSWER_BYTES_MAX);
    }
    bool json = at_json_parse(g->answer.data, g->answer.len, &answer, NULL) == AT_OK;
    if (g->status < 200 || g->status >= 300) {
        const char *text = json ? at_json_str_at(answer, "error", NULL) : NULL;
        text = text == NULL && json ? at_json_str_at(answer, "error.message", NULL) : text;
        enum at_rc rc = rc_of_http(g->status);
        at_err_set(err, rc, "%s (HTTP %d)", text != NULL ? text : at_http_status_text(g->status),
                   g->status);
        json_decref(json ? answer : NULL);
        return rc;
    }
    if (!json) {
        return at_err_set(err, AT_UPSTREAM, "the gateway's answer is no JSON");
    }
    *ret = answer;
    return AT_OK;
}

static enum at_rc call(struct gateway *g, enum at_http_method method, const char *target,
                       const char *body, size_t body_len, json_t **ret, struct at_err *err)
{
    at_buf_clear(&g->answer);
    g->done = false;
    g->too_large = false;
    g->status = 0;
    struct at_http_call http = {
        .addr = g->url.addr,
        .tls = g->tls,
        .method = method,
        .target = target,
        .headers = g->headers,
        .body = body,
        .body_len = body_len,
        .timeout_ns = g->timeout_ns,
        .ctx = g,
        .on_head = on_head,
        .on_body = on_body,
        .on_done = on_done,
    };
    int64_t start = at_sys_mono_ns(g->cli->env->sys);
    at_http_call(g->http, &http);
    while (!g->done && at_loop_turn(g->loop, INT64_MAX)) {
    }
    g->took_ns = at_sys_mono_ns(g->cli->env->sys) - start;
    return judge(g, ret, err);
}

static enum at_rc gateway_open(struct gateway *g, struct at_err *err)
{
    struct cli *cli = g->cli;
    struct cli_gateway where = {0};
    enum at_rc rc = cli_gateway_find(cli, &where, err);
    if (rc == AT_OK) {
        rc = cli_duration(cli, OPT_TIMEOUT, TIMEOUT_NS_DEFAULT, &g->timeout_ns, err);
    }
    g->url = where.url;
    g->tls = where.tls;
    if (rc != AT_OK) {
        return rc;
    }
    g->headers = where.token != NULL ? at_arena_printf(cli->arena,
                                                       "Authorization: Bearer %s\r\n"
                                                       "Content-Type: application/json\r\n",
                                                       where.token)
                                     : "Content-Type: application/json\r\n";
    g->loop = at_loop_new(cli->env->sys);
    g->http = at_http_client_new(g->loop, &(struct at_http_client_options){0});
    g->answer.max = ANSWER_BYTES_MAX;
    return AT_OK;
}

static void gateway_close(struct gateway *g)
{
    if (g->http != NULL) {
        at_http_client_free(g->http);
    }
    if (g->loop != NULL) {
        at_loop_free(g->loop);
    }
    if (g->tls != NULL) {
        at_tls_config_unref(g->tls);
    }
    at_buf_done(&g->answer);
}

/* --- inputs --- */

static const json_t *input_named(const json_t *metadata, const char *name)
{
    size_t at;
    json_t *input;
    json_array_foreach(json_object_get(metadata, "inputs"), at, input)
    {
        if (name == NULL || strcmp(at_json_str_at(input, "name", ""), name) == 0) {
            return input;
        }
    }
    return NULL;
}

/* Height and width of an image input: the two dimensions over 1 behind the batch, or the side of a
 * flat square. */
static bool image_sides(const json_t *shape, size_t *ret_height, size_t *ret_width)
{
    size_t sides[2] = {0};
    size_t n = 0;
    for (size_t i = 1; i < json_array_size(shape); i++) {
        json_int_t dim = json_integer_value(json_array_get(shape, i));
        if (dim == 1) {
            continue;
        }
        if (dim < 1 || dim > 1 << 24 || n == 2) {
            return false;
        }
        sides[n++] = (size_t)dim;
    }
    if (n == 1) {
        size_t side = (size_t)llround(sqrt((double)sides[0]));
        *ret_height = *ret_width = side;
        return side * side == sides[0];
    }
    *ret_height = sides[0];
    *ret_width = sides[1];
    return n == 2;
}

static enum at_rc image_input(struct cli *cli, const json_t *metadata, const char *path,
                              json_t **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf data = {0};
    struct cli_image image = {0};
    const json_t *input = input_named(metadata, NULL);
    const json_t *shape = json_object_get(input, "shape");
    size_t height = 0;
    size_t width = 0;
    if (!image_sides(shape, &height, &width)) {
        return at_err_set(err, AT_BAD_REQUEST, "the model's input is no grey image");
    }
    enum at_rc rc = cli_read(cli, path, INPUT_BYTES_MAX, &data, err);
    if (rc == AT_OK) {
        rc = cli_pgm_parse(data.data != NULL ? data.data : "", data.len, &image, err);
    }
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "%s", path);
    }
    char *end;
    const char *scale_text = cli_value(cli, OPT_SCALE, NULL);
    double scale = scale_text != NULL ? strtod(scale_text, &end) : (double)image.max;
    if (!isfinite(scale) || (scale_text != NULL && (*end != '\0' || end == scale_text))) {
        at_free(image.pixels);
        return at_err_set(err, AT_BAD_REQUEST, "--scale must be a number, not %s", scale_text);
    }
    double *values = at_alloc(width * height * sizeof *values);
    cli_image_resize(&image, width, height, scale, values);
    bool whole = strstr(at_json_str_at(input, "datatype", "FP32"), "INT") != NULL;
    json_t *list = json_array();
    for (size_t i = 0; i < width * height; i++) {
        json_array_append_new(list,
                              whole ? json_integer(llround(values[i])) : json_real(values[i]));
    }
    json_t *one = json_deep_copy(shape);
    json_array_set_new(one, 0, json_integer(1));
    *ret = json_pack("{sssosOso}", "name", at_json_str_at(input, "name", "input"), "shape", one,
                     "datatype", json_object_get(input, "datatype"), "data", list);
    at_free(values);
    at_free(image.pixels);
    return AT_OK;
}

/* NAME=JSON: the shape is that of the nested lists. */
static enum at_rc text_input(const json_t *metadata, const char *text, json_t **ret,
                             struct at_err *err)
{
    const char *equals = strchr(text, '=');
    json_t *data = NULL;
    if (equals == NULL || equals == text) {
        return at_err_set(err, AT_BAD_REQUEST, "--input is NAME=JSON, not \"%.80s\"", text);
    }
    char name[256];
    snprintf(name, sizeof name, "%.*s", (int)(equals - text), text);
    enum at_rc rc = at_json_parse(equals + 1, strlen(equals + 1), &data, err);
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "--input %s", name);
    }
    json_t *shape = json_array();
    for (const json_t *at = data; json_is_array(at); at = json_array_get(at, 0)) {
        json_array_append_new(shape, json_integer((json_int_t)json_array_size(at)));
    }
    if (!json_is_array(data)) { /* one number */
        json_t *list = json_array();
        json_array_append_new(list, data);
        data = list;
        json_array_append_new(shape, json_integer(1));
    }
    const char *type = at_json_str_at(input_named(metadata, name), "datatype", "FP32");
    *ret = json_pack("{sssossso}", "name", name, "shape", shape, "datatype", type, "data", data);
    return AT_OK;
}

static enum at_rc json_file(const struct cli *cli, const char *path, json_t **ret,
                            struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = cli_read(cli, path, INPUT_BYTES_MAX, &text, err);
    if (rc == AT_OK) {
        rc = at_json_parse(text.data, text.len, ret, err);
    }
    return rc == AT_OK ? rc : at_err_wrap(err, rc, "%s", path);
}

static enum at_rc add_inputs(struct cli *cli, const json_t *metadata, json_t *inputs,
                             struct at_err *err)
{
    enum at_rc rc = AT_OK;
    json_t *input = NULL;
    for (size_t i = 0; i < cli->values[OPT_INPUT].n && rc == AT_OK; i++) {
        rc = text_input(metadata, cli->values[OPT_INPUT].items[i], &input, err);
        if (rc == AT_OK) {
            json_array_append_new(inputs, input);
        }
    }
    for (size_t i = 0; i < cli->values[OPT_IMAGE].n && rc == AT_OK; i++) {
        rc = image_input(cli, metadata, cli->values[OPT_IMAGE].items[i], &input, err);
        if (rc == AT_OK) {
            json_array_append_new(inputs, input);
        }
    }
    for (size_t i = 0; i < cli->values[OPT_TENSOR].n && rc == AT_OK; i++) {
        rc = json_file(cli, cli->values[OPT_TENSOR].items[i], &input, err);
        if (rc == AT_OK && json_is_array(input)) {
            json_array_extend(inputs, input);
            json_decref(input);
        } else if (rc == AT_OK) {
            json_array_append_new(inputs, input);
        }
    }
    return rc;
}

static enum at_rc make_request(struct gateway *g, const char *model, json_t **ret,
                               struct at_err *err)
{
    struct cli *cli = g->cli;
    const char *whole = cli_value(cli, OPT_REQUEST, NULL);
    if (whole != NULL) {
        return json_file(cli, whole, ret, err);
    }
    if (cli->values[OPT_IMAGE].n + cli->values[OPT_INPUT].n + cli->values[OPT_TENSOR].n == 0) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "what is the input? --image, --input, --tensor or --request");
    }
    AT_CLEANUP(at_cleanup_json) json_t *metadata = NULL;
    enum at_rc rc = AT_OK;
    if (cli->values[OPT_IMAGE].n + cli->values[OPT_INPUT].n != 0) {
        const char *target = at_arena_printf(cli->arena, "/v2/models/%s", model);
        rc = call(g, AT_HTTP_GET, target, NULL, 0, &metadata, err);
        metadata = rc == AT_OK ? metadata : NULL;
    }
    json_t *inputs = json_array();
    if (rc == AT_OK) {
        rc = add_inputs(cli, metadata, inputs, err);
    }
    if (rc != AT_OK) {
        json_decref(inputs);
        return rc;
    }
    *ret = json_pack("{so}", "inputs", inputs);
    return AT_OK;
}

/* --- outputs --- */

struct flat {
    double first_values[SHOWN_MAX];
    size_t count, best;
    double best_value;
};

static void flatten(const json_t *data, struct flat *flat)
{
    for (size_t i = 0; i < json_array_size(data); i++) {
        const json_t *item = json_array_get(data, i);
        if (json_is_array(item)) {
            flatten(item, flat);
            continue;
        }
        double value = json_number_value(item);
        if (flat->count < SHOWN_MAX) {
            flat->first_values[flat->count] = value;
        }
        if (flat->count == 0 || value > flat->best_value) {
            flat->best = flat->count;
            flat->best_value = value;
        }
        flat->count++;
    }
}

static double element_at(const json_t *data, size_t row, size_t column, size_t columns)
{
    const json_t *first = json_array_get(data, 0);
    const json_t *at = json_is_array(first) ? json_array_get(json_array_get(data, row), column)
                                            : json_array_get(data, row * columns + column);
    return json_number_value(at);
}

/* Scores: the largest, or for a batch of them the largest of each row. */
static void put_largest(FILE *out, const json_t *shape, const json_t *data, const struct flat *flat)
{
    size_t rows = (size_t)json_integer_value(json_array_get(shape, 0));
    size_t columns = (size_t)json_integer_value(json_array_get(shape, 1));
    bool fits = rows > 1 && columns > 1 && flat->count % rows == 0 && flat->count / rows == columns;
    if (json_array_size(shape) != 2 || !fits) {
        if (flat->count > 1) {
            fprintf(out, "  largest: [%zu] = %.6g\n", flat->best, flat->best_value);
        }
        return;
    }
    fputs("  largest of each row:", out);
    for (size_t row = 0; row < rows && row < SHOWN_MAX; row++) {
        size_t best = 0;
        for (size_t column = 1; column < columns; column++) {
            if (element_at(data, row, column, columns) > element_at(data, row, best, columns)) {
                best = column;
            }
        }
        fprintf(out, " %zu", best);
    }
    fputs(rows > SHOWN_MAX ? " ...\n" : "\n", out);
}

static void put_output(const struct cli *cli, const json_t *output)
{
    FILE *out = cli->env->out;
    AT_CLEANUP(at_cleanup_buf) struct at_buf shape = {0};
    const json_t *data = json_object_get(output, "data");
    const char *type = at_json_str_at(output, "datatype", "?");
    (void)!at_json_dump(json_object_get(output, "shape"), &shape);
    cli_print_text(out, at_json_str_at(output, "name", "?"));
    fprintf(out, " %s %s: ", type, shape.data != NULL ? shape.data : "");
    if (strcmp(type, "BYTES") == 0 || strcmp(type, "BOOL") == 0) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        (void)!at_json_dump(data, &text);
        cli_print_text(out, text.data != NULL ? text.data : "");
        fputc('\n', out);
        return;
    }
    struct flat flat = {0};
    flatten(data, &flat);
    for (size_t i = 0; i < flat.count && i < SHOWN_MAX; i++) {
        fprintf(out, "%s%.6g", i != 0 ? " " : "", flat.first_values[i]);
    }
    fputs(flat.count > SHOWN_MAX ? " ...\n" : "\n", out);
    if (type[0] == 'F') {
        put_largest(out, json_object_get(output, "shape"), data, &flat);
    }
}

static enum at_rc ask(struct gateway *g, const char *model, enum cli_format format,
                      struct at_err *err)
{
    struct cli *cli = g->cli;
    AT_CLEANUP(at_cleanup_json) json_t *request = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    AT_CLEANUP(at_cleanup_buf) struct at_buf body = {.max = INPUT_BYTES_MAX};
    enum at_rc rc = make_request(g, model, &request, err);
    if (rc != AT_OK) {
        request = NULL;
        return rc;
    }
    rc = at_json_dump(request, &body);
    if (rc != AT_OK) {
        return at_err_set(err, rc, "the request is too large");
    }
    const char *target = at_arena_printf(cli->arena, "/v2/models/%s/infer", model);
    rc = call(g, AT_HTTP_POST, target, body.data, body.len, &answer, err);
    if (rc != AT_OK) {
        answer = NULL;
        return rc;
    }
    if (format != CLI_TABLE && format != CLI_WIDE) {
        return cli_print_value(cli, format, answer, err);
    }
    size_t at;
    json_t *output;
    json_array_foreach(json_object_get(answer, "outputs"), at, output)
    {
        put_output(cli, output);
    }
    fprintf(cli->env->out, "answered in %.3f ms", (double)g->took_ns / 1e6);
    if (g->instance[0] != '\0') {
        fputs(" by ", cli->env->out);
        cli_print_text(cli->env->out, g->instance);
    }
    fputc('\n', cli->env->out);
    return AT_OK;
}

enum at_rc cli_infer(struct cli *cli, struct at_err *err)
{
    struct gateway *g = AT_NEW(struct gateway);
    enum cli_format format;
    AT_CLEANUP(at_cleanup_buf) struct at_buf model = {0};
    g->cli = cli;
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc == AT_OK) {
        rc = at_client_escape(cli->args[0], &model);
    }
    if (rc == AT_OK) {
        rc = gateway_open(g, err);
    }
    if (rc == AT_OK) {
        rc = ask(g, model.data != NULL ? model.data : "", format, err);
    }
    gateway_close(g);
    at_free(g);
    return rc;
}
