/* What security costs by itself, on one core but for the log's writer thread.
 * Usage: bench-security-load rbac BINDINGS | chain RECORDS FOLDER
 * rbac: CPU ns for one decision, had by the last rule of a user's own bindings, and for one that
 * nothing allows. chain: records a second into the log (not synced), then
 * seconds to verify it. One line of numbers. */
#include "audit/audit.h"
#include "audit/verify.h"
#include "core/mem.h"
#include "core/str.h"
#include "security/book.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define DECISIONS 200000

static int64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void book_fill(struct at_book *book, long n)
{
    json_t *role =
        json_pack("{s:[{s:[s], s:[s], s:[s]}, {s:[s,s,s], s:[s], s:[s]}]}", "rules", "verbs", "get",
                  "apiGroups", "", "resources", "secrets", "verbs", "get", "list", "watch",
                  "apiGroups", "atoll.dev", "resources", "deployments");
    at_book_put(book, "ClusterRole", NULL, "r", role);
    json_decref(role);
    for (long i = 0; i < n; i++) {
        char ns[32];
        char user[32];
        snprintf(ns, sizeof ns, "team-%ld", i % 1000);
        snprintf(user, sizeof user, "user-%ld", i);
        char name[32];
        snprintf(name, sizeof name, "b%ld", i);
        json_t *binding =
            json_pack("{s:{s:s, s:s}, s:[{s:s, s:s}]}", "roleRef", "kind", "ClusterRole", "name",
                      "r", "subjects", "kind", "User", "name", user);
        at_book_put(book, "RoleBinding", ns, name, binding);
        json_decref(binding);
    }
}

static int64_t decisions_ns(const struct at_book *book, long n, bool granted)
{
    int64_t begin = now_ns(CLOCK_THREAD_CPUTIME_ID);
    for (long i = 0; i < DECISIONS; i++) {
        long who_is = i * 7919 % n;
        struct at_identity who = {.groups = {"devs", "staff"}, .n_groups = 2};
        char ns[32];
        snprintf(who.user, sizeof who.user, "user-%ld", who_is);
        snprintf(ns, sizeof ns, "team-%ld", granted ? who_is % 1000 : (who_is + 1) % 1000);
        struct at_access what = {
            .verb = "watch", .group = "atoll.dev", .resource = "deployments", .ns = ns, .name = ""};
        bool allowed = at_book_allowed(book, &who, &what, NULL, 0);
        assert(allowed == granted);
    }
    return (now_ns(CLOCK_THREAD_CPUTIME_ID) - begin) / DECISIONS;
}

static int rbac(long n)
{
    struct at_book *book = at_book_new();
    book_fill(book, n);
    printf("%lld %lld\n", (long long)decisions_ns(book, n, true),
           (long long)decisions_ns(book, n, false));
    at_book_free(book);
    return 0;
}

static void on_settled(void *ctx, uint64_t ticket)
{
    *(uint64_t *)ctx = ticket;
}

static int chain(long n, const char *dir)
{
    static const char TEXT[] =
        "\"time\":\"2026-01-01T00:00:00.000000Z\",\"id\":\"0123456789abcdef-1f\",\"user\":"
        "\"admin\","
        "\"groups\":[\"system:masters\"],\"auth\":\"certificate\",\"from\":\"127.0.0.1:40000\","
        "\"agent\":\"kubectl/v1.32.0\",\"verb\":\"create\",\"path\":\"/api/v1/namespaces/default/"
        "configmaps\",\"resource\":\"configmaps\",\"namespace\":\"default\",\"name\":\"x\","
        "\"decision\":\"allow\",\"code\":201,\"dryRun\":false,\"latencyUs\":900";
    uint64_t settled = 0;
    struct at_loop *loop = at_loop_new(at_sys_real());
    struct at_audit_options o = {.loop = loop,
                                 .dir = dir,
                                 .level = AT_AUDIT_ALL,
                                 .no_sync = true,
                                 .settled = on_settled,
                                 .ctx = &settled,
                                 .bytes_max = INT64_C(8) << 30};
    struct at_audit *log = NULL;
    struct at_audit_report report;
    struct at_err err = {0};
    if (at_audit_open(&o, &log, &err) != AT_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    int64_t begin = now_ns(CLOCK_MONOTONIC);
    for (long i = 0; i < n; i++) {
        uint64_t ticket = at_audit_add(log, TEXT, sizeof TEXT - 1, i % 1000 == 999);
        while (i % 1000 == 999 && settled < ticket) {
            at_loop_turn(loop, now_ns(CLOCK_MONOTONIC) + 1000000);
        }
    }
    at_audit_close(log);
    double written = (double)(now_ns(CLOCK_MONOTONIC) - begin) / 1e9;
    begin = now_ns(CLOCK_MONOTONIC);
    enum at_rc rc = at_audit_verify(dir, NULL, 0, &report, &err);
    double verified = (double)(now_ns(CLOCK_MONOTONIC) - begin) / 1e9;
    at_loop_free(loop);
    if (rc != AT_OK || report.lost > 0 || report.records < (uint64_t)n) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    printf("%.0f %.3f\n", (double)n / written, verified);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && at_streq(argv[1], "rbac") && atol(argv[2]) > 0) {
        return rbac(atol(argv[2]));
    }
    if (argc == 4 && at_streq(argv[1], "chain") && atol(argv[2]) > 0) {
        return chain(atol(argv[2]), argv[3]);
    }
    fputs("usage: bench-security-load rbac BINDINGS | chain RECORDS FOLDER\n", stderr);
    return 2;
}
