/* Findings for people, for scripts, and for code hosts (SARIF 2.1.0). */
#include "cli/scan_priv.h"
#include "core/digest.h"
#include "core/str.h"

#include <ctype.h>
#include <string.h>

static const char *const LEVELS[AT_SCAN_SEVERITIES] = {"note", "warning", "error", "error"};
static const char *const SCORES[AT_SCAN_SEVERITIES] = {"2.0", "5.0", "8.0", "9.5"};
static const char *const COLOURS[AT_SCAN_SEVERITIES] = {"", "\033[33m", "\033[31m", "\033[1;31m"};

static const char *place_text(const struct scan_run *run, const struct scan_place *place)
{
    return place->file == NULL
               ? "live"
               : at_arena_printf(run->cli->arena, "%s:%zu", place->file, place->line);
}

static const char *object_text(const struct scan_run *run, const struct scan_place *place)
{
    return at_arena_printf(run->cli->arena, "%s %s%s%s", place->kind, place->ns,
                           place->ns[0] != '\0' ? "/" : "", place->name);
}

static size_t ignored_count(const struct scan_run *run)
{
    return run->result.n - at_scan_count(&run->result, AT_SCAN_LOW);
}

static size_t count_of(const struct scan_run *run, enum at_scan_severity severity)
{
    size_t above = severity + 1 < AT_SCAN_SEVERITIES
                       ? at_scan_count(&run->result, (enum at_scan_severity)(severity + 1))
                       : 0;
    return at_scan_count(&run->result, severity) - above;
}

static void summary(const struct scan_run *run)
{
    FILE *out = run->cli->env->out;
    size_t n = at_scan_count(&run->result, AT_SCAN_LOW);
    fprintf(out, "%zu finding%s", n, n == 1 ? "" : "s");
    const char *sep = ": ";
    for (int s = AT_SCAN_SEVERITIES - 1; s >= 0; s--) {
        size_t of = count_of(run, (enum at_scan_severity)s);
        if (of > 0) {
            fprintf(out, "%s%zu %s", sep, of, at_scan_severity_name((enum at_scan_severity)s));
            sep = ", ";
        }
    }
    if (ignored_count(run) > 0) {
        fprintf(out, "; %zu suppressed", ignored_count(run));
    }
    fprintf(out, " (%zu objects, %zu file%s)%s\n", run->result.objects, run->files,
            run->files == 1 ? "" : "s", run->result.cut ? "; there are more" : "");
    if (run->other > 0) {
        fprintf(run->cli->env->err, "note: %zu document%s no object, and not looked at\n",
                run->other, run->other == 1 ? " is" : "s are");
    }
}

void scan_print_text(const struct scan_run *run)
{
    FILE *out = run->cli->env->out;
    bool colour = cli_colour_wanted(run->cli);
    for (size_t i = 0; i < run->result.n; i++) {
        const struct at_scan_finding *f = &run->result.items[i];
        struct scan_place place = scan_place_of(run, i);
        if (f->ignored != NULL) {
            continue;
        }
        fprintf(out, "%s%s%s %s  ", colour ? COLOURS[f->severity] : "",
                at_scan_severity_name(f->severity), colour ? "\033[0m" : "", f->rule->name);
        cli_print_text(out, place_text(run, &place));
        fputs("  ", out);
        cli_print_text(out, object_text(run, &place));
        fputs("  ", out);
        cli_print_text(out, f->field);
        fputs("\n  ", out);
        cli_print_text(out, f->message);
        fprintf(out, "\n  why: %s\n  mend: %s\n", f->rule->why, f->rule->mend);
    }
    summary(run);
}

void scan_print_wide(const struct scan_run *run)
{
    static const char *const HEADER[] = {"SEVERITY", "RULE",    "WHERE",      "OBJECT",
                                         "FIELD",    "FINDING", "SUPPRESSED", "MEND"};
    struct cli_table table;
    cli_table_init(&table, run->cli->arena, AT_ARRAY_LEN(HEADER));
    bool header = !cli_flag(run->cli, OPT_NO_HEADERS);
    for (size_t i = 0; i < AT_ARRAY_LEN(HEADER) && header; i++) {
        cli_table_add(&table, HEADER[i]);
    }
    for (size_t i = 0; i < run->result.n; i++) {
        const struct at_scan_finding *f = &run->result.items[i];
        struct scan_place place = scan_place_of(run, i);
        cli_table_add(&table, at_scan_severity_name(f->severity));
        cli_table_add(&table, f->rule->name);
        cli_table_add(&table, place_text(run, &place));
        cli_table_add(&table, object_text(run, &place));
        cli_table_add(&table, f->field);
        cli_table_add(&table, f->message);
        cli_table_add(&table, f->ignored != NULL ? f->ignored : "");
        cli_table_add(&table, f->rule->mend);
    }
    cli_table_print(run->cli, &table, header);
}

void scan_print_names(const struct scan_run *run)
{
    struct at_map *seen = at_map_new();
    for (size_t i = 0; i < run->result.n; i++) {
        struct scan_place place = scan_place_of(run, i);
        const char *version = at_json_str_at(run->result.items[i].object, "apiVersion", "");
        const char *slash = strchr(version, '/');
        char kind[80];
        size_t n = 0;
        for (; place.kind[n] != '\0' && n + 1 < sizeof kind; n++) {
            kind[n] = (char)tolower((unsigned char)place.kind[n]);
        }
        kind[n] = '\0';
        const char *name =
            at_arena_printf(run->cli->arena, "%s%s%.*s/%s", kind, slash != NULL ? "." : "",
                            slash != NULL ? (int)(slash - version) : 0, version, place.name);
        if (run->result.items[i].ignored == NULL && name != NULL &&
            at_map_put(seen, name, seen) == NULL) {
            cli_print_text(run->cli->env->out, name);
            fputc('\n', run->cli->env->out);
        }
    }
    at_map_free(seen);
}

json_t *scan_json(const struct scan_run *run)
{
    json_t *findings = json_array();
    for (size_t i = 0; i < run->result.n; i++) {
        const struct at_scan_finding *f = &run->result.items[i];
        struct scan_place place = scan_place_of(run, i);
        json_t *one =
            json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "rule", f->rule->name,
                      "severity", at_scan_severity_name(f->severity), "kind", place.kind,
                      "namespace", place.ns, "name", place.name, "field", f->field, "message",
                      f->message, "why", f->rule->why, "mend", f->rule->mend);
        if (place.file != NULL) {
            json_object_set_new(one, "file", json_string(place.file));
            json_object_set_new(one, "line", json_integer((json_int_t)place.line));
        }
        if (f->ignored != NULL) {
            json_object_set_new(one, "suppressed", json_string(f->ignored));
        }
        json_array_append_new(findings, one);
    }
    json_t *counts = json_object();
    for (int s = AT_SCAN_SEVERITIES - 1; s >= 0; s--) {
        enum at_scan_severity severity = (enum at_scan_severity)s;
        json_object_set_new(counts, at_scan_severity_name(severity),
                            json_integer((json_int_t)count_of(run, severity)));
    }
    return json_pack("{s:o, s:o, s:I, s:I, s:I, s:b}", "findings", findings, "counts", counts,
                     "suppressed", (json_int_t)ignored_count(run), "objects",
                     (json_int_t)run->result.objects, "files", (json_int_t)run->files, "cut",
                     run->result.cut);
}

/* --- SARIF --- */

static json_t *sarif_rules(void)
{
    size_t n;
    const struct at_scan_rule *rules = at_scan_rules(&n);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        const struct at_scan_rule *r = &rules[i];
        json_t *one = json_pack("{s:s, s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}, s:{s:[s,s], s:s}}", "id",
                                r->name, "shortDescription", "text", r->title, "fullDescription",
                                "text", r->why, "help", "text", r->mend, "defaultConfiguration",
                                "level", LEVELS[r->severity], "properties", "tags", "security",
                                r->group, "security-severity", SCORES[r->severity]);
        json_array_append_new(list, one);
    }
    return list;
}

/* A path as a relative URI reference, or file:// when it is absolute. */
static const char *uri_of(const struct scan_run *run, const struct scan_place *place)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    const char *path = place->file;
    if (path == NULL) {
        path = at_arena_printf(run->cli->arena, "live/%s/%s/%s",
                               place->ns[0] != '\0' ? place->ns : "_", place->kind, place->name);
    }
    while (strncmp(path, "./", 2) == 0) {
        path += 2;
    }
    bool ok = path[0] != '/' || at_buf_append_str(&out, "file://") == AT_OK;
    for (const char *p = path; *p != '\0' && ok; p++) {
        bool plain = isalnum((unsigned char)*p) || strchr("-._~/", *p) != NULL;
        ok = (plain ? at_buf_append(&out, p, 1)
                    : at_buf_printf(&out, "%%%02X", (unsigned char)*p)) == AT_OK;
    }
    return out.data != NULL ? at_arena_strdup(run->cli->arena, out.data) : "";
}

static json_t *sarif_result(const struct scan_run *run, size_t i)
{
    const struct at_scan_finding *f = &run->result.items[i];
    struct scan_place place = scan_place_of(run, i);
    size_t n;
    size_t index = (size_t)(f->rule - at_scan_rules(&n));
    const char *uri = uri_of(run, &place);
    const char *object = object_text(run, &place);
    const char *full = at_arena_printf(run->cli->arena, "%s %s", object, f->field);
    const char *text = at_arena_printf(run->cli->arena, "%s: %s (%s). %s", object, f->message,
                                       f->field, f->rule->mend);
    const char *print = at_arena_printf(run->cli->arena, "%s|%s|%s", f->rule->name, uri, full);
    char digest[AT_SHA256_HEX_BYTES];
    at_sha256_hex(print, strlen(print), digest);
    json_t *location =
        json_pack("{s:{s:{s:s}, s:{s:I}}, s:[{s:s, s:s}]}", "physicalLocation", "artifactLocation",
                  "uri", uri, "region", "startLine", (json_int_t)(place.line > 0 ? place.line : 1),
                  "logicalLocations", "fullyQualifiedName", full, "kind", "member");
    json_t *one =
        json_pack("{s:s, s:I, s:s, s:{s:s}, s:[o], s:{s:s}, s:{s:s}}", "ruleId", f->rule->name,
                  "ruleIndex", (json_int_t)index, "level", LEVELS[f->severity], "message", "text",
                  text, "locations", location, "partialFingerprints", "atollScan/v1", digest,
                  "properties", "severity", at_scan_severity_name(f->severity));
    json_t *suppressions = f->ignored != NULL ? json_pack("[{s:s, s:s}]", "kind", "inSource",
                                                          "justification", f->ignored)
                                              : json_array();
    json_object_set_new(one, "suppressions", suppressions);
    return one;
}

json_t *scan_sarif(const struct scan_run *run)
{
    json_t *results = json_array();
    for (size_t i = 0; i < run->result.n; i++) {
        json_array_append_new(results, sarif_result(run, i));
    }
    json_t *tool = json_pack("{s:{s:s, s:s, s:o}}", "driver", "name", "atoll scan", "version",
                             AT_VERSION, "rules", sarif_rules());
    json_t *one = json_pack("{s:o, s:o, s:s}", "tool", tool, "results", results, "columnKind",
                            "utf16CodeUnits");
    return json_pack("{s:s, s:s, s:[o]}", "$schema",
                     "https://json.schemastore.org/sarif-2.1.0.json", "version", "2.1.0", "runs",
                     one);
}

/* --- the table of rules --- */

static json_t *rules_json(void)
{
    size_t n;
    const struct at_scan_rule *rules = at_scan_rules(&n);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "name", rules[i].name, "severity",
                            at_scan_severity_name(rules[i].severity), "group", rules[i].group,
                            "title", rules[i].title, "why", rules[i].why, "mend", rules[i].mend));
    }
    return list;
}

static void rules_markdown(FILE *out)
{
    size_t n;
    const struct at_scan_rule *rules = at_scan_rules(&n);
    const char *group = "";
    fputs(
        "# Rules of `atoll scan`\n\nMade by `atoll scan --rules -o markdown`. What scanning is for "
        "and how to use it: [howto](../howto/scan.md).\nThe severity is the usual one; a finding "
        "may be of another where the case is worse or milder.\n",
        out);
    for (size_t i = 0; i < n; i++) {
        if (!at_streq(group, rules[i].group)) {
            group = rules[i].group;
            fprintf(out, "\n## %c%s\n", toupper((unsigned char)group[0]), group + 1);
        }
        fprintf(out, "\n### %s\n%s. Severity: %s.\n\n- Why: %s\n- Mend: %s\n", rules[i].name,
                rules[i].title, at_scan_severity_name(rules[i].severity), rules[i].why,
                rules[i].mend);
    }
}

static void rules_table(struct cli *cli, bool wide)
{
    static const char *const HEADER[] = {"RULE", "SEVERITY", "FINDS", "WHY", "MEND"};
    size_t n, columns = wide ? 5 : 3;
    const struct at_scan_rule *rules = at_scan_rules(&n);
    struct cli_table table;
    cli_table_init(&table, cli->arena, columns);
    bool header = !cli_flag(cli, OPT_NO_HEADERS);
    for (size_t i = 0; i < columns && header; i++) {
        cli_table_add(&table, HEADER[i]);
    }
    for (size_t i = 0; i < n; i++) {
        cli_table_add(&table, rules[i].name);
        cli_table_add(&table, at_scan_severity_name(rules[i].severity));
        cli_table_add(&table, rules[i].title);
        if (wide) {
            cli_table_add(&table, rules[i].why);
            cli_table_add(&table, rules[i].mend);
        }
    }
    cli_table_print(cli, &table, header);
}

enum at_rc scan_print_rules(struct cli *cli, struct at_err *err)
{
    const char *format = cli_value(cli, OPT_OUTPUT, "");
    size_t n;
    const struct at_scan_rule *rules = at_scan_rules(&n);
    if (at_streq(format, "markdown")) {
        rules_markdown(cli->env->out);
    } else if (at_streq(format, "name")) {
        for (size_t i = 0; i < n; i++) {
            fprintf(cli->env->out, "%s\n", rules[i].name);
        }
    } else if (at_streq(format, "json") || at_streq(format, "yaml")) {
        AT_CLEANUP(at_cleanup_json) json_t *list = rules_json();
        return cli_print_value(cli, format[0] == 'j' ? CLI_JSON : CLI_YAML, list, err);
    } else {
        rules_table(cli, at_streq(format, "wide"));
    }
    return AT_OK;
}
