/* Completion scripts for bash, zsh and fish. All three ask `atoll __complete` (complete.c), so that
 * they know the same. */
#include "cli/cli_priv.h"

#include <string.h>

static const char BASH[] =
    "# bash completion for atoll\n"
    "_atoll() {\n"
    "    local line directive= program=${COMP_WORDS[0]/#\\~/$HOME}\n"
    "    COMPREPLY=()\n"
    "    while IFS= read -r line; do\n"
    "        case $line in\n"
    "        :*) directive=$line ;;\n"
    "        *) COMPREPLY+=(\"${line%%$'\\t'*}\") ;;\n"
    "        esac\n"
    "    done < <(\"$program\" __complete \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2> /dev/null)\n"
    "    case $directive in\n"
    "    :files)\n"
    "        local word=${COMP_WORDS[COMP_CWORD]}\n"
    "        [[ $word != = ]] || word=\n"
    "        compopt -o filenames 2> /dev/null\n"
    "        mapfile -t COMPREPLY < <(compgen -f -- \"$word\") ;;\n"
    "    :nospace) compopt -o nospace 2> /dev/null ;;\n"
    "    esac\n"
    "}\n"
    "complete -F _atoll atoll\n";

static const char ZSH[] =
    "#compdef atoll\n"
    "_atoll() {\n"
    "    local line directive=\n"
    "    local -a lines items options\n"
    "    lines=(\"${(@f)$(\"${words[1]/#\\~/$HOME}\" __complete \"${(@)words[2,CURRENT]}\" "
    "2> /dev/null)}\")\n"
    "    for line in $lines; do\n"
    "        case $line in\n"
    "        (:*) directive=$line ;;\n"
    "        (*$'\\t'*) items+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\") ;;\n"
    "        (?*) items+=(\"${line//:/\\\\:}\") ;;\n"
    "        esac\n"
    "    done\n"
    "    if [[ $directive == :files ]]; then\n"
    "        _files\n"
    "        return\n"
    "    fi\n"
    "    [[ $directive != :nospace ]] || options=(-S '')\n"
    "    _describe -t words 'atoll' items $options\n"
    "}\n"
    "if [[ ${funcstack[1]} == _atoll ]]; then\n"
    "    _atoll \"$@\"\n"
    "else\n"
    "    compdef _atoll atoll\n"
    "fi\n";

static const char FISH[] =
    "# fish completion for atoll\n"
    "function __atoll_complete\n"
    "    set -l words (commandline -opc)\n"
    "    set -l word (commandline -ct)\n"
    "    for line in ($words[1] __complete $words[2..-1] \"$word\" 2> /dev/null)\n"
    "        switch $line\n"
    "            case ':files'\n"
    "                __fish_complete_path \"$word\"\n"
    "            case ':*'\n"
    "            case '*'\n"
    "                echo $line\n"
    "        end\n"
    "    end\n"
    "end\n"
    "complete -c atoll -f -a '(__atoll_complete)'\n";

enum at_rc cli_completion(struct cli *cli, struct at_err *err)
{
    static const struct {
        const char *shell, *script;
    } SHELLS[] = {{"bash", BASH}, {"zsh", ZSH}, {"fish", FISH}};
    for (size_t i = 0; i < AT_ARRAY_LEN(SHELLS); i++) {
        if (strcmp(cli->args[0], SHELLS[i].shell) == 0) {
            fputs(SHELLS[i].script, cli->env->out);
            return AT_OK;
        }
    }
    return at_err_set(err, AT_BAD_REQUEST, "no completion for \"%s\"; there are bash, zsh and fish",
                      cli->args[0]);
}
