/* Requests for bench/keys: clients on kept connections, each sending the next when the last is
 * answered, each with a token chosen at random from a file's lines (or line by line, each once).
 * Usage: bench-keys-load PORT CLIENTS REQUESTS infer|chat FILE [in-turn]
 * One line of JSON: requests that were refused, latencies. */
#include "gateway_net.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>

#define CLIENTS_MAX 256
#define TOKEN_BYTES 128
#define CHAT                                                                                       \
    "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"yes?\"}],\"max_tokens\":16}"
#define INFER "{\"inputs\":[]}"

struct client {
    int fd;
    size_t have;
    double began;
    char in[16384];
};

static char (*tokens)[TOKEN_BYTES];
static size_t n_tokens, asked, bad, answered;
static uint64_t random_state = 88172645463325252u;
static double *took;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static size_t random_below(size_t n)
{
    random_state ^= random_state << 13; /* xorshift64 */
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (size_t)(random_state % n);
}

static void read_tokens(const char *file)
{
    FILE *f = fopen(file, "r");
    char line[TOKEN_BYTES];
    if (f == NULL) {
        die(file);
    }
    while (fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        tokens = realloc(tokens, (n_tokens + 1) * sizeof *tokens);
        memcpy(tokens[n_tokens++], line, sizeof line);
    }
    fclose(f);
}

static void ask(struct client *c, bool chat, bool in_turn)
{
    char text[1024];
    const char *body = chat ? CHAT : INFER;
    size_t which = in_turn ? asked % n_tokens : random_below(n_tokens);
    int n = snprintf(text, sizeof text,
                     "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     "Authorization: Bearer %s\r\nContent-Length: %zu\r\n\r\n%s",
                     chat ? "/v1/chat/completions" : "/v2/models/m/infer", tokens[which],
                     strlen(body), body);
    asked++;
    c->have = 0;
    c->began = now_s();
    if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n) {
        die("send");
    }
}

/* Is the answer whole? */
static bool is_whole(struct client *c)
{
    ssize_t n = recv(c->fd, c->in + c->have, sizeof c->in - 1 - c->have, 0);
    if (n <= 0) {
        die("recv");
    }
    c->have += (size_t)n;
    c->in[c->have] = '\0';
    const char *end = strstr(c->in, "\r\n\r\n");
    const char *length = strcasestr(c->in, "\r\ncontent-length:");
    return end != NULL && length != NULL &&
           c->have >= (size_t)(end - c->in) + 4 + strtoul(length + 17, NULL, 10);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "usage: %s PORT CLIENTS REQUESTS infer|chat FILE [in-turn]\n", argv[0]);
        return 2;
    }
    static struct client clients[CLIENTS_MAX];
    size_t n_clients = strtoul(argv[2], NULL, 10), n_requests = strtoul(argv[3], NULL, 10);
    bool chat = strcmp(argv[4], "chat") == 0, in_turn = argc > 6;
    int ep = epoll_create1(EPOLL_CLOEXEC);
    read_tokens(argv[5]);
    took = calloc(n_requests + 1, sizeof *took);
    n_clients = n_clients < CLIENTS_MAX ? n_clients : CLIENTS_MAX;
    for (size_t i = 0; i < n_clients && i < n_requests; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &clients[i]};
        clients[i].fd = connect_to(argv[1]);
        epoll_ctl(ep, EPOLL_CTL_ADD, clients[i].fd, &ev);
        ask(&clients[i], chat, in_turn);
    }
    while (answered < n_requests) {
        struct epoll_event events[64];
        int n = epoll_wait(ep, events, 64, -1);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (!is_whole(c)) {
                continue;
            }
            bad += strncmp(c->in, "HTTP/1.1 200", 12) != 0;
            took[answered++] = now_s() - c->began;
            if (asked < n_requests) {
                ask(c, chat, in_turn);
            }
        }
    }
    qsort(took, n_requests, sizeof *took, by_size);
    printf("{\"bad\": %zu, \"median_ms\": %.3f, \"p99_ms\": %.3f}\n", bad,
           took[n_requests / 2] * 1e3, took[n_requests * 99 / 100] * 1e3);
    return 0;
}
