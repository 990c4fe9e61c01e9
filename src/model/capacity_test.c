/* Queues and reservations that make no sense are refused by field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "model/model_priv.h"
#include "test_json.h"

#define QUEUE(spec) "{'metadata':{'name':'a'},'spec':{" spec "}}"
#define QUOTA(resources) QUEUE("'quotas':[{'resources':[" resources "]}]")

static void check(const struct at_model_kind *kind, const char *text, const char *field)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json) json_t *json = J(text);
    struct at_model_report report;
    struct at_err err = {0};
    enum at_rc rc =
        at_model_validate(kind, json, NULL, AT_MODEL_UNKNOWN_REFUSE, arena, &report, &err);
    if (field == NULL ? rc != AT_OK : rc != AT_INVALID) {
        fail_msg("%s: rc %d %s", text, rc, err.msg);
    }
    if (field != NULL) {
        assert_string_equal(report.causes[0].field, field);
    }
}

static void a_queue_names_amounts_that_make_sense(void **state)
{
    (void)state;
    const struct at_model_kind *q = &AT_KIND_QUEUE;
    check(q, QUEUE(""), NULL);
    check(q, QUOTA("{'name':'gpu','nominal':4},{'name':'memory','nominal':'64Gi'}"), NULL);
    check(q, QUOTA("{'name':'gpu','nominal':'0.5','borrowingLimit':0}"), NULL);
    check(q, QUOTA("{'name':'gpu','nominal':-1}"), "spec.quotas[0].resources[0].nominal");
    check(q, QUOTA("{'name':'cpu','nominal':'many'}"), "spec.quotas[0].resources[0].nominal");
    check(q, QUOTA("{'name':'cpu','nominal':1,'lendingLimit':'1x'}"),
          "spec.quotas[0].resources[0].lendingLimit");
    check(q, QUOTA("{'name':'cpu','nominal':1},{'name':'cpu','nominal':2}"),
          "spec.quotas[0].resources[1].name");
    check(q, QUOTA(""), "spec.quotas[0].resources");
    check(q, QUEUE("'cohort':'a'"), "spec.cohort");
    check(q, QUEUE("'weight':0"), "spec.weight");
    check(q, QUEUE("'ordering':'LIFO'"), "spec.ordering");
    check(q,
          QUEUE("'quotas':[{'site':'x','resources':[{'name':'cpu','nominal':1}]},"
                "{'site':'x','resources':[{'name':'gpu','nominal':1}]}]"),
          "spec.quotas[1]");
}

static void a_reservation_ends_after_it_begins_and_is_for_somebody(void **state)
{
    (void)state;
    const struct at_model_kind *r = &AT_KIND_RESERVATION;
    check(r, QUEUE("'to':'2030-01-01T00:00:00Z','queues':['q']"), NULL);
    check(r, QUEUE("'from':'2030-01-02T00:00:00Z','to':'2030-01-01T00:00:00Z','namespaces':['n']"),
          "spec.to");
    check(r, QUEUE("'to':'2030-01-01T00:00:00Z'"), "spec.namespaces");
    check(r, QUEUE("'to':'2030-01-01T00:00:00Z','queues':['q'],'count':0"), "spec.count");
}

static void amounts_are_read_and_written_by_resource(void **state)
{
    (void)state;
    static const struct {
        const char *resource, *text;
        int64_t amount;
    } rows[] = {{"cpu", "500m", 500},
                {"gpu", "4", 4000},
                {"memory", "2Gi", INT64_C(2) << 30},
                {"x.org/fpga", "3", 3}};
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        int64_t amount = 0;
        char out[AT_UNITS_TEXT_BYTES_MAX];
        assert_int_equal(at_model_amount_parse(rows[i].resource, rows[i].text, &amount, NULL),
                         AT_OK);
        assert_int_equal(amount, rows[i].amount);
        assert_string_equal(at_model_amount_format(rows[i].resource, amount, out), rows[i].text);
    }
    int64_t amount;
    assert_int_equal(at_model_amount_parse("memory", "1Ei", &amount, NULL), AT_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_queue_names_amounts_that_make_sense),
        cmocka_unit_test(a_reservation_ends_after_it_begins_and_is_for_somebody),
        cmocka_unit_test(amounts_are_read_and_written_by_resource),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
