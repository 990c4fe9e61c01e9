/* Completion scripts for bash, zsh and fish, from the table of verbs and options. */
#include "cli/cli_priv.h"

#include <string.h>

static void put_kinds(FILE *out)
{
    size_t count;
    const struct at_model_kind *const *kinds = at_model_kinds(&count);
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "%s%s", i != 0 ? " " : "", kinds[i]->plural);
    }
}

static void put_names(FILE *out)
{
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        fprintf(out, "%s ", CLI_VERBS[i].name);
    }
    for (size_t i = 0; i < CLI_ROLES_COUNT; i++) {
        fprintf(out, "%s%s", CLI_ROLES[i].name, i + 1 < CLI_ROLES_COUNT ? " " : "");
    }
}

static void put_bash_verb(FILE *out, const struct cli_verb *verb)
{
    fprintf(out, "        %s) options='", verb->name);
    for (size_t o = 0; o < verb->n_options; o++) {
        fprintf(out, "--%s ", CLI_OPTIONS[verb->options[o]].name);
    }
    fputs("'", out);
    if (verb->takes_kinds) {
        fputs("; words=$(_atoll_objects '", out);
        put_kinds(out);
        fputs("')", out);
    } else if (strcmp(verb->name, "logs") == 0) {
        fputs("; words=$(_atoll_names instances)", out);
    } else if (strcmp(verb->name, "completion") == 0) {
        fputs("; words='bash zsh fish'", out);
    } else if (strcmp(verb->name, "help") == 0) {
        fputs("; words='", out);
        put_names(out);
        fputs("'", out);
    }
    fputs(" ;;\n", out);
}

/* Kinds first; then the names of what there is, asked of the server. */
static const char BASH_OBJECTS[] =
    "_atoll_names() { atoll get \"$1\" -o name 2> /dev/null | sed 's|.*/||'; }\n"
    "_atoll_objects() {\n"
    "    local kind=${COMP_WORDS[2]}\n"
    "    if [[ $cur == */* ]]; then\n"
    "        _atoll_names \"${cur%%/*}\" | sed \"s|^|${cur%%/*}/|\"\n"
    "    elif ((COMP_CWORD > 2)) && [[ $kind != -* ]] && [[ $kind != */* ]]; then\n"
    "        _atoll_names \"$kind\"\n"
    "    else\n"
    "        echo \"$1\"\n"
    "    fi\n"
    "}\n";

static void put_bash(FILE *out)
{
    fputs("# bash completion for atoll\n", out);
    fputs(BASH_OBJECTS, out);
    fputs(
        "_atoll() {\n"
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words= options=\n"
        "    case $prev in\n",
        out);
    for (int o = 0; o < OPT_COUNT; o++) {
        const struct cli_option_row *row = &CLI_OPTIONS[o];
        if (row->choice != NULL && row->choice[0] == '@') {
            fprintf(out, "    --%s) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", row->name);
        } else if (row->choice != NULL) {
            fprintf(out, "    --%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n",
                    row->name, row->choice);
        }
    }
    fputs("    -f|-k) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
          "    -o) COMPREPLY=($(compgen -W 'json yaml wide name' -- \"$cur\")); return ;;\n"
          "    esac\n    if ((COMP_CWORD == 1)); then\n        words='",
          out);
    put_names(out);
    fputs("'\n    else\n        case ${COMP_WORDS[1]} in\n", out);
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        put_bash_verb(out, &CLI_VERBS[i]);
    }
    for (size_t i = 0; i < CLI_ROLES_COUNT; i++) {
        fprintf(out, "%s%s", i == 0 ? "        " : "|", CLI_ROLES[i].name);
    }
    /* Roles keep their options themselves. */
    fputs(") options=$(atoll \"${COMP_WORDS[1]}\" --help 2> /dev/null |"
          " sed -n 's/^  \\(--[a-z-]*\\).*/\\1/p') ;;\n"
          "        esac\n    fi\n    [[ $cur != -* ]] || words=$options\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
          "complete -o default -F _atoll atoll\n",
          out);
}

/* Inside single quotes of zsh's _arguments and fish. */
static void put_quoted(FILE *out, const char *text, const char *escape)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            fputs("'\\''", out);
        } else if (strchr(escape, *text) != NULL) {
            fprintf(out, "\\%c", *text);
        } else {
            fputc(*text, out);
        }
    }
}

static void put_zsh_option(FILE *out, const struct cli_option_row *row)
{
    fprintf(out, "            '*--%s%s[", row->name, row->value != NULL ? "=" : "");
    put_quoted(out, row->help, "[]:\\");
    fputc(']', out);
    if (row->value != NULL) {
        fputc(':', out);
        put_quoted(out, row->value, "[]:\\");
        if (row->choice == NULL) {
            fputc(':', out);
        } else if (row->choice[0] == '@') {
            fputs(":_files", out);
        } else {
            fprintf(out, ":(%s)", row->choice);
        }
    }
    fputs("' \\\n", out);
}

static void put_zsh(FILE *out)
{
    fputs("#compdef atoll\n_atoll() {\n    if ((CURRENT == 2)); then\n        local -a verbs=(\n",
          out);
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        fprintf(out, "            '%s:", CLI_VERBS[i].name);
        put_quoted(out, CLI_VERBS[i].summary, "");
        fputs("'\n", out);
    }
    for (size_t i = 0; i < CLI_ROLES_COUNT; i++) {
        fprintf(out, "            '%s:", CLI_ROLES[i].name);
        put_quoted(out, CLI_ROLES[i].summary, "");
        fputs("'\n", out);
    }
    fputs("        )\n        _describe verb verbs\n        return\n    fi\n"
          "    local verb=$words[2]\n    shift words\n    ((CURRENT--))\n    case $verb in\n",
          out);
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        const struct cli_verb *verb = &CLI_VERBS[i];
        fprintf(out, "    %s)\n        _arguments \\\n", verb->name);
        for (size_t o = 0; o < verb->n_options; o++) {
            put_zsh_option(out, &CLI_OPTIONS[verb->options[o]]);
        }
        fputs("            '*:argument:(", out);
        if (verb->takes_kinds) {
            put_kinds(out);
        } else if (strcmp(verb->name, "completion") == 0) {
            fputs("bash zsh fish", out);
        }
        fputs(")' ;;\n", out);
    }
    fputs("    esac\n}\n_atoll \"$@\"\n", out);
}

static void put_fish(FILE *out)
{
    fputs("# fish completion for atoll\ncomplete -c atoll -f\n", out);
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        const struct cli_verb *verb = &CLI_VERBS[i];
        fprintf(out, "complete -c atoll -n __fish_use_subcommand -a %s -d '", verb->name);
        put_quoted(out, verb->summary, "\\");
        fputs("'\n", out);
        for (size_t o = 0; o < verb->n_options; o++) {
            const struct cli_option_row *row = &CLI_OPTIONS[verb->options[o]];
            fprintf(out, "complete -c atoll -n '__fish_seen_subcommand_from %s' -l %s", verb->name,
                    row->name);
            if (row->letter != 0) {
                fprintf(out, " -s %c", row->letter);
            }
            if (row->value != NULL) {
                bool words = row->choice != NULL && row->choice[0] != '@';
                fprintf(out,
                        words                 ? " -x -a '%s'"
                        : row->choice != NULL ? " -r -F"
                                              : " -x",
                        row->choice);
            }
            fputs(" -d '", out);
            put_quoted(out, row->help, "\\");
            fputs("'\n", out);
        }
        if (verb->takes_kinds) {
            fprintf(out, "complete -c atoll -n '__fish_seen_subcommand_from %s' -a '", verb->name);
            put_kinds(out);
            fputs("'\n", out);
        }
    }
    for (size_t i = 0; i < CLI_ROLES_COUNT; i++) {
        fprintf(out, "complete -c atoll -n __fish_use_subcommand -a %s -d '", CLI_ROLES[i].name);
        put_quoted(out, CLI_ROLES[i].summary, "\\");
        fputs("'\n", out);
    }
    fputs("complete -c atoll -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'\n",
          out);
}

enum at_rc cli_completion(struct cli *cli, struct at_err *err)
{
    static const struct {
        const char *shell;
        void (*put)(FILE *out);
    } SHELLS[] = {{"bash", put_bash}, {"zsh", put_zsh}, {"fish", put_fish}};
    for (size_t i = 0; i < AT_ARRAY_LEN(SHELLS); i++) {
        if (strcmp(cli->args[0], SHELLS[i].shell) == 0) {
            SHELLS[i].put(cli->env->out);
            return AT_OK;
        }
    }
    return at_err_set(err, AT_BAD_REQUEST, "no completion for \"%s\"; there are bash, zsh and fish",
                      cli->args[0]);
}
