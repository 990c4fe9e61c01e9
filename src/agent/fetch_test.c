#include "agent/agent_priv.h"

#include "core/digest.h"
#include "net/http_server.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL_TEXT "weights of a model"

struct fixture {
    struct at_agent agent;
    struct at_http_server *server;
    char *dir, *models;
    int requests;
};

static void serve(void *ctx, struct at_http_exchange *ex)
{
    struct fixture *f = ctx;
    f->requests++;
    bool there = at_str_eq(at_http_request(ex)->path, "/model");
    at_http_respond(ex, there ? 200 : 404, "application/octet-stream", NULL,
                    there ? MODEL_TEXT : "no", there ? strlen(MODEL_TEXT) : 2);
}

static int open_fixture(void **state)
{
    struct fixture *f = AT_NEW(struct fixture);
    const char *base = getenv("TMPDIR");
    char *template = at_asprintf("%s/atoll-fetch-XXXXXX", base != NULL ? base : "/tmp");
    f->dir = mkdtemp(template);
    assert_non_null(f->dir);
    f->models = at_asprintf("%s/shelf", f->dir);
    struct at_agent *a = &f->agent;
    a->loop = at_loop_new(at_sys_real());
    a->pool = at_pool_new(2, 64);
    a->state_dir = f->dir;
    a->models_dir = f->models;
    a->http = at_http_client_new(a->loop, &(struct at_http_client_options){0});
    const char *const folders[] = {"models/sha256", "models/uri", "shelf"};
    for (size_t i = 0; i < AT_ARRAY_LEN(folders); i++) {
        AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", f->dir, folders[i]);
        assert_int_equal(at_dir_make(path, 0755, NULL), AT_OK);
    }
    AT_CLEANUP(at_cleanup_free) char *model = at_asprintf("%s/m.onnx", f->models);
    assert_int_equal(at_file_append(model, MODEL_TEXT, strlen(MODEL_TEXT), 0600, NULL), AT_OK);
    struct at_http_server_options options = {.listen = "127.0.0.1:0",
                                             .body_bytes_max = 1000,
                                             .connections_max = 10,
                                             .idle_timeout_ns = 10 * AT_NS_PER_S,
                                             .head_timeout_ns = 10 * AT_NS_PER_S,
                                             .handler = serve,
                                             .ctx = f};
    assert_int_equal(at_http_server_new(a->loop, &options, &f->server, NULL), AT_OK);
    a->fetches = agent_fetches_new(a);
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    struct at_agent *a = &f->agent;
    agent_fetches_free(a->fetches);
    at_http_client_free(a->http);
    at_http_server_free(f->server);
    at_pool_finish(a->pool);
    at_loop_turn(a->loop, 0);
    at_loop_free(a->loop);
    int failed = at_tree_remove(f->dir, NULL) == AT_OK ? 0 : -1;
    at_free(f->dir);
    at_free(f->models);
    at_free(f);
    return failed;
}

struct answer {
    bool told;
    enum at_rc rc;
    char path[400];
    char message[AT_ERR_MSG_BYTES_MAX];
};

static void on_answer(void *ctx, enum at_rc rc, const char *path, const struct at_err *err)
{
    struct answer *a = ctx;
    assert_false(a->told);
    a->told = true;
    a->rc = rc;
    snprintf(a->path, sizeof a->path, "%s", path);
    snprintf(a->message, sizeof a->message, "%s", err != NULL ? err->msg : "");
}

static void turn_until(struct fixture *f, const bool *flag)
{
    int64_t end = at_sys_mono_ns(at_sys_real()) + 30 * AT_NS_PER_S;
    while (!*flag) {
        assert_true(at_sys_mono_ns(at_sys_real()) < end);
        at_loop_turn(f->agent.loop, end);
    }
}

static struct answer fetch(struct fixture *f, const char *uri, const char *digest)
{
    struct at_model_ref model = {.uri = uri, .digest = digest};
    struct answer a = {0};
    agent_fetch(f->agent.fetches, &model, on_answer, &a);
    assert_false(a.told); /* never within the call */
    turn_until(f, &a.told);
    return a;
}

static char *right_digest(void)
{
    char hex[AT_SHA256_HEX_BYTES];
    at_sha256_hex(MODEL_TEXT, strlen(MODEL_TEXT), hex);
    return at_asprintf("sha256:%s", hex);
}

#define WRONG_DIGEST "sha256:00000000000000000000000000000000000000000000000000000000000000ff"

static void assert_model_at(const char *path)
{
    struct at_buf text = {0};
    assert_int_equal(at_file_read(path, 1000, &text, NULL), AT_OK);
    assert_string_equal(text.data, MODEL_TEXT);
    at_buf_done(&text);
}

static size_t files_in(const struct fixture *f, const char *folder)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/models/%s", f->dir, folder);
    char **names;
    size_t n;
    assert_int_equal(at_dir_list(path, &names, &n, NULL), AT_OK);
    for (size_t i = 0; i < n; i++) {
        at_free(names[i]);
    }
    at_free(names);
    return n;
}

static void a_pinned_file_lands_under_its_digest(void **state)
{
    struct fixture *f = *state;
    AT_CLEANUP(at_cleanup_free) char *digest = right_digest();
    struct answer a = fetch(f, "file:m.onnx", digest);
    assert_int_equal(a.rc, AT_OK);
    assert_non_null(strstr(a.path, "/models/sha256/"));
    assert_model_at(a.path);
    /* From now on the cache is enough. */
    AT_CLEANUP(at_cleanup_free) char *model = at_asprintf("%s/m.onnx", f->models);
    assert_int_equal(at_file_remove(model, NULL), AT_OK);
    assert_int_equal(fetch(f, "file:m.onnx", digest).rc, AT_OK);
    assert_int_equal(files_in(f, "sha256"), 1);
}

static void another_digest_is_refused_and_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct answer a = fetch(f, "file:m.onnx", WRONG_DIGEST);
    assert_int_equal(a.rc, AT_CORRUPT);
    assert_non_null(strstr(a.message, WRONG_DIGEST));
    assert_int_equal(files_in(f, "sha256"), 0);
}

static void missing_files_and_strange_uris_are_named(void **state)
{
    struct fixture *f = *state;
    const char *const uris[] = {"file:///no/such/model", "file:none.onnx", "file:../m.onnx",
                                "file:/relative", "file:"};
    for (size_t i = 0; i < AT_ARRAY_LEN(uris); i++) {
        struct answer a = fetch(f, uris[i], NULL);
        assert_int_equal(a.rc, AT_NOT_FOUND);
        assert_true(strlen(a.message) > 10);
    }
    assert_int_not_equal(fetch(f, "gopher://x/y", NULL).rc, AT_OK);
    assert_int_not_equal(fetch(f, "nonsense", NULL).rc, AT_OK);
}

static void without_a_digest_the_file_is_read_anew(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fetch(f, "file:m.onnx", NULL).rc, AT_OK);
    AT_CLEANUP(at_cleanup_free) char *model = at_asprintf("%s/m.onnx", f->models);
    assert_int_equal(at_file_write_atomic(model, "newer", 5, 0600, NULL), AT_OK);
    struct answer a = fetch(f, "file:m.onnx", NULL);
    assert_int_equal(a.rc, AT_OK);
    assert_int_equal(at_file_size(a.path), 5);
    assert_int_equal(files_in(f, "uri"), 1);
}

static void downloads_are_verified_and_shared(void **state)
{
    struct fixture *f = *state;
    AT_CLEANUP(at_cleanup_free) char *digest = right_digest();
    AT_CLEANUP(at_cleanup_free)
    char *uri = at_asprintf("http://%s/model", at_http_server_addr(f->server));
    AT_CLEANUP(at_cleanup_free)
    char *absent = at_asprintf("http://%s/other", at_http_server_addr(f->server));
    struct at_model_ref model = {.uri = uri, .digest = digest};
    struct answer a = {0}, b = {0}, c = {0};
    agent_fetch(f->agent.fetches, &model, on_answer, &a);
    agent_fetch(f->agent.fetches, &model, on_answer, &b);
    agent_fetch(f->agent.fetches, &model, on_answer, &c);
    agent_fetch_forget(f->agent.fetches, &c);
    turn_until(f, &a.told);
    assert_int_equal(a.rc, AT_OK);
    assert_true(b.told);
    assert_string_equal(a.path, b.path);
    assert_false(c.told);
    assert_int_equal(f->requests, 1);
    assert_model_at(a.path);
    struct answer d = fetch(f, absent, NULL);
    assert_int_equal(d.rc, AT_NOT_FOUND);
    assert_int_equal(fetch(f, uri, WRONG_DIGEST).rc, AT_CORRUPT);
    assert_int_equal(files_in(f, "sha256"), 1);
}

static void a_server_that_is_away_is_worth_a_retry(void **state)
{
    struct fixture *f = *state;
    AT_CLEANUP(at_cleanup_free)
    char *uri = at_asprintf("http://%s/model", at_http_server_addr(f->server));
    at_http_server_free(f->server);
    f->server = NULL;
    struct answer a = fetch(f, uri, NULL);
    assert_int_not_equal(a.rc, AT_OK);
    assert_int_not_equal(a.rc, AT_NOT_FOUND);
    assert_int_not_equal(a.rc, AT_CORRUPT);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, open_fixture, close_fixture)
    const struct CMUnitTest tests[] = {
        T(a_pinned_file_lands_under_its_digest),
        T(another_digest_is_refused_and_leaves_nothing),
        T(missing_files_and_strange_uris_are_named),
        T(without_a_digest_the_file_is_read_anew),
        T(downloads_are_verified_and_shared),
        T(a_server_that_is_away_is_worth_a_retry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
