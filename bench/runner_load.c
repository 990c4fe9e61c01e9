/* Load for bench/runners: requests read from standard input as one body, sent to ADDR by so many at
 * a time (a closed loop, as perf_analyzer does) or at the times of a Poisson process. Prints, as
 * JSON: requests and tokens a second, latency, time to the first token and between tokens. With
 * `engine LIBRARY MODEL` it runs the engine itself instead, batch size by batch size.
 *
 * usage: bench-runner-load ADDR PATH SECONDS CONCURRENCY|rate=N [HEADER-LENGTH] < BODY */
#include "core/mem.h"
#include "core/units.h"
#include "net/http_client.h"
#if __has_include(<onnxruntime_c_api.h>)
#include "runners/ort.h"
#define WITH_ONNX 1
#endif

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES_MAX 2000000
#define WARM_NS (300 * AT_NS_PER_MS)

struct samples {
    int64_t *ns;
    size_t n;
};

struct load {
    struct at_loop *loop;
    struct at_http_client *client;
    const char *addr, *path;
    char *headers;
    struct at_buf body;
    int64_t begun_ns, end_ns, next_ns;
    double rate; /* 0: closed loop */
    size_t open, done, failed, tokens;
    uint64_t seed;
    struct samples total, first, between;
};

struct request {
    struct load *load;
    int64_t sent_ns, last_ns;
    size_t events;
    int status;
};

static int64_t now_ns(void)
{
    return at_sys_mono_ns(at_sys_real());
}

static void add(struct samples *s, int64_t ns)
{
    if (s->n < SAMPLES_MAX) {
        s->ns[s->n++] = ns;
    }
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static double quantile_ms(struct samples *s, double q)
{
    if (s->n == 0) {
        return 0;
    }
    qsort(s->ns, s->n, sizeof *s->ns, compare);
    return (double)s->ns[(size_t)((double)(s->n - 1) * q)] / 1e6;
}

static void send_one(struct load *l);

static void on_head(void *ctx, const struct at_http_head *head)
{
    ((struct request *)ctx)->status = head->status;
}

/* Each `data:` of a stream is a token (but for [DONE] and the last words of the protocol, a few in
 * a hundred). */
static void on_body(void *ctx, const char *data, size_t len)
{
    struct request *r = ctx;
    struct load *l = r->load;
    int64_t now = now_ns();
    bool counts = now > l->begun_ns + WARM_NS;
    for (const char *at = data; (at = memmem(at, len - (size_t)(at - data), "data: {", 7)) != NULL;
         at += 7) {
        if (r->events++ != 0) { /* the first one says who speaks */
            if (counts) {
                add(r->events == 2 ? &l->first : &l->between,
                    now - (r->events == 2 ? r->sent_ns : r->last_ns));
                l->tokens++;
            }
            r->last_ns = now;
        }
    }
}

static void on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err)
{
    struct request *r = ctx;
    struct load *l = r->load;
    (void)bytes_sent, (void)err;
    int64_t now = now_ns();
    l->open--;
    if (rc != AT_OK || r->status != 200) {
        l->failed++;
    } else if (now > l->begun_ns + WARM_NS && now < l->end_ns) {
        l->done++;
        add(&l->total, now - r->sent_ns);
    }
    if (l->rate == 0 && now < l->end_ns) {
        send_one(l);
    }
    at_free(r);
}

static void send_one(struct load *l)
{
    struct request *r = AT_NEW(struct request);
    r->load = l;
    r->sent_ns = now_ns();
    struct at_http_call call = {.addr = l->addr,
                                .method = AT_HTTP_POST,
                                .target = l->path,
                                .headers = l->headers,
                                .body = l->body.data,
                                .body_len = l->body.len,
                                .timeout_ns = 60 * AT_NS_PER_S,
                                .ctx = r,
                                .on_head = on_head,
                                .on_body = on_body,
                                .on_done = on_done};
    l->open++;
    (void)at_http_call(l->client, &call);
}

static double uniform(struct load *l)
{
    l->seed = l->seed * 6364136223846793005u + 1442695040888963407u;
    return ((double)(l->seed >> 11) + 1) / 9007199254740993.0;
}

static void on_arrival(void *ctx)
{
    struct load *l = ctx;
    int64_t now = now_ns();
    if (now >= l->end_ns) {
        return;
    }
    for (; l->next_ns <= now; l->next_ns += (int64_t)(-log(uniform(l)) / l->rate * 1e9)) {
        send_one(l);
    }
    at_loop_timer(l->loop, l->next_ns - now, on_arrival, l);
}

static int run_load(int argc, char **argv)
{
    struct load l = {.addr = argv[1], .path = argv[2], .seed = 1};
    char piece[65536];
    size_t n;
    while ((n = fread(piece, 1, sizeof piece, stdin)) != 0) {
        if (at_buf_append(&l.body, piece, n) != AT_OK) {
            return 1;
        }
    }
    l.headers = argc > 5 ? at_asprintf("Inference-Header-Content-Length: %s\r\n", argv[5])
                         : at_strdup("Content-Type: application/json\r\n");
    struct samples *all[] = {&l.total, &l.first, &l.between};
    for (size_t i = 0; i < AT_ARRAY_LEN(all); i++) {
        all[i]->ns = at_alloc(SAMPLES_MAX * sizeof(int64_t));
    }
    l.loop = at_loop_new(at_sys_real());
    l.client =
        at_http_client_new(l.loop, &(struct at_http_client_options){
                                       .connections_per_address_max = 256, .waiting_max = 100000});
    l.begun_ns = now_ns();
    l.end_ns = l.begun_ns + (int64_t)(atof(argv[3]) * 1e9);
    if (strncmp(argv[4], "rate=", 5) == 0) {
        l.rate = atof(argv[4] + 5);
        l.next_ns = l.begun_ns;
        on_arrival(&l);
    }
    for (int i = 0; l.rate == 0 && i < atoi(argv[4]); i++) {
        send_one(&l);
    }
    while (now_ns() < l.end_ns || (l.open != 0 && now_ns() < l.end_ns + 10 * AT_NS_PER_S)) {
        at_loop_turn(l.loop, now_ns() + 10 * AT_NS_PER_MS);
    }
    double seconds = (double)(l.end_ns - l.begun_ns - WARM_NS) / 1e9;
    printf("{\"requests_s\": %.2f, \"tokens_s\": %.2f, \"failed\": %zu, \"p50_ms\": %.4f, "
           "\"p95_ms\": %.4f, "
           "\"ttft_p50_ms\": %.3f, \"ttft_p95_ms\": %.3f, \"itl_p50_ms\": %.3f, \"itl_p95_ms\": "
           "%.3f}\n",
           (double)l.done / seconds, (double)l.tokens / seconds, l.failed,
           quantile_ms(&l.total, 0.5), quantile_ms(&l.total, 0.95), quantile_ms(&l.first, 0.5),
           quantile_ms(&l.first, 0.95), quantile_ms(&l.between, 0.5),
           quantile_ms(&l.between, 0.95));
    at_http_client_free(l.client);
    at_loop_free(l.loop);
    return l.failed != 0 && l.done == 0;
}

#if WITH_ONNX
/* Items a second of the engine by itself, with a batch of each size: floats, of the first input. */
static int run_engine(const char *library, const char *path)
{
    struct at_err err = {0};
    struct at_ort *ort = NULL;
    struct at_ort_model *model = NULL;
    struct at_ort_lane *lane = NULL;
    if (at_ort_open(library, &ort, &err) != AT_OK ||
        at_ort_model_load(ort, path, "m", NULL, 1, &model, &err) != AT_OK ||
        at_ort_lane_new(model, false, &lane, &err) != AT_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    const struct at_oip_spec *spec = at_ort_model_spec(model);
    printf("{");
    for (int64_t batch = 1; batch <= 64; batch *= 2) {
        struct at_arena *arena = at_arena_new((size_t)1 << 30);
        struct at_oip_request request = {.n_outputs = spec->n_outputs};
        struct at_oip_tensor outputs[AT_OIP_TENSORS_MAX], *out = outputs;
        const struct at_oip_request *one = &request;
        struct at_oip_tensor *in = &request.inputs[0];
        for (size_t o = 0; o < spec->n_outputs; o++) {
            request.outputs[o] = o;
        }
        in->n_dims = spec->inputs[0].n_dims;
        in->n_elements = 1;
        for (size_t d = 0; d < in->n_dims; d++) {
            in->shape[d] = d == 0 ? batch : spec->inputs[0].shape[d];
            in->n_elements *= (size_t)in->shape[d];
        }
        in->data = at_arena_alloc(arena, in->n_elements * sizeof(float));
        size_t runs = 0;
        int64_t begun = now_ns(), now = begun;
        for (; now < begun + 400 * AT_NS_PER_MS; now = now_ns(), runs++) {
            if (at_ort_lane_run(lane, &one, 1, arena, &out, &err) != AT_OK) {
                fprintf(stderr, "%s\n", err.msg);
                return 1;
            }
        }
        printf("%s\"%lld\": %.1f", batch == 1 ? "" : ", ", (long long)batch,
               (double)(runs * (size_t)batch) * 1e9 / (double)(now - begun));
        at_arena_free(arena);
    }
    printf("}\n");
    at_ort_lane_free(lane);
    at_ort_model_free(model);
    at_ort_free(ort);
    return 0;
}
#endif

int main(int argc, char **argv)
{
#if WITH_ONNX
    if (argc == 4 && strcmp(argv[1], "engine") == 0) {
        return run_engine(argv[2], argv[3]);
    }
#endif
    if (argc < 5) {
        fputs(
            "usage: bench-runner-load ADDR PATH SECONDS CONCURRENCY|rate=N [HEADER-LENGTH] < BODY\n"
            "       bench-runner-load engine LIBRARY MODEL\n",
            stderr);
        return 2;
    }
    return run_load(argc, argv);
}
