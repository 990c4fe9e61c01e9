/* What may stand next on the command line: one answer for all shells, from the table of verbs and
 * options, the kubeconfig and the server. A line is WORD, or WORD, a tab and what it means; a line
 * that begins with a colon tells the shell how: ":files", ":nospace". Whatever fails says nothing:
 * somebody is typing. */
#include "cli/cli_priv.h"
#include "client/kubeconfig.h"
#include "core/str.h"
#include "sys/process.h"

#include <ctype.h>
#include <string.h>

#define NAMES_TIMEOUT_NS (2 * AT_NS_PER_S)
#define ROLE_TIMEOUT_NS (5 * AT_NS_PER_S)
#define NAMES_MAX 1000

struct complete {
    struct cli *cli;
    const char *cur;    /* the word that is being typed */
    const char *before; /* to be put before each candidate: "--for=", "nodes," */
    bool nospace, files;
    size_t shown;
};

static void offer(struct complete *c, const char *word, const char *about)
{
    FILE *out = c->cli->env->out;
    size_t len = strlen(word);
    if (strncmp(word, c->cur, strlen(c->cur)) != 0 || strpbrk(word, "\t\n") != NULL) {
        return;
    }
    c->shown++;
    c->nospace = len != 0 && (word[len - 1] == '=' || word[len - 1] == '/');
    fputs(c->before, out);
    cli_print_text(out, word);
    if (about != NULL) {
        fputc('\t', out);
        for (; *about != '\0'; about++) {
            fputc(*about == '\n' || *about == '\t' ? ' ' : *about, out);
        }
    }
    fputc('\n', out);
}

/* --- names at the server --- */

static void offer_names(struct complete *c, const struct at_model_kind *kind, const char *prefix)
{
    struct cli *cli = c->cli;
    struct at_client_result result = {0};
    if (cli_connect(cli, NULL) != AT_OK) {
        return;
    }
    const char *ns = cli->ns != NULL ? cli->ns : "default";
    const char *pairs[] = {"limit", "1000", NULL};
    const char *path = cli_query(cli, cli_path_in(cli, kind, ns, NULL, NULL), pairs);
    at_client_request_within(cli->client, NAMES_TIMEOUT_NS, AT_HTTP_GET, path, NULL,
                             at_client_result_done, &result);
    if (at_client_wait(cli->client, &result) == AT_OK) {
        const json_t *items = json_object_get(result.body, "items");
        for (size_t i = 0; i < json_array_size(items) && i < NAMES_MAX; i++) {
            const char *name = at_json_str_at(json_array_get(items, i), "metadata.name", "");
            offer(c, at_arena_printf(cli->arena, "%s%s", prefix, name), NULL);
        }
    }
    at_client_result_clear(&result);
}

/* KIND/NAME: names of the kind, with it before them. */
static void offer_slashed(struct complete *c)
{
    size_t len = (size_t)(strchr(c->cur, '/') - c->cur);
    const struct at_model_kind *kind = NULL;
    const char *word = at_arena_strndup(c->cli->arena, c->cur, len);
    if (cli_kind(word, &kind, NULL) == AT_OK) {
        offer_names(c, kind, at_arena_printf(c->cli->arena, "%s/", word));
    }
}

/* Kinds; after a comma one more. */
static void offer_kinds(struct complete *c, const char *end)
{
    size_t count;
    const struct at_model_kind *const *kinds = at_model_kinds(&count);
    const char *comma = strrchr(c->cur, ',');
    if (comma != NULL && end[0] == '\0') {
        c->before =
            at_arena_printf(c->cli->arena, "%s%.*s", c->before, (int)(comma + 1 - c->cur), c->cur);
        c->cur = comma + 1;
    }
    for (size_t i = 0; i < count; i++) {
        const char *word = end[0] != '\0' ? kinds[i]->singular : kinds[i]->plural;
        const char *about = kinds[i]->description;
        size_t len = about != NULL ? strcspn(about, ".:") : 0;
        offer(c, at_arena_printf(c->cli->arena, "%s%s", word, end),
              len != 0 ? at_arena_strndup(c->cli->arena, about, len) : NULL);
    }
}

/* --- the kubeconfig --- */

static void offer_entries(struct complete *c, const char *list)
{
    struct at_kubeconfig *kc = NULL;
    size_t at;
    json_t *entry;
    if (at_kubeconfig_read(cli_value(c->cli, OPT_KUBECONFIG, NULL), false, &kc, NULL) != AT_OK) {
        return;
    }
    AT_CLEANUP(at_cleanup_json) json_t *merged = at_kubeconfig_merged(kc);
    at_kubeconfig_free(kc);
    json_array_foreach(json_object_get(merged, list), at, entry)
    {
        offer(c, at_json_str_at(entry, "name", ""), NULL);
    }
}

/* --- values of options --- */

static void offer_words(struct complete *c, const char *words)
{
    struct at_str rest = at_str_of(words);
    while (rest.len != 0) {
        struct at_str one = at_str_cut(&rest, ' ');
        offer(c, at_arena_strndup(c->cli->arena, one.ptr, one.len), NULL);
    }
}

static void offer_value(struct complete *c, enum cli_option option)
{
    const char *choice = CLI_OPTIONS[option].choice;
    const struct at_model_kind *kind = NULL;
    if (choice == NULL) {
        return;
    }
    if (choice[0] != '@') {
        offer_words(c, choice);
    } else if (strcmp(choice, "@file") == 0 || strcmp(choice, "@dir") == 0) {
        c->files = true;
    } else if (strcmp(choice, "@context") == 0 || strcmp(choice, "@cluster") == 0 ||
               strcmp(choice, "@user") == 0) {
        offer_entries(c, at_arena_printf(c->cli->arena, "%ss", choice + 1));
    } else if (strcmp(choice, "@object") == 0) {
        if (strchr(c->cur, '/') != NULL) {
            offer_slashed(c);
        } else {
            offer_kinds(c, "/");
        }
    } else if (cli_kind(choice + 1, &kind, NULL) == AT_OK) {
        offer_names(c, kind, "");
    }
}

static void offer_options(struct complete *c)
{
    const struct cli_verb *verb = c->cli->verb;
    for (size_t i = 0; i < verb->n_options; i++) {
        const struct cli_option_row *row = &CLI_OPTIONS[verb->options[i]];
        offer(c, at_arena_printf(c->cli->arena, "--%s", row->name), row->help);
    }
}

/* --- what stands without a dash --- */

/* Words that a synopsis names: "status | rotate-key", "[nodes|instances]", "init|pack ...". */
static void offer_synopsis(struct complete *c, const char *synopsis)
{
    json_t *seen = json_object();
    struct at_str rest = at_str_of(synopsis);
    while (rest.len != 0) {
        struct at_str one = at_str_trim(at_str_cut(&rest, '|'));
        size_t n = 0;
        one.ptr += one.len != 0 && one.ptr[0] == '[' ? 1 : 0;
        while (n < one.len && (islower((unsigned char)one.ptr[n]) || one.ptr[n] == '-')) {
            n++;
        }
        const char *word = at_arena_strndup(c->cli->arena, one.ptr, n);
        if (n != 0 && word[0] != '-' && json_object_get(seen, word) == NULL) {
            json_object_set_new(seen, word, json_true());
            offer(c, word, NULL);
        }
    }
    json_decref(seen);
}

static void offer_verbs(struct complete *c)
{
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        offer(c, CLI_VERBS[i].name, CLI_VERBS[i].summary);
    }
    for (size_t i = 0; i < CLI_ROLES_COUNT; i++) {
        offer(c, CLI_ROLES[i].name, CLI_ROLES[i].summary);
    }
}

static void config_argument(struct complete *c)
{
    const struct cli *cli = c->cli;
    const char *word = cli->n_args != 0 ? cli->args[0] : "";
    for (size_t i = 0; cli->n_args == 0 && cli_config_word(i) != NULL; i++) {
        offer(c, cli_config_word(i), NULL);
    }
    if (cli->n_args != 0 && strstr(word, "context") != NULL && cli->n_args < 2) {
        offer_entries(c, "contexts");
    } else if (cli->n_args == 1 && strstr(word, "-cluster") != NULL) {
        offer_entries(c, "clusters");
    } else if (cli->n_args == 1 &&
               (strcmp(word, "delete-user") == 0 || strcmp(word, "set-credentials") == 0)) {
        offer_entries(c, "users");
    }
}

static void auth_argument(struct complete *c)
{
    const struct cli *cli = c->cli;
    if (cli->n_args == 0) {
        offer_synopsis(c, cli->verb->synopsis);
    } else if (strcmp(cli->args[0], "can-i") == 0 && cli->n_args == 1) {
        offer_words(c, "get list watch create update patch delete deletecollection");
    } else if (strcmp(cli->args[0], "can-i") == 0 && cli->n_args == 2) {
        if (strchr(c->cur, '/') != NULL) {
            offer_slashed(c);
        } else {
            offer_kinds(c, "");
        }
    }
}

/* KIND NAME..., KIND/NAME..., KIND,KIND */
static void kind_argument(struct complete *c)
{
    const struct cli *cli = c->cli;
    const struct at_model_kind *kind = NULL;
    bool first = cli->n_args == 0;
    bool slashed = !first && strchr(cli->args[0], '/') != NULL;
    if (strchr(c->cur, '/') != NULL) {
        offer_slashed(c);
    } else if (first || slashed) {
        offer_kinds(c, slashed ? "/" : "");
        if (first && strcmp(cli->verb->name, "explain") == 0) {
            offer(c, "placement", "why something runs where it runs");
        }
    } else if (strcmp(cli->args[0], "placement") == 0) {
        offer_kinds(c, "/");
    } else if (cli_kind(cli->args[0], &kind, NULL) == AT_OK) {
        offer_names(c, kind, "");
    }
}

/* An instance, or KIND/NAME of what has some. */
static void instance_argument(struct complete *c)
{
    if (c->cli->n_args != 0) {
        return;
    }
    if (strchr(c->cur, '/') != NULL) {
        offer_slashed(c);
        return;
    }
    offer_names(c, &AT_KIND_INSTANCE, "");
    offer(c, "deployment/", NULL);
    offer(c, "job/", NULL);
}

static void model_argument(struct complete *c)
{
    if (c->cli->n_args == 0) {
        offer_names(c, &AT_KIND_DEPLOYMENT, "");
    }
}

static void help_argument(struct complete *c)
{
    for (size_t i = 0; i < CLI_VERBS_COUNT && c->cli->n_args == 0; i++) {
        offer(c, CLI_VERBS[i].name, CLI_VERBS[i].summary);
    }
}

static void argument(struct complete *c)
{
    static const struct {
        const char *verb;
        void (*offer)(struct complete *c);
    } OWN[] = {{"config", config_argument},
               {"auth", auth_argument},
               {"logs", instance_argument},
               {"exec", instance_argument},
               {"port-forward", instance_argument},
               {"infer", model_argument},
               {"load", model_argument},
               {"help", help_argument}};
    const struct cli_verb *verb = c->cli->verb;
    for (size_t i = 0; i < AT_ARRAY_LEN(OWN); i++) {
        if (strcmp(OWN[i].verb, verb->name) == 0) {
            OWN[i].offer(c);
            return;
        }
    }
    if (verb->takes_kinds) {
        kind_argument(c);
    } else if (c->cli->n_args == 0) {
        offer_synopsis(c, verb->synopsis);
    }
    c->files = c->shown == 0 && !verb->takes_kinds && verb->args_max != 0;
}

/* --- roles: programs whose help lists their options --- */

static void role(struct complete *c, const char *name)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_free) char *self = at_sys_self_exe();
    const char *argv[] = {self, name, "--help", NULL};
    struct at_process_options options = {
        .argv = argv, .envp = at_sys_environ(), .stdin_fd = -1, .uid = -1, .gid = -1};
    int code = 0;
    if (c->cur[0] != '-') {
        c->files = true;
        return;
    }
    if (self == NULL || at_process_run(&options, ROLE_TIMEOUT_NS, &text, &code, NULL) != AT_OK) {
        return;
    }
    struct at_str rest = {text.data, text.len};
    while (rest.len != 0) {
        struct at_str line = at_str_cut(&rest, '\n');
        size_t n = 2;
        if (line.len < 5 || strncmp(line.ptr, "  --", 4) != 0) {
            continue;
        }
        while (n < line.len && line.ptr[n] != ' ' && line.ptr[n] != '=') {
            n++;
        }
        offer(c, at_arena_strndup(c->cli->arena, line.ptr + 2, n - 2), NULL);
    }
}

static bool is_role(const char *word)
{
    for (size_t i = 0; i < CLI_ROLES_COUNT; i++) {
        if (strcmp(CLI_ROLES[i].name, word) == 0) {
            return true;
        }
    }
    return false;
}

/* bash cuts words at '=': put them together again. Returns how many are left. *ret_cut: the last
 * one was cut, so that only what stands behind the '=' is to be answered. */
static size_t join_cut(const struct cli *cli, char **words, size_t n, bool *ret_cut)
{
    size_t out = 0;
    *ret_cut = false;
    for (size_t i = 0; i < n; i++) {
        bool joins = strcmp(words[i], "=") == 0 && out != 0 && words[out - 1][0] == '-';
        if (!joins) {
            words[out++] = words[i];
            continue;
        }
        const char *value = i + 1 < n ? words[i + 1] : "";
        words[out - 1] = at_arena_printf(cli->arena, "%s=%s", words[out - 1], value);
        i++;
        *ret_cut = i + 1 >= n;
    }
    return out;
}

static void next_word(struct complete *c, char **words, size_t n, bool cut)
{
    struct cli *cli = c->cli;
    enum cli_option option = OPT_COUNT;
    if (n > 1) {
        option = cli_parse_words(cli, n - 1, words);
    }
    if (n == 1) {
        offer_verbs(c);
    } else if (cli->verb == NULL) {
        if (is_role(words[0])) {
            role(c, words[0]);
        }
    } else if (option != OPT_COUNT) {
        offer_value(c, option);
    } else if (cli->args_dash != 0 || cli->after_dash) {
        c->files = true;
    } else if (c->cur[0] == '-' && strchr(c->cur, '=') != NULL) {
        size_t len = strcspn(c->cur, "=");
        option = cli_option_named(cli->verb, at_arena_strndup(cli->arena, c->cur, len));
        c->before = cut ? "" : at_arena_strndup(cli->arena, c->cur, len + 1);
        c->cur += len + 1;
        if (option != OPT_COUNT) {
            offer_value(c, option);
        }
    } else if (c->cur[0] == '-') {
        offer_options(c);
    } else {
        argument(c);
    }
}

void cli_complete(struct cli *cli, int argc, char **argv)
{
    struct complete c = {.cli = cli, .cur = "", .before = ""};
    char *none = at_arena_strdup(cli->arena, "");
    char **words = argc > 0 ? argv : &none;
    bool cut = false;
    size_t n = join_cut(cli, words, argc > 0 ? (size_t)argc : 1, &cut);
    c.cur = words[n - 1];
    next_word(&c, words, n, cut);
    if (c.files) {
        fputs(":files\n", cli->env->out);
    } else if (c.nospace && c.shown == 1) {
        fputs(":nospace\n", cli->env->out);
    }
}
