#include "cli/cli_priv.h"

#include <string.h>

static void put_option(FILE *out, enum cli_option option)
{
    const struct cli_option_row *row = &CLI_OPTIONS[option];
    char left[64];
    char letter[8] = "    ";
    if (row->letter != 0) {
        snprintf(letter, sizeof letter, "-%c, ", row->letter);
    }
    snprintf(left, sizeof left, "%s--%s%s%s", letter, row->name, row->value != NULL ? " " : "",
             row->value != NULL ? row->value : "");
    fprintf(out,
            strlen(left) <= 28 ? "  %-28s  %s\n" : "  %s\n                                %s\n",
            left, row->help);
}

/* Lines of examples; those that are a pipe already name the program. */
static void put_examples(FILE *out, const char *examples, const char *before)
{
    while (*examples != '\0') {
        size_t len = strcspn(examples, "\n");
        bool pipe = strncmp(examples, "cat ", 4) == 0;
        fprintf(out, "%s%s%.*s\n", before, pipe ? "" : "atoll ", (int)len, examples);
        examples += len + (examples[len] == '\n' ? 1 : 0);
    }
}

static void verb_help(FILE *out, const struct cli_verb *verb)
{
    fprintf(out, "%s.\n\nUsage:\n  atoll %s%s%s [options]\n", verb->summary, verb->name,
            verb->synopsis[0] != '\0' ? " " : "", verb->synopsis);
    if (verb->about != NULL) {
        fprintf(out, "\n%s\n", verb->about);
    }
    if (verb->examples != NULL) {
        fputs("\nExamples:\n", out);
        put_examples(out, verb->examples, "  ");
    }
    fputs("\nOptions:\n", out);
    for (size_t i = 0; i < verb->n_options; i++) {
        put_option(out, verb->options[i]);
    }
}

void cli_help(FILE *out, const struct cli_verb *verb)
{
    if (verb != NULL) {
        verb_help(out, verb);
        return;
    }
    fputs("Atoll runs AI models over every place you own or rent.\n\n"
          "Usage:\n  atoll VERB [arguments] [options]\n\nVerbs:\n",
          out);
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        fprintf(out, "  %-14s %s\n", CLI_VERBS[i].name, CLI_VERBS[i].summary);
    }
    fputs("\nRoles (programs with options of their own):\n", out);
    for (size_t i = 0; i < CLI_ROLES_COUNT; i++) {
        fprintf(out, "  %-14s %s\n", CLI_ROLES[i].name, CLI_ROLES[i].summary);
    }
    fputs("\nMore: atoll VERB --help. Begin with: atoll dev, then atoll get nodes.\n", out);
}

/* troff: a line must not begin with a dot or a quote, and dashes are minus signs. */
static void put_troff(FILE *out, const char *text)
{
    bool line_start = true;
    for (; *text != '\0'; text++) {
        if (line_start && (*text == '.' || *text == '\'')) {
            fputs("\\&", out);
        }
        if (*text == '-') {
            fputs("\\-", out);
        } else if (*text == '\\') {
            fputs("\\e", out);
        } else {
            fputc(*text, out);
        }
        line_start = *text == '\n';
    }
}

static void man_verb(FILE *out, const struct cli_verb *verb)
{
    fputs(".SS atoll ", out);
    put_troff(out, verb->name);
    fputc(' ', out);
    put_troff(out, verb->synopsis);
    fputc('\n', out);
    put_troff(out, verb->summary);
    fputs(".\n", out);
    if (verb->about != NULL) {
        put_troff(out, verb->about);
        fputc('\n', out);
    }
    for (size_t i = 0; i < verb->n_options; i++) {
        const struct cli_option_row *row = &CLI_OPTIONS[verb->options[i]];
        fputs(".TP\n.B ", out);
        if (row->letter != 0) {
            fprintf(out, "\\-%c, ", row->letter);
        }
        fputs("\\-\\-", out);
        put_troff(out, row->name);
        if (row->value != NULL) {
            fprintf(out, " \\fI%s\\fR", row->value);
        }
        fputc('\n', out);
        put_troff(out, row->help);
        fputc('\n', out);
    }
    if (verb->examples != NULL) {
        fputs(".PP\nExamples:\n.PP\n.nf\n", out);
        AT_CLEANUP(at_cleanup_buf) struct at_buf lines = {0};
        for (const char *at = verb->examples; *at != '\0';) {
            size_t len = strcspn(at, "\n");
            (void)!at_buf_printf(&lines, "    %s%.*s\n", strncmp(at, "cat ", 4) ? "atoll " : "",
                                 (int)len, at);
            at += len + (at[len] == '\n' ? 1 : 0);
        }
        put_troff(out, lines.data);
        fputs(".fi\n", out);
    }
}

void cli_man(FILE *out)
{
    fprintf(out, ".TH ATOLL 1 \"\" \"atoll %s\" \"User Commands\"\n", AT_VERSION);
    fputs(".SH NAME\natoll \\- run AI models over every place you own or rent\n.SH SYNOPSIS\n"
          ".B atoll\n\\fIVERB\\fR [\\fIARGUMENTS\\fR] [\\fIOPTIONS\\fR]\n.SH VERBS\n",
          out);
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        man_verb(out, &CLI_VERBS[i]);
    }
    fputs(".SH ROLES\nPrograms that run on servers and machines; each has its own \\-\\-help.\n",
          out);
    for (size_t i = 0; i < CLI_ROLES_COUNT; i++) {
        fprintf(out, ".TP\n.B atoll %s\n", CLI_ROLES[i].name);
        put_troff(out, CLI_ROLES[i].summary);
        fputc('\n', out);
    }
    fputs(".SH ENVIRONMENT\n.TP\n.B KUBECONFIG\nConfiguration file, as for kubectl.\n.TP\n"
          ".B ATOLL_GATEWAY\nAddress of the gateway for atoll infer.\n.TP\n"
          ".B ATOLL_TOKEN_FILE\nFile with the inference token.\n.TP\n"
          ".B NO_COLOR\nNo colour, also on a terminal.\n.SH EXIT STATUS\n",
          out);
    static const struct {
        int status;
        const char *meaning;
    } EXITS[] = {{0, "success"},
                 {1, "a failure inside"},
                 {2, "wrong input; nothing was changed unless it says so"},
                 {3, "not logged in, or not allowed"},
                 {4, "not found"},
                 {5, "conflict with what is there"},
                 {6, "the server cannot be reached or is busy; try again"},
                 {7, "time is up"}};
    for (size_t i = 0; i < AT_ARRAY_LEN(EXITS); i++) {
        fprintf(out, ".TP\n.B %d\n%s\n", EXITS[i].status, EXITS[i].meaning);
    }
}

enum at_rc cli_help_verb(struct cli *cli, struct at_err *err)
{
    if (cli_flag(cli, OPT_MAN)) {
        cli_man(cli->env->out);
        return AT_OK;
    }
    const struct cli_verb *verb = cli->n_args != 0 ? cli_verb_find(cli->args[0]) : NULL;
    if (cli->n_args != 0 && verb == NULL) {
        return at_err_set(err, AT_NOT_FOUND, "there is no verb \"%s\"; see atoll help",
                          cli->args[0]);
    }
    cli_help(cli->env->out, verb);
    return AT_OK;
}
