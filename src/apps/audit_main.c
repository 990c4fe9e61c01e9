/* The role `atoll audit`: is a server's audit log whole? And the server's options about it. */
#include "audit/verify.h"

#include "apps/apps.h"
#include "apps/server.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"

#include <stdio.h>
#include <string.h>

enum at_rc at_app_audit_options(const struct at_app_audit *a, struct at_audit_options *ret,
                                struct at_err *err)
{
    struct at_audit_options o = {.level = AT_AUDIT_REQUESTS};
    enum at_rc rc =
        a->level != NULL ? at_audit_level_parse(a->level, &o.level, err) : (enum at_rc)AT_OK;
    if (rc != AT_OK) {
        return at_err_wrap(err, rc, "--audit-level");
    }
    if (a->bytes != NULL) {
        rc = at_quantity_units(a->bytes, &o.bytes_max, err);
        if (rc != AT_OK || o.bytes_max < AT_APP_AUDIT_BYTES_MIN) {
            return at_err_set(err, AT_INVALID,
                              "--audit-bytes: an amount of at least 1Mi is needed");
        }
    }
    if (a->when_full != NULL && !at_streq(a->when_full, "refuse") &&
        !at_streq(a->when_full, "drop-oldest")) {
        return at_err_set(err, AT_INVALID, "--audit-when-full: refuse or drop-oldest");
    }
    if (a->sync != NULL && !at_streq(a->sync, "always") && !at_streq(a->sync, "never")) {
        return at_err_set(err, AT_INVALID, "--audit-sync: always or never");
    }
    o.drop_oldest = at_streq(a->when_full, "drop-oldest");
    o.no_sync = at_streq(a->sync, "never");
    o.sinks = a->sinks;
    *ret = o;
    return AT_OK;
}

static int help(bool wanted)
{
    fputs("atoll audit: check a server's audit log\n"
          "\n"
          "Usage: atoll audit verify [DIR] [options]\n"
          "\n"
          "Reads every record of the log in DIR (a server's state folder; default that of atoll "
          "server on\nthis machine) and says whether any was changed, deleted, cut off or put into "
          "another order. Exit\nstatus 0: it is whole; 1: it is not.\n"
          "\n"
          "Options:\n"
          "  --key FILE                   The log's public key (default audit.pub in DIR; keep a "
          "copy elsewhere).\n"
          "  --from SEQ                   Begin at the first seal at or after that record.\n"
          "  -o, --output FORMAT          json, or text (default).\n"
          "  --help                       Show this.\n"
          "\n"
          "Examples:\n"
          "  atoll audit verify /var/lib/atoll/server\n"
          "  atoll audit verify ./copy --key ~/keys/prod-audit.pub -o json\n",
          wanted ? stdout : stderr);
    return wanted ? 0 : at_rc_exit_status(AT_BAD_REQUEST);
}

static void text_print(const struct at_audit_report *r)
{
    printf("whole: records %llu to %llu (%llu) in %zu file%s, chain %s\n",
           (unsigned long long)r->first_seq, (unsigned long long)r->last_seq,
           (unsigned long long)r->records, r->files, r->files == 1 ? "" : "s", r->chain);
    printf("sealed up to record %llu (%llu seals)\n", (unsigned long long)r->sealed_seq,
           (unsigned long long)r->seals);
    if (r->pruned_seq > 0) {
        printf("records up to %llu were deleted by the log's limit of size\n",
               (unsigned long long)r->pruned_seq);
    }
    if (r->lost > 0) {
        printf("%llu records were lost while the disk refused them, as the log says\n",
               (unsigned long long)r->lost);
    }
}

static void json_print(const struct at_audit_report *r, enum at_rc rc, const struct at_err *err)
{
    json_t *root =
        json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "whole", rc == AT_OK, "firstSeq",
                  (json_int_t)r->first_seq, "lastSeq", (json_int_t)r->last_seq, "records",
                  (json_int_t)r->records, "seals", (json_int_t)r->seals, "sealedSeq",
                  (json_int_t)r->sealed_seq, "prunedSeq", (json_int_t)r->pruned_seq, "lost",
                  (json_int_t)r->lost, "chain", r->chain);
    if (rc != AT_OK) {
        json_object_set_new(root, "problem", json_string(err->msg));
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_json_dump_pretty(root, &text) == AT_OK) {
        puts(text.data);
    }
    json_decref(root);
}

int at_app_audit(int argc, char **argv)
{
    const char *key = NULL;
    const char *from = NULL;
    const char *output = NULL;
    const struct at_app_option options[] = {{"key", &key, NULL, NULL, "FILE", ""},
                                            {"from", &from, NULL, NULL, "SEQ", ""},
                                            {"output", &output, NULL, NULL, "FORMAT", ""},
                                            {NULL, NULL, NULL, NULL, NULL, NULL}};
    bool wanted = argc > 0 && (at_streq(argv[0], "--help") || at_streq(argv[0], "-h"));
    if (argc < 1 || !at_streq(argv[0], "verify") || (argc > 1 && at_streq(argv[1], "--help"))) {
        return help(wanted || argc > 1);
    }
    bool named = argc > 1 && argv[1][0] != '-';
    int status = 0;
    if (!at_app_options("audit", "", options, argc - (named ? 2 : 1), argv + (named ? 2 : 1),
                        &status)) {
        return status;
    }
    uint64_t from_seq = 0;
    struct at_err err = {0};
    if (from != NULL && at_str_to_u64(at_str_of(from), &from_seq) != AT_OK) {
        at_err_set(&err, AT_BAD_REQUEST, "--from: \"%.40s\" is no number of a record", from);
        return at_app_fail("audit", &err);
    }
    if (output != NULL && !at_streq(output, "json") && !at_streq(output, "text")) {
        at_err_set(&err, AT_BAD_REQUEST, "--output: \"%.40s\" is neither json nor text", output);
        return at_app_fail("audit", &err);
    }
    AT_CLEANUP(at_cleanup_free)
    char *dir = named ? at_strdup(argv[1]) : at_app_state_dir("server");
    struct at_audit_report report = {0};
    enum at_rc rc = at_audit_verify(dir, key, from_seq, &report, &err);
    if (at_streq(output, "json")) {
        json_print(&report, rc, &err);
    } else if (rc == AT_OK) {
        text_print(&report);
    }
    return rc == AT_OK ? 0 : at_app_fail("audit", &err);
}
