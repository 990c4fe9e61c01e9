/* Each rule finds what it is for, where it stands, and not what is as it should be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "core/yaml.h"
#include "scan/scan_priv.h"

#define NOW INT64_C(1800000000000000000)

struct seen {
    struct at_yaml_doc *docs;
    size_t n;
    struct at_scan_world *world;
    struct at_scan_result result;
};

static void scan(struct seen *seen, const char *yaml)
{
    struct at_err err = {0};
    if (at_yaml_parse(yaml, strlen(yaml), &seen->docs, &seen->n, &err) != AT_OK) {
        fail_msg("%s", err.msg);
    }
    seen->world = at_scan_world_new();
    at_scan_result_init(&seen->result);
    for (size_t i = 0; i < seen->n; i++) {
        at_scan_world_add(seen->world, seen->docs[i].value);
    }
    for (size_t i = 0; i < seen->n; i++) {
        at_scan_object(&(struct at_scan_input){.object = seen->docs[i].value,
                                               .world = seen->world,
                                               .now_wall_ns = NOW,
                                               .from_file = true},
                       &seen->result);
    }
    at_scan_sort(&seen->result);
}

static void done(struct seen *seen)
{
    at_scan_result_done(&seen->result);
    at_scan_world_free(seen->world);
    at_yaml_docs_free(seen->docs, seen->n);
}

static const struct at_scan_finding *find(const struct seen *seen, const char *rule,
                                          const char *field)
{
    for (size_t i = 0; i < seen->result.n; i++) {
        const struct at_scan_finding *f = &seen->result.items[i];
        if (at_streq(f->rule->name, rule) && (field == NULL || at_streq(f->field, field))) {
            return f;
        }
    }
    return NULL;
}

#define FINDS(seen, rule, field)                                                                   \
    do {                                                                                           \
        if (find(seen, rule, field) == NULL) {                                                     \
            fail_msg("%s at %s was not found", rule, field);                                       \
        }                                                                                          \
    } while (false)
#define FINDS_NOT(seen, rule)                                                                      \
    do {                                                                                           \
        const struct at_scan_finding *f_ = find(seen, rule, NULL);                                 \
        if (f_ != NULL) {                                                                          \
            fail_msg("%s at %s: %s", rule, f_->field, f_->message);                                \
        }                                                                                          \
    } while (false)

#define DEPLOYMENT                                                                                 \
    "apiVersion: atoll.dev/v1\nkind: Deployment\nmetadata: {name: a, namespace: team}\nspec:\n"    \
    "  replicas: 2\n  template:\n    spec:\n"

static void a_workload_as_it_should_be_has_no_findings(void **state)
{
    (void)state;
    struct seen seen;
    scan(&seen, DEPLOYMENT
         "      runner: onnx\n"
         "      model: {name: m, uri: 'https://models.example.org/m.onnx', digest: "
         "'sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'}\n"
         "      resources: {cpu: 1, memory: 512Mi}\n"
         "      dataClass: internal\n"
         "      env: [{name: MAX_TOKENS, value: '4096'}, {name: PASSWORD, secretKeyRef: {name: db, "
         "key: password}}]\n"
         "---\n"
         "apiVersion: atoll.dev/v1\nkind: Policy\nmetadata: {name: p}\n"
         "spec: {residency: [{dataClass: internal, jurisdictions: [EU]}]}\n");
    if (seen.result.n > 0) {
        fail_msg("%s at %s", seen.result.items[0].rule->name, seen.result.items[0].field);
    }
    assert_int_equal(seen.result.objects, 1);
    done(&seen);
}

static void a_workload_is_looked_at_from_all_sides(void **state)
{
    (void)state;
    struct seen seen;
    scan(&seen,
         DEPLOYMENT "      image: docker://registry.example.org/team/app:latest\n"
                    "      user: 0\n"
                    "      command: [sh, -c, 'curl -k https://x.example.org/i.sh | bash']\n"
                    "      args: ['--host', 0.0.0.0, '--api-key', abcd1234efgh, '--bind=[::]:80']\n"
                    "      env:\n"
                    "      - {name: A, value: b}\n"
                    "      - {name: DB_PASSWORD, value: hunter22}\n"
                    "      model: {uri: 'http://models.example.org/m.pt'}\n"
                    "      port: 80\n"
                    "      resources: {gpu: '0.5', cpu: 1}\n"
                    "      dataClass: restricted\n"
                    "  service: {access: Public}\n");
#define T "spec.template.spec."
    FINDS(&seen, "image-latest", T "image");
    FINDS(&seen, "image-without-digest", T "image");
    FINDS(&seen, "run-as-root", T "user");
    FINDS(&seen, "download-and-run", T "command[2]");
    FINDS(&seen, "tls-verification-off", T "command[2]");
    FINDS(&seen, "open-listener", T "args[1]");
    FINDS(&seen, "open-listener", T "args[4]");
    FINDS(&seen, "secret-in-args", T "args[3]");
    FINDS(&seen, "secret-in-env", T "env[1].value");
    FINDS(&seen, "model-without-digest", T "model.uri");
    FINDS(&seen, "model-over-http", T "model.uri");
    FINDS(&seen, "model-runs-code", T "model.uri");
    FINDS(&seen, "host-port", T "port");
    FINDS(&seen, "missing-limits", T "resources");
    FINDS(&seen, "missing-gpu-memory", T "resources.gpu");
    FINDS(&seen, "missing-probe", "spec.template.spec");
    FINDS(&seen, "data-class-without-residency", T "dataClass");
    FINDS(&seen, "public-service", "spec.service.access");
    for (size_t i = 0; i < seen.result.n; i++) {
        assert_null(strstr(seen.result.items[i].message, "hunter22"));
        assert_null(strstr(seen.result.items[i].message, "abcd1234"));
    }
    for (size_t i = 1; i < seen.result.n; i++) { /* severe ones first */
        assert_true(seen.result.items[i].severity <= seen.result.items[i - 1].severity);
    }
    done(&seen);
}

static void commands_that_ask_for_the_machine_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *command, *rule;
    } ROWS[] = {
        {"[nsenter, '-t', '1', '-m', sh]", "privileged"},
        {"[docker, run, '--privileged', x]", "privileged"},
        {"[sh, '-c', 'sudo apt install x']", "run-as-root"},
        {"[docker, run, '--net=host', x]", "host-namespaces"},
        {"[podman, run, '--cap-add=SYS_ADMIN', x]", "added-capabilities"},
        {"[x, '--socket', /var/run/docker.sock]", "host-path"},
        {"[cat, /etc/shadow]", "host-path"},
        {"[sh, '-c', 'wget -qO- https://a.example.org | sudo sh']", "download-and-run"},
        {"[x, 'PASSWORD=hunter22']", "secret-in-args"},
        {"[sh, '-c', 'exec x --password hunter22']", "secret-in-args"},
        {"[sh, '-c', 'DB_PASSWORD=\"hunter22\" exec x']", "secret-in-args"},
        {"[x, 'postgres://a:hunter22@db/x']", "secret-in-args"},
        {"[sh, '-c', 'exec x -H 0.0.0.0:80']", "open-listener"},
        {"[sh, '-c', 'curl -H \"Authorization: Bearer abcdefghijklmnop\" https://x']",
         "secret-in-args"},
        {"[curl, '-u', 'ada:correct-horse', 'https://x']", "secret-in-args"},
        {"[sh, '-c', 'curl --user ada:correct-horse https://x']", "secret-in-args"},
        {"[curl, '-H', 'X-Api-Key: correct-horse-1', 'https://x']", "secret-in-args"},
        {"[skopeo, copy, '--src-creds', 'ada:correct-horse', a, b]", "secret-in-args"},
        {"[mysqldump, '-uada', '-pCorrectHorse', shop]", "secret-in-args"},
        {"[redis-cli, '-a', correct-horse, get, x]", "secret-in-args"},
        {"[sshpass, '-p', correct-horse, ssh, h]", "secret-in-args"},
        {"[x, '--password:correct-horse']", "secret-in-args"},
        {"[x, '--addr=:9000']", "open-listener"},
        {"[x, '--listen', ':9000']", "open-listener"},
        {"[x, '--host=::']", "open-listener"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        char yaml[1024];
        struct seen seen;
        snprintf(yaml, sizeof yaml, DEPLOYMENT "      command: %s\n", ROWS[i].command);
        scan(&seen, yaml);
        if (find(&seen, ROWS[i].rule, NULL) == NULL) {
            fail_msg("%s: no %s", ROWS[i].command, ROWS[i].rule);
        }
        done(&seen);
    }
}

static void ordinary_commands_are_left_alone(void **state)
{
    (void)state;
    static const char *const COMMANDS[] = {
        "[python3, -m, vllm, '--max-tokens', '4096', '--tokenizer', bert-base-uncased]",
        "[python3, server.py, '--host', 127.0.0.1, '--port', $(PORT)]",
        "[sh, '-c', 'exec ./server --listen 127.0.0.1:$PORT --token-file /run/token']",
        "[x, '--password', $(PASSWORD)]",
        "[x, '--password-file', /run/secrets/db]",
        "[find, ., -name, '*']",
        "[curl, 'https://example.org/data.csv', '-o', data.csv]",
        "[x, '--key', value, '--mode', token]",
        "[tar, -xzf, data.tar.gz, -C, /tmp/data]",
        "[curl, '-u', 'ada:$(PASSWORD)', 'https://example.org']",
        "[sh, '-c', 'mysqldump -uada -p$PASSWORD shop; curl -u $CREDENTIALS https://example.org']",
        "[mysqldump, '-P', '33060', '-p', shop]",
        "[ssh, '-p', '22000', host]",
        "[curl, '-H', 'Accept: application/json', 'https://example.org']",
        "[x, '--peer', ':9000', '--upstream=:9000', '--image', 'app:1.2']",
    };
    static const char *const RULES[] = {"secret-in-args",      "open-listener", "privileged",
                                        "run-as-root",         "host-path",     "download-and-run",
                                        "tls-verification-off"};
    for (size_t i = 0; i < AT_ARRAY_LEN(COMMANDS); i++) {
        char yaml[1024];
        struct seen seen;
        snprintf(yaml, sizeof yaml, DEPLOYMENT "      command: %s\n", COMMANDS[i]);
        scan(&seen, yaml);
        for (size_t k = 0; k < AT_ARRAY_LEN(RULES); k++) {
            const struct at_scan_finding *f = find(&seen, RULES[k], NULL);
            if (f != NULL) {
                fail_msg("%s: %s: %s", COMMANDS[i], RULES[k], f->message);
            }
        }
        done(&seen);
    }
}

static void pods_of_other_clusters_are_looked_at_too(void **state)
{
    (void)state;
    struct seen seen;
    scan(&seen, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: t}\n"
                "spec:\n  template:\n    spec:\n"
                "      hostNetwork: true\n"
                "      volumes: [{name: d, hostPath: {path: /var/run/docker.sock}}]\n"
                "      containers:\n"
                "      - name: c\n        image: nginx\n"
                "        ports: [{containerPort: 80, hostPort: 80}]\n"
                "        env: [{name: TOKEN, value: abcdef123}]\n"
                "        securityContext: {privileged: true, runAsUser: 0, capabilities: {add: "
                "[CAP_SYS_ADMIN, NET_BIND_SERVICE]}, seccompProfile: {type: Unconfined}}\n");
#define C T "containers[0]."
    FINDS(&seen, "host-namespaces", T "hostNetwork");
    FINDS(&seen, "host-path", T "volumes[0].hostPath.path");
    FINDS(&seen, "privileged", C "securityContext.privileged");
    FINDS(&seen, "run-as-root", C "securityContext.runAsUser");
    FINDS(&seen, "added-capabilities", C "securityContext.capabilities.add[0]");
    assert_null(find(&seen, "added-capabilities", C "securityContext.capabilities.add[1]"));
    FINDS(&seen, "privilege-escalation", C "securityContext");
    FINDS(&seen, "seccomp-unconfined", C "securityContext");
    FINDS(&seen, "writable-root-filesystem", C "securityContext");
    FINDS(&seen, "missing-limits", C "resources");
    FINDS(&seen, "host-port", C "ports[0].hostPort");
    FINDS(&seen, "missing-probe", T "containers[0]");
    FINDS(&seen, "secret-in-env", C "env[0].value");
    FINDS(&seen, "image-latest", C "image");
    FINDS(&seen, "single-replica", "spec");
    FINDS(&seen, "mounted-account-token", "spec.template.spec");
    done(&seen);
    scan(&seen, "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a, namespace: t}\n"
                "spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: x, "
                "securityContext: {privileged: true}}]}}}}}\n");
    FINDS(&seen, "privileged", "spec.jobTemplate." T "containers[0].securityContext.privileged");
    done(&seen);
}

static void rights_that_are_too_wide_are_found(void **state)
{
    (void)state;
    struct seen seen;
    scan(
        &seen,
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r}\nrules:\n"
        "- {apiGroups: ['*'], resources: ['*'], verbs: ['*']}\n"
        "- {apiGroups: [''], resources: [configmaps], verbs: ['*']}\n"
        "- {apiGroups: [''], resources: [secrets], verbs: [get]}\n"
        "- {apiGroups: [''], resources: [secrets], resourceNames: [a], verbs: [get]}\n"
        "- {apiGroups: [''], resources: [users], verbs: [impersonate]}\n"
        "- {apiGroups: [''], resources: [serviceaccounts/token], verbs: [create]}\n"
        "- {apiGroups: [''], resources: [pods/exec], verbs: [create]}\n"
        "- {apiGroups: [''], resources: [configmaps], verbs: [get, list]}\n"
        "- {apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [bind], "
        "resourceNames: [view]}\n"
        "- {apiGroups: [''], resources: ['pods/*'], verbs: [create]}\n"
        "- {apiGroups: [''], resources: ['*/status'], verbs: [patch]}\n"
        "- {nonResourceURLs: ['/admin/*'], verbs: [get]}\n"
        "---\n"
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: b}\n"
        "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}\n"
        "subjects: [{kind: Group, name: 'system:unauthenticated'}, {kind: ServiceAccount, name: "
        "default, namespace: x}]\n");
    FINDS(&seen, "rbac-wildcard", "rules[0].verbs");
    assert_int_equal(find(&seen, "rbac-wildcard", "rules[0].verbs")->severity, AT_SCAN_CRITICAL);
    FINDS(&seen, "rbac-wildcard", "rules[1].verbs");
    FINDS(&seen, "rbac-reads-secrets", "rules[2].resources");
    assert_null(find(&seen, "rbac-reads-secrets", "rules[3].resources"));
    FINDS(&seen, "rbac-escalation", "rules[4].verbs");
    FINDS(&seen, "rbac-escalation", "rules[5].resources");
    FINDS(&seen, "rbac-exec", "rules[6].resources");
    assert_null(find(&seen, "rbac-escalation", "rules[8].verbs"));
    FINDS(&seen, "rbac-wildcard", "rules[9].resources");
    FINDS(&seen, "rbac-exec", "rules[9].resources");
    FINDS(&seen, "rbac-wildcard", "rules[10].resources");
    FINDS(&seen, "rbac-wildcard", "rules[11].nonResourceURLs");
    FINDS(&seen, "rbac-cluster-admin", "roleRef.name");
    FINDS(&seen, "rbac-everybody", "subjects[0].name");
    FINDS(&seen, "rbac-default-account", "subjects[1].name");
    done(&seen);
}

/* openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj
 * /CN=old.example.org, of 2020 */
static void namespaces_policies_and_config_are_looked_at(void **state)
{
    (void)state;
    struct seen seen;
    scan(&seen, "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n"
                "apiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n---\n"
                "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q, namespace: b}\n---\n"
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
                "metadata: {name: n, namespace: b}\nspec: {podSelector: {}, ingress: [{}]}\n---\n"
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: b}\n"
                "data: {app.ini: \"user = x\\npassword = hunter22\\n\", limit: '3'}\n---\n"
                "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: b}\n"
                "stringData: {password: x}\n---\n"
                "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: b}\n"
                "spec: {type: NodePort}\n");
    FINDS(&seen, "namespace-without-quota", "metadata.name");
    FINDS(&seen, "namespace-without-network-policy", "metadata.name");
    assert_int_equal(at_scan_count(&seen.result, AT_SCAN_LOW), seen.result.n);
    FINDS(&seen, "network-policy-allows-all", "spec.ingress[0]");
    FINDS(&seen, "secret-in-config", "data[\"app.ini\"]");
    FINDS(&seen, "secret-in-file", "data");
    FINDS(&seen, "public-service", "spec.type");
    size_t of_a = 0;
    for (size_t i = 0; i < seen.result.n; i++) {
        of_a += at_streq(seen.result.items[i].rule->name, "namespace-without-quota");
    }
    assert_int_equal(of_a, 1);
    done(&seen);
}

static void a_suppression_needs_a_reason_and_a_rule(void **state)
{
    (void)state;
    struct seen seen;
    scan(&seen, "apiVersion: atoll.dev/v1\nkind: Job\nmetadata:\n  name: a\n  namespace: t\n"
                "  annotations:\n"
                "    scan.atoll.dev/ignore-missing-limits: 'the queue bounds it'\n"
                "    scan.atoll.dev/ignore-host-port: ' '\n"
                "    scan.atoll.dev/ignore-mising-limits: 'typing error'\n"
                "spec: {template: {metadata: {annotations: {scan.atoll.dev/ignore-open-listener: "
                "'behind a firewall'}}, spec: {port: 80, command: [x, --host=0.0.0.0]}}}\n");
    assert_string_equal(find(&seen, "missing-limits", NULL)->ignored, "the queue bounds it");
    assert_string_equal(find(&seen, "open-listener", NULL)->ignored, "behind a firewall");
    assert_null(find(&seen, "host-port", NULL)->ignored);
    FINDS(&seen, "suppression-without-reason",
          "metadata.annotations[\"scan.atoll.dev/ignore-host-port\"]");
    FINDS(&seen, "suppression-of-unknown-rule",
          "metadata.annotations[\"scan.atoll.dev/ignore-mising-limits\"]");
    assert_int_equal(at_scan_count(&seen.result, AT_SCAN_LOW), seen.result.n - 2);
    done(&seen);
}

static void lists_are_looked_into_and_odd_objects_borne(void **state)
{
    (void)state;
    struct seen seen;
    scan(&seen, "apiVersion: v1\nkind: List\nitems:\n"
                "- {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: t}, spec: {hostPID: "
                "true}}\n"
                "- {kind: 7, apiVersion: [], metadata: x, spec: 3}\n"
                "- {apiVersion: v1, kind: Pod, metadata: [], spec: {containers: [1, {env: {}}, "
                "{securityContext: x, resources: 7, image: 9}]}}\n"
                "- {apiVersion: atoll.dev/v1, kind: Deployment, spec: {template: {spec: {command: "
                "{a: b}, env: 4, model: m, resources: []}}}}\n"
                "- {apiVersion: atoll.dev/v1, kind: Deployment, spec: []}\n---\n7\n");
    FINDS(&seen, "host-namespaces", "items[0].spec.hostPID");
    done(&seen);
}

static void every_rule_says_why_and_how_to_mend_it(void **state)
{
    (void)state;
    size_t n;
    const struct at_scan_rule *rules = at_scan_rules(&n);
    assert_int_equal(n, SCAN_RULES);
    for (size_t i = 0; i < n; i++) {
        assert_non_null(rules[i].name);
        assert_non_null(rules[i].title);
        assert_true(strlen(rules[i].why) > 10);
        assert_true(strlen(rules[i].mend) > 10);
        assert_ptr_equal(at_scan_rule_find(rules[i].name), &rules[i]); /* no name twice */
    }
    assert_null(at_scan_rule_find("no-such-rule"));
}

static void the_certificate_that_a_server_shows_is_told_of_when_its_renewal_is_late(void **state)
{
    (void)state;
    static const struct {
        const char *issued, *ends, *says; /* NULL: nothing */
    } ROWS[] = {
        {"2025-12-15T08:00:00Z", "2027-01-20T08:00:00Z", "the certificate s ends in 5 days"},
        {"2025-12-15T08:00:00Z", "2027-01-16T08:00:00Z", "the certificate s ends in 24 hours"},
        {"2025-12-15T08:00:00Z", "2027-02-20T08:00:00Z", NULL},
        {"2027-01-14T20:00:00Z", "2027-01-15T20:00:00Z", NULL}, /* of a day, half of it is left */
        {"2027-01-14T10:00:00Z", "2027-01-15T10:00:00Z", "the certificate s ends in 2 hours"},
        {"2025-12-15T08:00:00Z", "2027-01-13T08:00:00Z", "the certificate s ended 2 days ago"},
        {"2025-12-15T08:00:00Z", "soon", NULL},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        struct seen seen = {0};
        char yaml[400];
        snprintf(
            yaml, sizeof yaml,
            "apiVersion: v1\nkind: Config\nmetadata: {name: x}\nserver: {certificate: {name: s,"
            " issued: '%s', ends: '%s'}}\n",
            ROWS[i].issued, ROWS[i].ends);
        scan(&seen, yaml);
        const struct at_scan_finding *f = find(&seen, "certificate-expiring", "server.certificate");
        assert_int_equal(f != NULL, ROWS[i].says != NULL);
        if (f != NULL) {
            assert_string_equal(f->message, ROWS[i].says);
            assert_int_equal(f->severity,
                             strstr(f->message, "ended") ? AT_SCAN_HIGH : AT_SCAN_MEDIUM);
        }
        done(&seen);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_certificate_that_a_server_shows_is_told_of_when_its_renewal_is_late),
        cmocka_unit_test(a_workload_as_it_should_be_has_no_findings),
        cmocka_unit_test(a_workload_is_looked_at_from_all_sides),
        cmocka_unit_test(commands_that_ask_for_the_machine_are_found),
        cmocka_unit_test(ordinary_commands_are_left_alone),
        cmocka_unit_test(pods_of_other_clusters_are_looked_at_too),
        cmocka_unit_test(rights_that_are_too_wide_are_found),
        cmocka_unit_test(namespaces_policies_and_config_are_looked_at),
        cmocka_unit_test(a_suppression_needs_a_reason_and_a_rule),
        cmocka_unit_test(lists_are_looked_into_and_odd_objects_borne),
        cmocka_unit_test(every_rule_says_why_and_how_to_mend_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
