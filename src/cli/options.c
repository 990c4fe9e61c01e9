#include "cli/cli_priv.h"
#include "core/str.h"

#include <assert.h>
#include <string.h>

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

#define WORD_BYTES_MAX 40

/* Levenshtein distance; long words count as far away. */
static size_t distance(const char *a, const char *b)
{
    size_t row[WORD_BYTES_MAX + 1];
    size_t b_len = strlen(b);
    if (strlen(a) > WORD_BYTES_MAX || b_len > WORD_BYTES_MAX) {
        return WORD_BYTES_MAX;
    }
    for (size_t j = 0; j <= b_len; j++) {
        row[j] = j;
    }
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t changed = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
            diagonal = row[j];
            row[j] = smaller(changed, smaller(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_len];
}

const char *cli_nearest(const char *word, const char *const *candidates, size_t n)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 3 + 2;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, candidates[i]);
        if (d < best_distance) {
            best_distance = d;
            best = candidates[i];
        }
    }
    return best;
}

static bool option_of_verb(const struct cli_verb *verb, enum cli_option option)
{
    for (size_t i = 0; i < verb->n_options; i++) {
        if (verb->options[i] == option) {
            return true;
        }
    }
    return false;
}

/* --file and --follow share a letter, so the verb decides. */
static enum cli_option find_option(const struct cli_verb *verb, const char *name, size_t len,
                                   char letter)
{
    for (int o = 0; o < OPT_COUNT; o++) {
        const struct cli_option_row *row = &CLI_OPTIONS[o];
        bool same = letter != 0 ? row->letter == letter
                                : strlen(row->name) == len && memcmp(row->name, name, len) == 0;
        if (same && option_of_verb(verb, (enum cli_option)o)) {
            return (enum cli_option)o;
        }
    }
    return OPT_COUNT;
}

static enum at_rc unknown(const struct cli *cli, const char *text, struct at_err *err)
{
    const char *names[OPT_COUNT];
    size_t n = 0;
    for (size_t i = 0; i < cli->verb->n_options; i++) {
        names[n++] = CLI_OPTIONS[cli->verb->options[i]].name;
    }
    const char *word = text + strspn(text, "-");
    char bare[WORD_BYTES_MAX + 1];
    snprintf(bare, sizeof bare, "%.*s", (int)strcspn(word, "="), word);
    const char *near = text[1] == '-' ? cli_nearest(bare, names, n) : NULL;
    bool command = strcmp(cli->verb->name, "exec") == 0;
    return at_err_set(err, AT_BAD_REQUEST, "unknown option %s%s%s; %ssee atoll %s --help", text,
                      near != NULL ? ", did you mean --" : "", near != NULL ? near : "",
                      command ? "put -- before the command, or " : "", cli->verb->name);
}

static enum at_rc take_value(struct cli *cli, enum cli_option option, const char *value,
                             struct at_err *err)
{
    struct cli_values *values = &cli->values[option];
    if (values->n == CLI_VALUES_MAX) {
        return at_err_set(err, AT_BAD_REQUEST, "--%s is given more than %d times",
                          CLI_OPTIONS[option].name, CLI_VALUES_MAX);
    }
    if (CLI_OPTIONS[option].value == NULL && strcmp(value, "true") != 0 &&
        strcmp(value, "false") != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "--%s is true or false, not \"%s\"",
                          CLI_OPTIONS[option].name, value);
    }
    values->items[values->n++] = value;
    return AT_OK;
}

/* One argument that begins with a dash; *at is its index and moves on over a value. */
static enum at_rc take_option(struct cli *cli, int argc, char **argv, int *at, struct at_err *err)
{
    const char *arg = argv[*at];
    bool is_long = arg[1] == '-';
    const char *name = arg + (is_long ? 2 : 1);
    const char *equals = strchr(name, '=');
    size_t len = equals != NULL ? (size_t)(equals - name) : strlen(name);
    enum cli_option option = find_option(cli->verb, name, len, is_long ? 0 : name[0]);
    if (option == OPT_COUNT) {
        return unknown(cli, arg, err);
    }
    const struct cli_option_row *row = &CLI_OPTIONS[option];
    if (!is_long && row->value == NULL) {
        /* Flags may stand together: -Aw. */
        for (const char *letter = name; *letter != '\0'; letter++) {
            option = find_option(cli->verb, "", 0, *letter);
            if (option == OPT_COUNT || CLI_OPTIONS[option].value != NULL) {
                return unknown(cli, arg, err);
            }
            enum at_rc rc = take_value(cli, option, "true", err);
            if (rc != AT_OK) {
                return rc;
            }
        }
        return AT_OK;
    }
    if (!is_long && name[1] != '\0') {
        return take_value(cli, option, name[1] == '=' ? name + 2 : name + 1, err);
    }
    if (equals != NULL) {
        return take_value(cli, option, equals + 1, err);
    }
    if (row->value == NULL) {
        return take_value(cli, option, "true", err);
    }
    if (*at + 1 == argc) {
        return at_err_set(err, AT_BAD_REQUEST, "%s needs a value: %s", arg, row->value);
    }
    return take_value(cli, option, argv[++*at], err);
}

static enum at_rc take_verb(struct cli *cli, const char *word, struct at_err *err)
{
    cli->verb = cli_verb_find(word);
    if (cli->verb != NULL) {
        return AT_OK;
    }
    const char *names[64];
    size_t n = 0;
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        names[n++] = CLI_VERBS[i].name;
    }
    for (size_t i = 0; i < CLI_ROLES_COUNT; i++) {
        names[n++] = CLI_ROLES[i].name;
    }
    assert(n <= AT_ARRAY_LEN(names));
    const char *near = cli_nearest(word, names, n);
    return at_err_set(err, AT_BAD_REQUEST, "unknown verb \"%s\"%s%s; see atoll help", word,
                      near != NULL ? ", did you mean " : "", near != NULL ? near : "");
}

/* Where the verb stands: what every verb takes may stand before it, as with kubectl. */
static int verb_at(int argc, char **argv)
{
    const struct cli_verb *any = cli_verb_find("get");
    int at = 1;
    while (at < argc && argv[at][0] == '-' && argv[at][1] != '\0') {
        bool is_long = argv[at][1] == '-';
        const char *name = argv[at] + (is_long ? 2 : 1);
        size_t len = is_long ? strcspn(name, "=") : 1;
        enum cli_option option = find_option(any, name, len, is_long ? 0 : name[0]);
        if (option == OPT_COUNT) {
            return 1;
        }
        at += CLI_OPTIONS[option].value != NULL && name[len] == '\0' ? 2 : 1;
    }
    return at < argc ? at : 1;
}

enum at_rc cli_parse(struct cli *cli, int argc, char **argv, struct at_err *err)
{
    cli->args = at_alloc(((size_t)argc + 1) * sizeof *cli->args);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        return AT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        cli->verb = cli_verb_find("version");
        return take_value(cli, OPT_CLIENT, "true", err);
    }
    int verb = verb_at(argc, argv);
    enum at_rc rc = take_verb(cli, argv[verb], err);
    bool only_args = false;
    for (int at = 1; at < argc && rc == AT_OK; at++) {
        if (at == verb) {
            continue;
        }
        if (!only_args && strcmp(argv[at], "--") == 0) {
            only_args = true;
            cli->args_dash = cli->n_args;
        } else if (!only_args && argv[at][0] == '-' && argv[at][1] != '\0') {
            rc = take_option(cli, argc, argv, &at, err);
        } else {
            cli->args[cli->n_args++] = argv[at];
        }
    }
    if (rc != AT_OK || cli_flag(cli, OPT_HELP)) {
        return rc;
    }
    if (cli->n_args < (size_t)cli->verb->args_min) {
        return at_err_set(err, AT_BAD_REQUEST, "something is missing: atoll %s %s", cli->verb->name,
                          cli->verb->synopsis);
    }
    if (cli->verb->args_max >= 0 && cli->n_args > (size_t)cli->verb->args_max) {
        return at_err_set(err, AT_BAD_REQUEST, "\"%s\" is too much: atoll %s %s",
                          cli->args[cli->verb->args_max], cli->verb->name, cli->verb->synopsis);
    }
    return AT_OK;
}

enum cli_option cli_option_named(const struct cli_verb *verb, const char *word)
{
    bool is_long = strncmp(word, "--", 2) == 0;
    const char *name = word + (is_long ? 2 : 1);
    if (word[0] != '-' || name[0] == '\0' || (!is_long && name[1] != '\0')) {
        return OPT_COUNT;
    }
    return find_option(verb, name, strlen(name), is_long ? 0 : name[0]);
}

enum cli_option cli_parse_words(struct cli *cli, size_t n, char **words)
{
    cli->verb = cli_verb_find(words[0]);
    for (int at = 1; cli->verb != NULL && at < (int)n; at++) {
        enum cli_option option = cli_option_named(cli->verb, words[at]);
        if (cli->after_dash) {
            cli->args[cli->n_args++] = words[at];
        } else if (strcmp(words[at], "--") == 0) {
            cli->after_dash = true;
        } else if (option != OPT_COUNT && CLI_OPTIONS[option].value != NULL && at + 1 == (int)n) {
            return option;
        } else if (words[at][0] == '-' && words[at][1] != '\0') {
            (void)!take_option(cli, (int)n, words, &at, NULL);
        } else {
            cli->args[cli->n_args++] = words[at];
        }
    }
    return OPT_COUNT;
}

const char *cli_value(const struct cli *cli, enum cli_option option, const char *otherwise)
{
    const struct cli_values *values = &cli->values[option];
    return values->n != 0 ? values->items[values->n - 1] : otherwise;
}

bool cli_flag_default(const struct cli *cli, enum cli_option option, bool otherwise)
{
    return strcmp(cli_value(cli, option, otherwise ? "true" : "false"), "true") == 0;
}

bool cli_flag(const struct cli *cli, enum cli_option option)
{
    return cli_flag_default(cli, option, false);
}

enum at_rc cli_duration(const struct cli *cli, enum cli_option option, int64_t otherwise_ns,
                        int64_t *ret_ns, struct at_err *err)
{
    const char *text = cli_value(cli, option, NULL);
    if (text == NULL) {
        *ret_ns = otherwise_ns;
        return AT_OK;
    }
    enum at_rc rc = at_duration_ns(text, ret_ns, err);
    return rc == AT_OK ? rc : at_err_wrap(err, rc, "--%s", CLI_OPTIONS[option].name);
}

enum at_rc cli_integer(const struct cli *cli, enum cli_option option, int64_t min, int64_t max,
                       int64_t *ret, struct at_err *err)
{
    const char *text = cli_value(cli, option, "");
    int64_t value;
    if (at_str_to_i64(at_str_of(text), &value) != AT_OK || value < min || value > max) {
        return at_err_set(err, AT_BAD_REQUEST, "--%s must be a whole number from %lld to %lld%s%s",
                          CLI_OPTIONS[option].name, (long long)min, (long long)max,
                          text[0] != '\0' ? ", not " : "", text);
    }
    *ret = value;
    return AT_OK;
}
