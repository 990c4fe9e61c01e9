/* The command line without a server: options, help, completions, explain, apply's local checks. */
#include "cli/cli_priv.h"
#include "sys/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct outcome {
    int status;
    char *out, *err;
};

static struct outcome run_with(const char *input, const char *const *words)
{
    struct outcome o = {0};
    char *argv[32] = {(char *)"atoll"};
    int argc = 1;
    size_t out_len;
    size_t err_len;
    for (; words[argc - 1] != NULL; argc++) {
        argv[argc] = (char *)words[argc - 1];
    }
    struct at_cli_env env = {.sys = at_sys_real(),
                             .in = fmemopen((char *)input, strlen(input), "r"),
                             .out = open_memstream(&o.out, &out_len),
                             .err = open_memstream(&o.err, &err_len)};
    o.status = at_cli_main(&env, argc, argv);
    fclose(env.in);
    fclose(env.out);
    fclose(env.err);
    return o;
}

#define RUN(...) run_with(" ", (const char *const[]){__VA_ARGS__, NULL})

static void done(struct outcome *o)
{
    free(o->out);
    free(o->err);
}

static void expect(struct outcome o, int status, const char *out, const char *err)
{
    if (o.status != status || strstr(o.out, out) == NULL || strstr(o.err, err) == NULL) {
        fail_msg("status %d\nout: %s\nerr: %s\nwanted %d, \"%s\", \"%s\"", o.status, o.out, o.err,
                 status, out, err);
    }
    done(&o);
}

static void every_verb_explains_itself(void **state)
{
    (void)state;
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        const struct cli_verb *verb = &CLI_VERBS[i];
        struct outcome help = RUN(verb->name, "--help");
        struct outcome same = RUN("help", verb->name);
        assert_int_equal(help.status, 0);
        assert_string_equal(help.out, same.out);
        assert_non_null(strstr(help.out, verb->summary));
        assert_non_null(verb->examples);
        assert_non_null(strchr(verb->examples, '\n')); /* two at least */
        for (size_t o = 0; o < verb->n_options; o++) {
            assert_non_null(strstr(help.out, CLI_OPTIONS[verb->options[o]].name));
        }
        done(&help);
        done(&same);
    }
    expect(RUN("--help"), 0, "Roles", "");
    expect(RUN("help", "flying"), 4, "", "no verb \"flying\"");
    struct outcome nothing = run_with(" ", (const char *const[]){NULL});
    expect(nothing, 2, "", "Usage:");
}

static void no_verb_has_two_options_of_one_letter(void **state)
{
    (void)state;
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        bool taken[256] = {false};
        for (size_t o = 0; o < CLI_VERBS[i].n_options; o++) {
            const struct cli_option_row *row = &CLI_OPTIONS[CLI_VERBS[i].options[o]];
            assert_non_null(row->name);
            assert_false(row->letter != 0 && taken[(unsigned char)row->letter]);
            taken[(unsigned char)row->letter] = true;
        }
    }
}

static void mistakes_are_told_with_a_way_on(void **state)
{
    (void)state;
    expect(RUN("gte", "nodes"), 2, "", "did you mean get");
    expect(RUN("get", "nodes", "--outptu", "json"), 2, "", "did you mean --output");
    expect(RUN("get", "nodes", "-Z"), 2, "", "see atoll get --help");
    expect(RUN("get", "nodes", "-o"), 2, "", "-o needs a value");
    expect(RUN("get", "nodes", "-o", "xml"), 2, "", "choose json, yaml");
    expect(RUN("get"), 2, "", "something is missing");
    expect(RUN("version", "now"), 2, "", "\"now\" is too much");
    expect(RUN("get", "nodes", "--watch=maybe"), 2, "", "true or false");
    expect(RUN("scale", "deploy", "x", "--replicas", "1.5"), 2, "", "whole number");
    expect(RUN("wait", "node/x", "--for", "ready"), 2, "", "condition=TYPE");
    expect(RUN("wait", "node/x", "--for=delete", "--timeout=soon"), 2, "", "--timeout");
    expect(RUN("token", "make"), 2, "", "atoll token create");
    expect(RUN("get", "nodes", "-k", "/nonexistent/config"), 4, "", "hint: atoll dev");
    expect(RUN("completion", "tcsh"), 2, "", "bash, zsh and fish");
}

static void options_are_taken_in_every_spelling(void **state)
{
    (void)state;
    static const char *const WAYS[][8] = {
        {"get", "nodes", "-A", "-w", "-o", "json", "-nx"},
        {"get", "nodes", "-Aw", "-o=json", "--namespace=x"},
        {"get", "--all-namespaces", "nodes", "--watch", "-ojson", "--namespace", "x"},
        {"get", "-Aw", "-n", "x", "--output=json", "--", "nodes"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(WAYS); i++) {
        char *argv[10] = {(char *)"atoll"};
        int argc = 1;
        for (; argc < 9 && WAYS[i][argc - 1] != NULL; argc++) {
            argv[argc] = (char *)WAYS[i][argc - 1];
        }
        struct at_err err = {0};
        struct cli cli = {0};
        assert_int_equal(cli_parse(&cli, argc, argv, &err), AT_OK);
        assert_true(cli_flag(&cli, OPT_ALL_NAMESPACES));
        assert_true(cli_flag(&cli, OPT_WATCH));
        assert_string_equal(cli_value(&cli, OPT_OUTPUT, ""), "json");
        assert_string_equal(cli_value(&cli, OPT_NAMESPACE, ""), "x");
        assert_int_equal(cli.n_args, 1);
        assert_string_equal(cli.args[0], "nodes");
        at_free(cli.args);
    }
}

static void shells_accept_their_completions(void **state)
{
    (void)state;
    static const char *const SHELLS[] = {"bash", "zsh", "fish"};
    for (size_t i = 0; i < AT_ARRAY_LEN(SHELLS); i++) {
        struct outcome o = RUN("completion", SHELLS[i]);
        assert_int_equal(o.status, 0);
        assert_non_null(strstr(o.out, "__complete")); /* what they know comes from there */
        char command[64];
        snprintf(command, sizeof command,
                 "command -v %s >/dev/null && exec %s -n || exec cat >/dev/null", SHELLS[i],
                 SHELLS[i]);
        FILE *shell = popen(command, "w");
        assert_int_equal(fwrite(o.out, 1, strlen(o.out), shell), strlen(o.out));
        assert_int_equal(pclose(shell), 0);
        done(&o);
    }
}

static void what_may_stand_next_is_told_without_a_server(void **state)
{
    (void)state;
    expect(RUN("__complete", "desc"), 0, "describe\tTell everything", "");
    expect(RUN("__complete", ""), 0, "\nserver\tcontrol plane", "");
    expect(RUN("__complete", "get", "dep"), 0, "deployments\t", "");
    expect(RUN("__complete", "get", "nodes,dep"), 0, "nodes,deployments\t", "");
    expect(RUN("__complete", "get", "nodes", "--no-h"), 0, "--no-headers\t", "");
    expect(RUN("__complete", "get", "nodes", "-o", "y"), 0, "yaml\n", "");
    expect(RUN("__complete", "get", "nodes", "--output=y"), 0, "--output=yaml\n", "");
    expect(RUN("__complete", "get", "nodes", "--output", "=", "y"), 0, "yaml\n", "");
    expect(RUN("__complete", "wait", "node/x", "--for=cond"), 0, "--for=condition=\n:nospace", "");
    expect(RUN("__complete", "apply", "-f", "x"), 0, ":files\n", "");
    expect(RUN("__complete", "exec", "x", "--", "l"), 0, ":files\n", "");
    expect(RUN("__complete", "config", "use"), 0, "use-context\n", "");
    expect(RUN("__complete", "secrets", ""), 0, "status\nrotate-key\n", "");
    expect(RUN("__complete", "completion", "z"), 0, "zsh\n", "");
    expect(RUN("__complete", "no-such-verb", ""), 0, "", "");
    expect(RUN("__complete"), 0, "apply\t", "");
    expect(RUN("__complete", "get", "nodes", "-k", "/nonexistent", ""), 0, "", "");
}

static void the_man_page_names_every_verb_and_option(void **state)
{
    (void)state;
    struct outcome o = RUN("help", "--man");
    assert_int_equal(strncmp(o.out, ".TH ATOLL 1", 11), 0);
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        char heading[64];
        snprintf(heading, sizeof heading, ".SS atoll %.3s", CLI_VERBS[i].name);
        assert_non_null(strstr(o.out, heading));
    }
    assert_non_null(strstr(o.out, "\\-\\-ignore\\-not\\-found"));
    done(&o);
}

static void explain_walks_the_schemas(void **state)
{
    (void)state;
    expect(RUN("explain", "deploy.spec"), 0, "replicas  <integer>", "");
    expect(RUN("explain", "deployment.spec.template.spec.resources.cpu"), 0, "cpu <string>", "");
    expect(RUN("explain", "site.spec.links.site"), 0, "-required-", "");
    expect(RUN("explain", "deployment.spec.replica"), 4, "", "did you mean replicas");
    expect(RUN("explain", "deploymint"), 2, "", "did you mean deployments");
    expect(RUN("api-resources"), 0, "deploy", "");
}

static void apply_checks_every_document_and_points_at_the_line(void **state)
{
    (void)state;
    static const char GOOD[] = "apiVersion: atoll.dev/v1\nkind: Site\nmetadata: {name: a}\n"
                               "spec: {class: edge, jurisdiction: EU}\n";
    static const char SECOND_BAD[] =
        "apiVersion: atoll.dev/v1\nkind: Site\nmetadata: {name: a}\n"
        "spec: {class: edge, jurisdiction: EU}\n---\n"
        "apiVersion: atoll.dev/v1\nkind: Deployment\nmetadata:\n  name: b\nspec:\n"
        "  replica: 3\n  template:\n    spec:\n      command: [x]\n      resources:\n"
        "        cpu: lots\n";
    static const char *const APPLY[] = {"apply", "-f", "-", "--dry-run=client", NULL};
    expect(run_with(GOOD, APPLY), 0, "site.atoll.dev/a is well-formed", "");
    struct outcome o = run_with(SECOND_BAD, APPLY);
    assert_int_equal(o.status, 2);
    assert_non_null(strstr(o.err, "standard input: document 2, line 11: spec.replica: unknown "
                                  "field, did you mean replicas?"));
    assert_non_null(strstr(o.err, "document 2, line 16: spec.template.spec.resources.cpu"));
    assert_non_null(strstr(o.err, "1 of 2 documents is wrong; nothing was applied"));
    assert_string_equal(o.out, "");
    done(&o);
    expect(run_with("a: [", APPLY), 2, "", "nothing was applied");
    expect(run_with("kind: Site\n", APPLY), 2, "", "apiVersion: is missing");
    expect(run_with("apiVersion: v1\nkind: Siet\n", APPLY), 2, "", "no kind \"Siet\" in v1");
    expect(run_with("apiVersion: atoll.dev/v1\nkind: Site\n", APPLY), 2, "", "metadata.name");
    expect(run_with("[1, 2]", APPLY), 2, "", "no object");
    expect(run_with("# nothing\n", APPLY), 2, "", "hold no documents");
}

static void apply_takes_folders_and_lists(void **state)
{
    (void)state;
    char dir[] = "/tmp/atoll-apply-XXXXXX";
    char path[128];
    static const char LIST[] =
        "apiVersion: v1\nkind: List\nitems:\n"
        "- {apiVersion: v1, kind: Namespace, metadata: {name: n}}\n"
        "- {apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: n}, data: {a: b}}\n";
    assert_non_null(mkdtemp(dir));
    expect(RUN("apply", "-f", dir, "--dry-run=client"), 4, "", "no .yaml, .yml or .json");
    snprintf(path, sizeof path, "%s/list.yml", dir);
    assert_int_equal(at_file_write_atomic(path, LIST, sizeof LIST - 1, 0600, NULL), AT_OK);
    snprintf(path, sizeof path, "%s/notes.txt", dir);
    assert_int_equal(at_file_write_atomic(path, "x: [", 4, 0600, NULL), AT_OK);
    struct outcome o = RUN("apply", "-f", dir, "--dry-run=client");
    expect(o, 0, "namespace/n is well-formed (client dry run)\nconfigmap/c", "");
    o = RUN("apply", "-f", dir, "--dry-run=client", "-n", "other");
    expect(o, 2, "", "is \"n\" but --namespace is \"other\"");
    assert_int_equal(at_tree_remove(dir, NULL), AT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verb_explains_itself),
        cmocka_unit_test(no_verb_has_two_options_of_one_letter),
        cmocka_unit_test(mistakes_are_told_with_a_way_on),
        cmocka_unit_test(options_are_taken_in_every_spelling),
        cmocka_unit_test(shells_accept_their_completions),
        cmocka_unit_test(what_may_stand_next_is_told_without_a_server),
        cmocka_unit_test(the_man_page_names_every_verb_and_option),
        cmocka_unit_test(explain_walks_the_schemas),
        cmocka_unit_test(apply_checks_every_document_and_points_at_the_line),
        cmocka_unit_test(apply_takes_folders_and_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
