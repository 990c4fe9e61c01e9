/* The back end of bench/gateway: answers every request with the same bytes, one read and one write
 * each, on one epoll. Usage: bench-gateway-back PORT BODY_BYTES|chat; chat is an OpenAI answer with
 * its usage */
#include "gateway_net.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>

#define ROOM 16384

struct conn {
    int fd;
    size_t have, skip; /* bytes of a head; bytes of a body still to come */
    char in[ROOM];
};

static char answer[131072];
static size_t answer_len;

static void make_chat(void)
{
    static const char BODY[] =
        "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\","
        "\"choices\":["
        "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A short answer to it.\"},"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":210,\"completion_tokens\":6,"
        "\"total_tokens\":216}}";
    answer_len = (size_t)snprintf(answer, sizeof answer,
                                  "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                                  "Content-Length: %zu\r\n\r\n%s",
                                  sizeof BODY - 1, BODY);
}

static void make_answer(size_t body)
{
    if (body > sizeof answer - 512) {
        die("body");
    }
    int n = snprintf(answer, sizeof answer,
                     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                     "%zu\r\n\r\n",
                     body);
    memset(answer + n, 'x', body);
    answer_len = (size_t)n + body;
}

static size_t length_of(const char *head, size_t len)
{
    for (const char *p = head; (p = memchr(p, '\n', len - (size_t)(p - head))) != NULL; p++) {
        if (strncasecmp(p + 1, "content-length:", 15) == 0) {
            return strtoul(p + 16, NULL, 10);
        }
    }
    return 0;
}

/* Complete requests among what came. */
static int take(struct conn *c, size_t came)
{
    int done = 0;
    size_t skip = came < c->skip ? came : c->skip;
    if (c->skip > 0) {
        c->skip -= skip;
        done += c->skip == 0;
        memmove(c->in, c->in + skip, came - skip);
        came -= skip;
    }
    c->have += came;
    for (char *end; (end = memmem(c->in, c->have, "\r\n\r\n", 4)) != NULL;) {
        size_t head = (size_t)(end - c->in) + 4;
        size_t whole = head + length_of(c->in, head);
        size_t used = whole < c->have ? whole : c->have;
        c->skip = whole - used;
        done += c->skip == 0;
        memmove(c->in, c->in + used, c->have - used);
        c->have -= used;
    }
    return done;
}

static void serve(struct conn *c)
{
    ssize_t n = recv(c->fd, c->in + c->have, sizeof c->in - c->have, 0);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    int done = n > 0 ? take(c, (size_t)n) : -1;
    for (int i = 0; i < done; i++) {
        if (send(c->fd, answer, answer_len, MSG_NOSIGNAL) != (ssize_t)answer_len) {
            done = -1;
        }
    }
    if (done < 0) {
        close(c->fd);
        free(c);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s PORT BODY_BYTES\n", argv[0]);
        return 2;
    }
    int ep = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on(argv[1]);
    struct epoll_event ev = {.events = EPOLLIN};
    if (strcmp(argv[2], "chat") == 0) {
        make_chat();
    } else {
        make_answer(strtoul(argv[2], NULL, 10));
    }
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(ep, events, 256, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr != NULL) {
                serve(events[i].data.ptr);
                continue;
            }
            int fd;
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                struct conn *c = calloc(1, sizeof *c);
                int room = 1 << 20; /* an answer always fits */
                setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
                no_delay(fd);
                c->fd = fd;
                ev = (struct epoll_event){.events = EPOLLIN, .data.ptr = c};
                epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
            }
        }
    }
}
