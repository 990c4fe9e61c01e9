/* A back end of Atoll's own kind for bench/gateway: what our runners are made of, with a fixed
 * answer, so that the gateway may have many requests in flight on one connection.
 * Usage: bench-gateway-mux ADDR BODY_BYTES */
#include "core/mem.h"
#include "core/str.h"
#include "net/http_server.h"

#include <stdio.h>

struct back {
    char *body;
    size_t len;
};

static void answer(void *ctx, struct at_http_exchange *ex)
{
    const struct back *back = ctx;
    at_http_respond(ex, 200, "application/json", NULL, back->body, back->len);
}

int main(int argc, char **argv)
{
    uint64_t len = 0;
    if (argc != 3 || at_str_to_u64(at_str_of(argv[2]), &len) != AT_OK) {
        fprintf(stderr, "usage: %s ADDR BODY_BYTES\n", argv[0]);
        return 2;
    }
    struct back back = {.body = at_alloc(len + 1), .len = len};
    struct at_loop *loop = NULL;
    struct at_http_server *server;
    struct at_err err;
    memset(back.body, 'x', len);
    struct at_http_server_options o = {
        .listen = argv[1], .mux = true, .handler = answer, .ctx = &back};
    if (at_loop_new_on(at_sys_real(), AT_LOOP_AUTO, &loop, &err) != AT_OK ||
        at_http_server_new(loop, &o, &server, &err) != AT_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    at_loop_run(loop);
    return 0;
}
