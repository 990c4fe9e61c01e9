/* Streams and steady rates for bench/gateway_report. Uses nothing of Atoll.
 *   bench-gateway-stream back PORT               a back end whose every answer is an endless stream
 * of server-sent events, 50 a second bench-gateway-stream streams PORT N SECONDS  opens N such
 * streams; prints events received, and the median and 99th percentile of the time between two
 *   bench-gateway-stream rate PORT N RPS SECONDS N kept connections, requests at fixed times;
 * prints how many, median and 99th percentile of the time from when each was due to the end of its
 * answer */
#include "gateway_net.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>

#define PHASES 20 /* milliseconds between two events of a stream */
#define STREAMS_MAX 16384
#define BUCKETS 1000000 /* of latencies, a microsecond each; the last is for all above */
#define STREAM_BODY                                                                                \
    "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"

struct conn {
    int fd, phase;
    int64_t due_ns, last_ns; /* a request's; a stream's last event */
    size_t got;
    struct conn *next;
};

static struct conn conns[STREAMS_MAX];
static struct conn *by_phase[PHASES];
static uint64_t buckets[BUCKETS], total;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void observe(int64_t ns)
{
    int64_t us = ns / 1000;
    buckets[us < 0 ? 0 : us < BUCKETS ? us : BUCKETS - 1]++;
    total++;
}

static int percentile_us(double share)
{
    uint64_t want = (uint64_t)((double)total * share), seen = 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += buckets[i];
        if (seen > want) {
            return i;
        }
    }
    return BUCKETS - 1;
}

static void watch(int ep, int fd, void *what)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0) {
        die("epoll_ctl");
    }
}

/* --- the back end --- */

static void begin_stream(struct conn *c, int number)
{
    static const char HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    char scratch[4096];
    ssize_t n = recv(c->fd, scratch, sizeof scratch, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) {
            close(c->fd); /* takes it out of the epoll; sends to it fail from now on */
            c->fd = -1;
        }
        return;
    }
    if (c->phase < 0 && send(c->fd, HEAD, sizeof HEAD - 1, MSG_NOSIGNAL) > 0) {
        c->phase = number % PHASES;
        c->next = by_phase[c->phase];
        by_phase[c->phase] = c;
    }
}

static void send_events(int phase)
{
    static const char EVENT[] =
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"}}]}\n\n";
    static char chunk[sizeof EVENT + 16];
    static int len;
    if (len == 0) {
        len = snprintf(chunk, sizeof chunk, "%zx\r\n%s\r\n", sizeof EVENT - 1, EVENT);
    }
    for (struct conn *c = by_phase[phase]; c != NULL; c = c->next) {
        if (c->fd >= 0) {
            (void)!send(c->fd, chunk, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
    }
}

static void back(const char *port)
{
    int ep = epoll_create1(EPOLL_CLOEXEC), listener = listen_on(port);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct itimerspec each = {{0, 1000000}, {0, 1000000}};
    int n_conns = 0;
    uint64_t tick = 0;
    timerfd_settime(timer, 0, &each, NULL);
    watch(ep, listener, &listener);
    watch(ep, timer, &timer);
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(ep, events, 256, -1);
        for (int i = 0; i < n; i++) {
            uint64_t ticks;
            int fd;
            if (events[i].data.ptr == &timer) {
                for (ticks = 0; read(timer, &ticks, sizeof ticks) > 0;) {
                    for (ticks = ticks < PHASES ? ticks : PHASES; ticks > 0; ticks--) {
                        send_events((int)(tick++ % PHASES));
                    }
                }
            } else if (events[i].data.ptr != &listener) {
                struct conn *c = events[i].data.ptr;
                begin_stream(c, (int)(c - conns));
            } else {
                while (n_conns < STREAMS_MAX &&
                       (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    struct conn *c = &conns[n_conns++];
                    *c = (struct conn){.fd = fd, .phase = -1};
                    no_delay(fd);
                    watch(ep, fd, c);
                }
            }
        }
    }
}

/* --- the loads --- */

static void streams(const char *port, int n, int seconds)
{
    char request[512], in[16384];
    int len =
        snprintf(request, sizeof request,
                 "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s",
                 sizeof STREAM_BODY - 1, STREAM_BODY);
    int ep = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < n; i++) {
        conns[i] = (struct conn){.fd = connect_to(port)};
        watch(ep, conns[i].fd, &conns[i]);
        if (send(conns[i].fd, request, (size_t)len, MSG_NOSIGNAL) != len) {
            die("send");
        }
    }
    uint64_t received = 0;
    int64_t start = now_ns() + 1000000000, end = start + (int64_t)seconds * 1000000000;
    for (int64_t now = 0; now < end;) {
        struct epoll_event events[256];
        int ready = epoll_wait(ep, events, 256, 100);
        now = now_ns();
        for (int i = 0; i < ready; i++) {
            struct conn *c = events[i].data.ptr;
            ssize_t got = recv(c->fd, in, sizeof in, MSG_DONTWAIT);
            if (got <= 0) {
                fprintf(stderr, "a stream ended\n");
                exit(1);
            }
            int n_events = 0;
            for (char *p = in; (p = memmem(p, (size_t)(in + got - p), "data:", 5)) != NULL;
                 p += 5) {
                n_events++;
            }
            if (n_events > 0 && now >= start) {
                received += (uint64_t)n_events;
                if (c->last_ns > 0) {
                    observe(now - c->last_ns);
                }
            }
            c->last_ns = n_events > 0 ? now : c->last_ns;
        }
    }
    printf("%llu %d %d\n", (unsigned long long)received, percentile_us(0.5), percentile_us(0.99));
}

/* Answers are told apart by their size: all have the same. */
static size_t answer_bytes(int fd, const char *request, int len)
{
    char in[16384];
    size_t got = 0;
    (void)!send(fd, request, (size_t)len, MSG_NOSIGNAL);
    usleep(100000);
    ssize_t n = recv(fd, in, sizeof in, 0);
    got = n > 0 ? (size_t)n : 0;
    if (got < 12 || memcmp(in, "HTTP/1.1 200", 12) != 0) {
        fprintf(stderr, "no answer\n");
        exit(1);
    }
    return got;
}

static void rate(const char *port, int n, int rps, int seconds)
{
    static const char REQUEST[] = "GET /v2/models/m HTTP/1.1\r\nHost: x\r\n\r\n";
    char in[16384];
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct conn *idle = NULL;
    size_t whole = 0;
    for (int i = 0; i < n; i++) {
        struct conn *c = &conns[i];
        *c = (struct conn){.fd = connect_to(port), .next = idle};
        whole = answer_bytes(c->fd, REQUEST, sizeof REQUEST - 1);
        watch(ep, c->fd, c);
        idle = c;
    }
    prctl(PR_SET_TIMERSLACK, 1); /* requests leave when they are due */
    int64_t step = 1000000000 / rps, due = now_ns() + 10000000;
    int64_t warm = due + 500000000, end = warm + (int64_t)seconds * 1000000000;
    for (int64_t now = 0; now < end;) {
        now = now_ns();
        for (; due <= now && idle != NULL; due += step) {
            struct conn *c = idle;
            idle = c->next;
            c->due_ns = due;
            c->got = 0;
            (void)!send(c->fd, REQUEST, sizeof REQUEST - 1, MSG_NOSIGNAL);
        }
        struct epoll_event events[64];
        int64_t wait = idle == NULL ? 1000000 : due > now ? due - now : 0;
        struct timespec until = {wait / 1000000000, wait % 1000000000};
        int ready = epoll_pwait2(ep, events, 64, &until, NULL); /* the back end may need this CPU */
        for (int i = 0; i < ready; i++) {
            struct conn *c = events[i].data.ptr;
            ssize_t got = recv(c->fd, in, sizeof in, MSG_DONTWAIT);
            c->got += got > 0 ? (size_t)got : 0;
            if (got <= 0 || c->got > whole) {
                fprintf(stderr, "an answer of another size\n");
                exit(1);
            }
            if (c->got == whole) {
                if (c->due_ns >= warm) {
                    observe(now_ns() - c->due_ns);
                }
                c->next = idle;
                idle = c;
            }
        }
    }
    printf("%llu %d %d\n", (unsigned long long)total, percentile_us(0.5), percentile_us(0.99));
}

int main(int argc, char **argv)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (argc == 3 && strcmp(argv[1], "back") == 0) {
        back(argv[2]);
    } else if (argc == 5 && strcmp(argv[1], "streams") == 0 && atoi(argv[3]) <= STREAMS_MAX) {
        streams(argv[2], atoi(argv[3]), atoi(argv[4]));
    } else if (argc == 6 && strcmp(argv[1], "rate") == 0 && atoi(argv[3]) <= STREAMS_MAX) {
        rate(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
    } else {
        fprintf(stderr, "usage: see the head of gateway_stream.c\n");
        return 2;
    }
    return 0;
}
