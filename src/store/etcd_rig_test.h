/* Two stores on one etcd, the first through a proxy. */
#ifndef AT_STORE_ETCD_RIG_TEST_H
#define AT_STORE_ETCD_RIG_TEST_H

#include "store/store_test.h"

#include "store/etcd_proxy_test.h"

struct rig {
    struct fixture f;    /* through the proxy */
    struct fixture peer; /* another server on the same etcd, directly */
    struct proxy proxy;
    struct answer last;
};

static inline void peer_open(struct rig *r)
{
    r->peer.kind = "etcd";
    r->peer.loop = at_loop_new(at_sys_real());
    snprintf(r->peer.path, sizeof r->peer.path, "%s", r->f.etcd.url);
    fixture_open(&r->peer);
}

static inline int set_up(void **state)
{
    struct rig *r = AT_NEW(struct rig);
    fixture_init(&r->f, "etcd");
    proxy_start(&r->proxy, r->f.etcd.port);
    snprintf(r->f.path, sizeof r->f.path, "http://127.0.0.1:%d", r->proxy.port);
    fixture_open(&r->f);
    assert_int_equal(del(&r->f, "/none", -1).rc, AT_NOT_FOUND); /* which tells the scheme */
    peer_open(r);
    *state = r;
    return 0;
}

static inline int tear_down(void **state)
{
    struct rig *r = *state;
    at_store_close(r->peer.store);
    at_loop_free(r->peer.loop);
    at_store_close(r->f.store);
    r->f.store = NULL;
    assert_true(r->last.rc == AT_OK || r->last.rc == AT_UNAVAILABLE);
    proxy_stop(&r->proxy);
    fixture_done(&r->f);
    at_free(r);
    return 0;
}

static inline void turn_briefly(struct fixture *f)
{
    at_loop_turn(f->loop, at_sys_mono_ns(at_sys_real()) + 5 * AT_NS_PER_MS);
}

static inline void catch_up(struct fixture *f)
{
    struct answer a = {0};
    at_store_catch_up(f->store, on_write, &a);
    while (!a.done) {
        turn(f);
    }
    assert_int_equal(a.rc, AT_OK);
}

/* A request to etcd behind the stores' back; text is the whole answer. */
static inline void foreign_text(struct rig *r, const char *target, const char *body,
                                char text[2048])
{
    int fd = proxy_dial(r->f.etcd.port);
    int n = snprintf(text, 2048,
                     "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n"
                     "\r\n%s",
                     target, strlen(body), body);
    assert_int_equal(write(fd, text, (size_t)n), n);
    ssize_t got = 0;
    size_t used = 0;
    while ((got = read(fd, text + used, 2047 - used)) > 0) {
        used += (size_t)got;
    }
    text[used] = '\0';
    if (strstr(text, " 200 ") == NULL) {
        fail_msg("%s", text);
    }
    close(fd);
}

static inline void foreign(struct rig *r, const char *target, const char *body)
{
    char text[2048];
    foreign_text(r, target, body, text);
}

#endif
