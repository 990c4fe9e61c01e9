/* A new kind is one file and a rebuild: adds one to a copy of the schemas, runs the generator and
 * the compiler, and works with what comes out through the table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/model_priv.h"
#include "test_json.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static const char WIDGET[] =
    "{'title':'Widget','description':'A widget.','type':'object','x-atoll-kind':{'group':"
    "'atoll.dev','version':'v1','plural':'widgets','singular':'widget','shortNames':['wd'],"
    "'categories':['atoll'],'namespaced':true,'subresources':{'status':{}},'columns':[{'name':"
    "'Size','type':'integer','path':'.spec.size'}]},'properties':{'spec':{'type':'object',"
    "'description':'Wanted.','properties':{'size':{'type':'integer','description':'Size.',"
    "'minimum':1,'default':4},'memory':{'type':'string','x-atoll-unit':'bytes','description':"
    "'Memory.'},'default':{'type':'boolean','description':'A word of C.'}},'required':['memory']"
    "}},'required':['spec']}";

static void run(const char *fmt, ...) AT_PRINTF(1, 2);
static void run(const char *fmt, ...)
{
    char command[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(command, sizeof command, fmt, args);
    va_end(args);
    if (system(command) != 0) {
        fail_msg("failed: %s", command);
    }
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    AT_CLEANUP(at_cleanup_json) json_t *json = J(text);
    assert_int_equal(json_dump_file(json, path, JSON_INDENT(2)), 0);
}

static void check_widget(const struct at_model_kind *kind)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json)
    json_t *json = J("{'metadata':{'name':'w'},'spec':{'memory':'1Gi','default':true}}");
    struct at_err err = {0};
    struct at_model_report report;
    assert_int_equal(at_model_default(kind, json, &err), AT_OK);
    assert_int_equal(
        at_model_validate(kind, json, NULL, AT_MODEL_UNKNOWN_REFUSE, arena, &report, &err), AT_OK);
    assert_string_equal(at_model_cell(&kind->columns[0], json, 0, arena), "4");

    void *widget = at_arena_alloc(arena, kind->struct_size);
    assert_int_equal(at_model_decode(kind, json, arena, widget, &err), AT_OK);
    AT_CLEANUP(at_cleanup_json) json_t *back = NULL;
    assert_int_equal(at_model_encode(kind, widget, &back, &err), AT_OK);
    assert_string_equal(at_json_str_at(back, "apiVersion", ""), "atoll.dev/v1");
    assert_true(json_equal(json_object_get(back, "spec"), json_object_get(json, "spec")));

    at_json_set_at(json, "spec.size", json_integer(0));
    assert_int_equal(
        at_model_validate(kind, json, NULL, AT_MODEL_UNKNOWN_REFUSE, arena, &report, &err),
        AT_INVALID);
    assert_string_equal(err.field, "spec.size");
}

static void a_new_schema_file_is_a_new_kind(void **state)
{
    (void)state;
    char dir[] = "/tmp/atoll-addkind-XXXXXX";
    assert_non_null(mkdtemp(dir));
    run("cp -r '%s/schema' '%s/schema' && mkdir '%s/model'", AT_SOURCE_ROOT, dir, dir);
    write_file(dir, "schema/Widget.json", WIDGET);
    run("python3 '%s/tools/generate-model' --schema '%s/schema' --header '%s/model/kinds.gen.h' "
        "--source '%s/kinds.gen.c' --docs '%s/kinds.md' --depfile '%s/d'",
        AT_SOURCE_ROOT, dir, dir, dir, dir, dir);
    run("grep -q '^.*/schema .*Widget.json' '%s/d' && grep -q '^## Widget' '%s/kinds.md'", dir,
        dir);
    run("cc -shared -fPIC -O0 -Wall -Wextra -Werror -Wl,-Bsymbolic -D_GNU_SOURCE -I'%s' -I'%s/src' "
        "-o '%s/kinds.so' '%s/kinds.gen.c' '%s/src/model/kinds.c'",
        dir, AT_SOURCE_ROOT, dir, dir, AT_SOURCE_ROOT);
    char path[256];
    snprintf(path, sizeof path, "%s/kinds.so", dir);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fail_msg("%s", dlerror());
    }
    const struct at_model_kind *(*find)(const char *);
    *(void **)&find = dlsym(library, "at_model_kind_by_any_name");
    assert_null(at_model_kind_by_any_name("wd"));
    const struct at_model_kind *widget = find("wd");
    assert_non_null(widget);
    check_widget(widget);
    assert_non_null(find("site"));
    dlclose(library);
    run("rm -rf '%s'", dir);
}

static void refuses(const char *schema, const char *why)
{
    char dir[] = "/tmp/atoll-addkind-XXXXXX";
    assert_non_null(mkdtemp(dir));
    write_file(dir, "Bad.json", schema);
    run("! python3 '%s/tools/generate-model' --schema '%s' --header '%s/h' 2>'%s/err' && grep -q "
        "'^generate-model: Bad.json.*%s' '%s/err' && rm -rf '%s'",
        AT_SOURCE_ROOT, dir, dir, dir, why, dir, dir);
}

#define BAD(properties, column)                                                                    \
    "{'title':'Bad','description':'d','type':'object','x-atoll-kind':{'group':'g','version':'v1'," \
    "'plural':'bads','singular':'bad','shortNames':[],'categories':[],'namespaced':true,"          \
    "'subresources':{},'columns':[" column "]},'properties':{" properties "}}"

static void what_a_schema_cannot_mean_is_refused(void **state)
{
    (void)state;
    refuses(BAD("'a':{'type':'string','description':'d','format':'x'}", ""), "format");
    refuses(BAD("'a':{'type':'string'}", ""), "a: needs a description");
    refuses(BAD("'a':{'type':'integer','description':'d','default':'x'}", ""), "default");
    refuses(BAD("'a':{'type':'string','description':'d','minimum':1}", ""), "minimum");
    refuses(BAD("'a':{'type':'string','description':'d','x-atoll-unit':'mile'}", ""), "unit");
    refuses(BAD("'a':{'$ref':'common.json#/$defs/Nothing'}", ""), "Nothing");
    refuses(BAD("'metadata':{'type':'string','description':'d'}", ""), "implied");
    refuses(BAD("", "{'name':'C','type':'string','path':'.spec.x'}"), "no field .spec.x");
}

static void the_reference_is_up_to_date(void **state)
{
    (void)state;
    char dir[] = "/tmp/atoll-addkind-XXXXXX";
    assert_non_null(mkdtemp(dir));
    run("python3 '%s/tools/generate-model' --schema '%s/schema' --docs '%s/kinds.md' && cmp "
        "'%s/kinds.md' '%s/docs/reference/kinds.md' && rm -rf '%s'",
        AT_SOURCE_ROOT, AT_SOURCE_ROOT, dir, dir, AT_SOURCE_ROOT, dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_schema_file_is_a_new_kind),
        cmocka_unit_test(the_reference_is_up_to_date),
        cmocka_unit_test(what_a_schema_cannot_mean_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
