/* Kubeconfig files: merging, places of entries, locks, who may change them, plug-ins. */
#include "client/kubeconfig.h"
#include "core/mem.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static const char *file(const char *name)
{
    static char paths[4][160];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static const char *put(const char *name, const char *text, mode_t mode)
{
    const char *path = file(name);
    assert_int_equal(at_file_write_atomic(path, text, strlen(text), mode, NULL), AT_OK);
    return path;
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/atoll-kubeconfig-XXXXXX");
    unsetenv("KUBECONFIG");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return at_tree_remove(dir, NULL) == AT_OK ? 0 : -1;
}

#define CLUSTER "clusters:\n- {name: c, cluster: {server: 'https://h:1'}}\n"

static void what_is_no_kubeconfig_is_refused_with_the_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } CASES[] = {
        {"- a\n", "no configuration"},
        {"hello\n", "no configuration"},
        {"a: 1\n---\nb: 2\n", "2 documents"},
        {"kind: Deployment\n", "not a Config"},
        {"apiVersion: v2\n", "not a Config of v1"},
        {"contexts: {a: 1}\n", "contexts is no list"},
        {"contexts: [a]\n", "contexts[0] has no name"},
        {"contexts: [{name: 7}]\n", "contexts[0] has no name"},
        {"users: [{name: x, user: [1]}]\n", "users[0].user is no object"},
        {"clusters: [{name: x, cluster: text}]\n", "clusters[0].cluster is no object"},
        {"current-context: [a]\n", "current-context is no text"},
        {"a: 1\na: 2\n", "a"},
        {"a: [1\n", "line"},
        {"\tkind: Config\n", "line"},
        {"a: *nowhere\n", "line"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        json_t *root = NULL;
        struct at_err err = {0};
        enum at_rc rc = at_kubeconfig_parse(CASES[i].text, strlen(CASES[i].text), &root, &err);
        if (rc == AT_OK || strstr(err.msg, CASES[i].says) == NULL) {
            fail_msg("%s: %s", CASES[i].text, err.msg);
        }
    }
    json_t *root = NULL;
    assert_int_equal(at_kubeconfig_parse("", 0, &root, NULL), AT_OK); /* kubectl takes it too */
    assert_int_equal(json_object_size(root), 0);
    json_decref(root);
}

static void the_first_file_that_has_an_entry_decides(void **state)
{
    (void)state;
    char list[512];
    put("one", "current-context: ''\nusers:\n- {name: u, user: {token: first}}\n", 0600);
    put("two",
        "current-context: x\ncontexts:\n- {name: x, context: {cluster: c, user: u}}\n" CLUSTER
        "users:\n- {name: u, user: {token: second}}\n- {name: v, user: {token: third}}\n",
        0600);
    put("three", "current-context: y\nclusters:\n- {name: c, cluster: {server: 'https://no'}}\n",
        0600);
    snprintf(list, sizeof list, ":%s/one:%s/absent:%s/two::%s/three", dir, dir, dir, dir);
    setenv("KUBECONFIG", list, 1);
    struct at_client_kubeconfig *config = NULL;
    assert_int_equal(at_client_kubeconfig_load(NULL, NULL, &config, NULL), AT_OK);
    assert_string_equal(config->options.token, "first");
    assert_string_equal(config->options.server, "https://h:1");
    at_client_kubeconfig_free(config);
    struct at_kubeconfig *kc = NULL;
    assert_int_equal(at_kubeconfig_read(NULL, false, &kc, NULL), AT_OK);
    assert_string_equal(at_kubeconfig_current(kc), "x");
    struct at_kubeconfig_file *where = NULL;
    assert_non_null(at_kubeconfig_entry(kc, AT_KUBECONFIG_USERS, "v", &where));
    assert_string_equal(where->path, file("two"));
    at_kubeconfig_free(kc);
    unsetenv("KUBECONFIG");
}

static void an_empty_list_of_files_says_what_is_missing(void **state)
{
    (void)state;
    struct at_err err = {0};
    struct at_client_kubeconfig *config = NULL;
    setenv("KUBECONFIG", file("absent"), 1);
    assert_int_equal(at_client_kubeconfig_load(NULL, NULL, &config, &err), AT_NOT_FOUND);
    assert_non_null(strstr(err.msg, "kubeconfig "));
    unsetenv("KUBECONFIG");
    put("empty", "", 0600);
    assert_int_equal(at_client_kubeconfig_load(file("empty"), NULL, &config, &err), AT_INVALID);
    assert_non_null(strstr(err.msg, "use-context"));
}

static void files_that_others_may_change_are_refused_and_readable_ones_told(void **state)
{
    (void)state;
    static const char TEXT[] =
        "current-context: x\ncontexts:\n- {name: x, context: {cluster: c, user: u}}\n" CLUSTER
        "users:\n- {name: u, user: {token: t}}\n";
    struct at_err err = {0};
    struct at_client_kubeconfig *config = NULL;
    const char *path = put("config", TEXT, 0600);
    assert_int_equal(chmod(path, 0666), 0);
    assert_int_equal(at_client_kubeconfig_load(path, NULL, &config, &err), AT_FORBIDDEN);
    assert_non_null(strstr(err.msg, "chmod 600"));
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(at_client_kubeconfig_load(path, NULL, &config, &err), AT_OK);
    assert_non_null(strstr(config->warning, "chmod 600"));
    at_client_kubeconfig_free(config);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(at_client_kubeconfig_load(path, NULL, &config, &err), AT_OK);
    assert_null(config->warning);
    at_client_kubeconfig_free(config);
}

static void a_change_is_whole_locked_and_keeps_links_and_modes(void **state)
{
    (void)state;
    struct at_err err = {0};
    struct at_kubeconfig *kc = NULL;
    struct at_kubeconfig *other = NULL;
    put("real", CLUSTER "extra: {kept: true}\n", 0640);
    assert_int_equal(chmod(file("real"), 0640), 0);
    assert_int_equal(symlink("real", file("link")), 0);
    assert_int_equal(at_kubeconfig_read(file("link"), true, &kc, &err), AT_OK);
    assert_int_equal(at_kubeconfig_read(file("link"), true, &other, &err), AT_CONFLICT);
    assert_non_null(strstr(err.msg, "real.lock"));
    json_object_set_new(kc->files[0].root, "current-context", json_string("y"));
    kc->files[0].changed = true;
    assert_int_equal(at_kubeconfig_write(kc, &err), AT_OK);
    at_kubeconfig_free(kc);
    assert_false(at_file_exists(file("real.lock")));
    struct stat st;
    assert_int_equal(lstat(file("link"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(at_file_mode(file("real")), 0640);
    assert_int_equal(at_kubeconfig_read(file("link"), false, &kc, &err), AT_OK);
    assert_string_equal(at_kubeconfig_current(kc), "y");
    assert_true(at_json_bool_at(kc->files[0].root, "extra.kept", false));
    at_kubeconfig_free(kc);
    /* A new one is nobody else's. */
    assert_int_equal(at_kubeconfig_read(file("new/config"), true, &kc, &err), AT_OK);
    kc->files[0].changed = true;
    assert_int_equal(at_kubeconfig_write(kc, &err), AT_OK);
    at_kubeconfig_free(kc);
    assert_int_equal(at_file_mode(file("new/config")), 0600);
}

static void acting_as_another_is_told_in_headers(void **state)
{
    (void)state;
    struct at_err err = {0};
    struct at_client_kubeconfig *config = NULL;
    const char *path =
        put("config",
            "current-context: x\ncontexts:\n- {name: x, context: {cluster: c, user: u}}\n"
            "clusters:\n- {name: c, cluster: {server: 'https://h', tls-server-name: n}}\n"
            "users:\n- {name: u, user: {token: t, as: eve, as-groups: [a, b], as-uid: '7', "
            "as-user-extra: {'acme.com/scope': [s]}}}\n",
            0600);
    assert_int_equal(at_client_kubeconfig_load(path, NULL, &config, &err), AT_OK);
    assert_string_equal(config->options.tls_server_name, "n");
    assert_string_equal(config->options.more_headers,
                        "Impersonate-User: eve\r\nImpersonate-Group: a\r\n"
                        "Impersonate-Group: b\r\nImpersonate-Uid: 7\r\n"
                        "Impersonate-Extra-acme.com%2Fscope: s\r\n");
    at_client_kubeconfig_free(config);
    struct at_client_kubeconfig_choice choice = {.path = path, .as = "a\r\nX: y"};
    assert_int_equal(at_client_kubeconfig_choose(&choice, &config, &err), AT_INVALID);
}

#define PLUG(more)                                                                                 \
    "current-context: x\ncontexts:\n- {name: x, context: {cluster: c, user: u}}\n" CLUSTER         \
    "users:\n- name: u\n  user:\n    exec:\n      apiVersion: "                                    \
    "client.authentication.k8s.io/v1\n" more

static void plugins_give_credentials_and_their_failures_are_told(void **state)
{
    (void)state;
    struct at_err err = {0};
    struct at_client_kubeconfig *config = NULL;
    put("plug.sh",
        "#!/bin/sh\ncase \"$KUBERNETES_EXEC_INFO\" in *'\"server\":\"https://h:1\"'*) ;; "
        "*) exit 9;; esac\n"
        "printf '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\","
        "\"status\":{\"token\":\"%s-%s\",\"expirationTimestamp\":\"2031-01-02T03:04:05Z\"}}' "
        "\"$1\" \"$WHO\"\n",
        0755);
    const char *path =
        put("config",
            PLUG("      command: ./plug.sh\n      args: [tok]\n      provideClusterInfo: true\n"
                 "      env: [{name: WHO, value: me}]\n"),
            0600);
    assert_int_equal(at_client_kubeconfig_load(path, NULL, &config, &err), AT_OK);
    assert_string_equal(config->options.token, "tok-me");
    assert_true(config->expires_wall_ns > 0);
    assert_true(at_client_kubeconfig_has_plugin(config));
    at_client_kubeconfig_free(config);
    static const struct {
        const char *more;
        enum at_rc rc;
        const char *says;
    } CASES[] = {
        {"      command: no-such-plugin\n      installHint: get it at x\n", AT_NOT_FOUND,
         "not installed. get it at x"},
        {"      command: sh\n      args: [-c, 'exit 3']\n", AT_UNAUTHENTICATED, "status 3"},
        {"      command: sh\n      args: [-c, 'echo secret-text']\n", AT_INVALID, "no JSON"},
        {"      command: echo\n      args: ['{}']\n", AT_INVALID, "no ExecCredential"},
        {"      command: echo\n      args: "
         "['{\"kind\":\"ExecCredential\",\"apiVersion\":\"x\"}']\n",
         AT_INVALID, "answered in x"},
        {"      command: sh\n      interactiveMode: Always\n", AT_UNAUTHENTICATED, "no terminal"},
        {"      args: [a]\n", AT_INVALID, "names no command"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        char text[1024];
        snprintf(text, sizeof text, PLUG("%s"), CASES[i].more);
        err = (struct at_err){0};
        enum at_rc rc = at_client_kubeconfig_load(put("config", text, 0600), NULL, &config, &err);
        if (rc != CASES[i].rc || strstr(err.msg, CASES[i].says) == NULL ||
            strstr(err.msg, "secret-text") != NULL) {
            fail_msg("%s: %s %s", CASES[i].more, at_rc_name(rc), err.msg);
        }
    }
}

int main(void)
{
#define IN_A_FOLDER(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        IN_A_FOLDER(what_is_no_kubeconfig_is_refused_with_the_place),
        IN_A_FOLDER(the_first_file_that_has_an_entry_decides),
        IN_A_FOLDER(an_empty_list_of_files_says_what_is_missing),
        IN_A_FOLDER(files_that_others_may_change_are_refused_and_readable_ones_told),
        IN_A_FOLDER(a_change_is_whole_locked_and_keeps_links_and_modes),
        IN_A_FOLDER(acting_as_another_is_told_in_headers),
        IN_A_FOLDER(plugins_give_credentials_and_their_failures_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
