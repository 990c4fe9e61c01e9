/* GET /admin/v1/backup while other things go on. */
#include "api/api_priv.h"
#include "api/kit_test.h"

#include "store/dump.h"

#define BACKUP "/admin/v1/backup"
#define MAPS "/api/v1/namespaces/default/configmaps"

struct seen {
    size_t maps;
    char ca[4096], key[4096];
    int64_t newest;
};

static enum at_rc on_file(void *ctx, const char *name, const char *data, size_t len,
                          struct at_err *err)
{
    struct seen *s = ctx;
    (void)err;
    bool ca = strcmp(name, "pki/ca.crt") == 0;
    snprintf(ca ? s->ca : s->key, sizeof s->ca, "%.*s", (int)len, data);
    return AT_OK;
}

static enum at_rc on_key(void *ctx, const struct at_store_kv *kv, struct at_err *err)
{
    struct seen *s = ctx;
    (void)err;
    s->maps += strstr(kv->key, "/configmaps/") != NULL;
    s->newest = kv->mod_rev > s->newest ? kv->mod_rev : s->newest;
    return AT_OK;
}

static struct at_dump_summary read_back(const struct kit_answer *a, struct seen *seen)
{
    struct at_dump_summary summary = {0};
    struct at_err err = {0};
    struct at_dump_events events = {.ctx = seen, .file = on_file, .key = on_key};
    struct at_dump_reader *r = at_dump_reader_new(&events);
    enum at_rc rc = at_dump_reader_feed(r, a->body.data, a->body.len, &err);
    if (rc == AT_OK) {
        rc = at_dump_reader_end(r, &summary, &err);
    }
    if (rc != AT_OK) {
        fail_msg("%s", err.msg);
    }
    at_dump_reader_free(r);
    return summary;
}

static void make_map(struct kit *kit, const char *name, size_t bytes)
{
    struct kit_answer a;
    char *text = at_alloc(bytes + 1);
    memset(text, 'x', bytes);
    char *body = at_asprintf("{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":"
                             "{\"name\":\"%s\"},\"data\":{\"t\":\"%s\"}}",
                             name, text);
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_POST, MAPS, "Content-Type: application/json\r\n", body), 201);
    answer_done(&a);
    at_free(body);
    at_free(text);
}

static void a_backup_is_of_one_revision_while_writes_go_on(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    struct seen seen = {0};
    char name[32];
    char cert[80];
    char key[80];
    const struct at_api_backup_file files[] = {
        {"pki/ca.crt", cert}, {"pki/ca.key", key}, {NULL, NULL}};
    snprintf(cert, sizeof cert, "%s/ca.crt", kit->dir);
    snprintf(key, sizeof key, "%s/ca.key", kit->dir);
    kit->api->options.backup_files = files;
    for (int i = 0; i < 30; i++) {
        snprintf(name, sizeof name, "m%d", i);
        make_map(kit, name, 100000);
    }
    int64_t before = at_store_rev(kit->store);
    kit_start(kit, &a, NULL, AT_HTTP_GET, BACKUP, NULL, NULL);
    KIT_UNTIL(kit, a.body.len > 0);
    int64_t late = at_store_rev(kit->store);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "late%d", i);
        make_map(kit, name, 10);
    }
    KIT_UNTIL(kit, a.done);
    assert_int_equal(a.rc, AT_OK);
    assert_int_equal(a.status, 200);
    struct at_dump_summary summary = read_back(&a, &seen);
    assert_true(summary.head.rev >= before);
    assert_true(summary.head.rev <= late);
    assert_true(seen.newest <= summary.head.rev);
    assert_int_equal(seen.maps, 30);
    assert_int_equal(summary.files, 2);
    assert_string_equal(seen.ca, at_ca_cert_pem(kit->ca));
    assert_non_null(strstr(seen.key, "PRIVATE KEY"));
    answer_done(&a);
}

static void an_authority_that_cannot_be_read_is_no_backup(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    const struct at_api_backup_file files[] = {{"pki/ca.crt", "/nonexistent/ca.crt"}, {NULL, NULL}};
    kit->api->options.backup_files = files;
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, BACKUP, NULL, NULL), 500);
    answer_done(&a);
    kit->api->options.backup_files = NULL;
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, BACKUP, NULL, NULL), 200);
    answer_done(&a);
}

static void only_admins_get_one_and_the_attempt_is_audited(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    static const char *const GROUPS[] = {AT_GROUP_VIEWERS, AT_GROUP_EDITORS, AT_GROUP_NODES,
                                         AT_GROUP_GATEWAYS};
    for (size_t i = 0; i < AT_ARRAY_LEN(GROUPS); i++) {
        struct at_tls_config *who = kit_identity(kit, "system:node:bob", GROUPS[i]);
        kit_call(kit, &a, who, AT_HTTP_GET, BACKUP, NULL, NULL);
        assert_int_equal(a.status, 403);
        answer_done(&a);
        at_tls_config_unref(who);
    }
    kit_call(kit, &a, kit->client_tls, AT_HTTP_GET, BACKUP, NULL, NULL);
    assert_int_equal(a.status, 401);
    answer_done(&a);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_POST, BACKUP, NULL, "{}"), 405);
    answer_done(&a);
    at_buf_clear(&kit->audit);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, BACKUP, NULL, NULL), 200);
    answer_done(&a);
    assert_non_null(strstr(kit->audit.data, BACKUP));
}

static void one_at_a_time_and_a_client_that_leaves_makes_room(void **state)
{
    struct kit *kit = *state;
    struct kit_answer first;
    struct kit_answer a;
    char name[32];
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "m%d", i);
        make_map(kit, name, 500000); /* more than the connection's buffers hold */
    }
    kit_start(kit, &first, NULL, AT_HTTP_GET, BACKUP, NULL, NULL);
    KIT_UNTIL(kit, first.body.len > 0);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, BACKUP, NULL, NULL), 429);
    answer_done(&a);
    at_http_call_cancel(kit->client, first.call);
    KIT_UNTIL(kit, first.done);
    answer_done(&first);
    bool served = false;
    while (!served) { /* until the server has seen that the first one left */
        int status = kit_admin(kit, &a, AT_HTTP_GET, BACKUP, NULL, NULL);
        assert_true(status == 200 || status == 429);
        served = status == 200;
        if (served) {
            struct seen seen = {0};
            read_back(&a, &seen);
            assert_int_equal(seen.maps, 40);
        }
        answer_done(&a);
    }
}

static void the_end_of_the_server_cuts_a_backup_off(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "m%d", i);
        make_map(kit, name, 500000);
    }
    kit_start(kit, &a, NULL, AT_HTTP_GET, BACKUP, NULL, NULL);
    KIT_UNTIL(kit, a.body.len > 0);
    at_api_free(kit->api);
    kit->api = NULL;
    KIT_UNTIL(kit, a.done);
    assert_int_not_equal(a.rc, AT_OK);
    answer_done(&a);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, kit_set_up, kit_tear_down)
    const struct CMUnitTest tests[] = {
        T(a_backup_is_of_one_revision_while_writes_go_on),
        T(an_authority_that_cannot_be_read_is_no_backup),
        T(only_admins_get_one_and_the_attempt_is_audited),
        T(one_at_a_time_and_a_client_that_leaves_makes_room),
        T(the_end_of_the_server_cuts_a_backup_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
