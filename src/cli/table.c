#include "cli/cli_priv.h"
#include "core/str.h"

#include <assert.h>
#include <string.h>

#define COLUMN_GAP 3

void cli_table_init(struct cli_table *table, struct at_arena *arena, size_t columns)
{
    assert(columns != 0);
    *table = (struct cli_table){.arena = arena, .columns = columns};
}

/* What comes from outside must not steer the terminal or break the row. */
static char *printable(struct at_arena *arena, const char *text)
{
    size_t len = strlen(text);
    char *copy = at_arena_strndup(arena, text, len);
    if (copy == NULL) {
        return NULL;
    }
    for (size_t at = 0; at < len;) {
        size_t good = at_str_utf8_prefix((struct at_str){copy + at, len - at});
        for (size_t i = at; i < at + good; i++) {
            unsigned char c = (unsigned char)copy[i];
            if (c < ' ' || c == 0x7f) {
                copy[i] = ' ';
            } else if (c == 0xc2 && (unsigned char)copy[i + 1] < 0xa0) {
                copy[i] = copy[i + 1] = ' '; /* C1 controls */
            }
        }
        at += good;
        if (at < len) {
            copy[at++] = '?';
        }
    }
    return copy;
}

void cli_table_add(struct cli_table *table, const char *cell)
{
    if (table->n == table->room) {
        size_t room = table->room != 0 ? table->room * 2 : 64;
        const char **cells = at_arena_alloc(table->arena, room * sizeof *cells);
        if (cells == NULL) {
            return; /* the arena's cap bounds what is printed */
        }
        if (table->n != 0) {
            memcpy(cells, table->cells, table->n * sizeof *cells);
        }
        table->cells = cells;
        table->room = room;
    }
    const char *copy = cell != NULL ? printable(table->arena, cell) : "";
    table->cells[table->n++] = copy != NULL ? copy : "";
}

static size_t width_of(const char *text)
{
    size_t width = 0;
    for (; *text != '\0'; text++) {
        width += ((unsigned char)*text & 0xc0) != 0x80 ? 1 : 0;
    }
    return width;
}

bool cli_colour_wanted(const struct cli *cli)
{
    const char *no = at_sys_getenv("NO_COLOR");
    const char *term = at_sys_getenv("TERM");
    return cli->env->out_is_terminal && (no == NULL || no[0] == '\0') &&
           (term == NULL || strcmp(term, "dumb") != 0);
}

static const char *colour_of(const char *cell, bool header)
{
    static const struct {
        const char *word, *colour;
    } WORDS[] = {{"True", "\033[32m"},    {"Running", "\033[32m"},  {"Succeeded", "\033[32m"},
                 {"true", "\033[32m"},    {"False", "\033[31m"},    {"Failed", "\033[31m"},
                 {"Pending", "\033[33m"}, {"Starting", "\033[33m"}, {"Unknown", "\033[33m"},
                 {"false", "\033[33m"}};
    if (header) {
        return "\033[1m";
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(WORDS); i++) {
        if (strcmp(cell, WORDS[i].word) == 0) {
            return WORDS[i].colour;
        }
    }
    return NULL;
}

void cli_table_print(const struct cli *cli, const struct cli_table *table, bool header)
{
    FILE *out = cli->env->out;
    bool colour = cli_colour_wanted(cli);
    size_t *widths =
        table->widths != NULL ? table->widths : at_alloc(table->columns * sizeof *widths);
    for (size_t i = 0; i < table->n; i++) {
        size_t width = width_of(table->cells[i]);
        if (width > widths[i % table->columns]) {
            widths[i % table->columns] = width;
        }
    }
    for (size_t i = 0; i < table->n; i++) {
        size_t column = i % table->columns;
        const char *cell = table->cells[i];
        const char *paint = colour ? colour_of(cell, header && i < table->columns) : NULL;
        fprintf(out, "%s%s%s", paint != NULL ? paint : "", cell, paint != NULL ? "\033[0m" : "");
        if (column + 1 == table->columns) {
            fputc('\n', out);
        } else {
            fprintf(out, "%*s", (int)(widths[column] - width_of(cell)) + COLUMN_GAP, "");
        }
    }
    if (widths != table->widths) {
        at_free(widths);
    }
}

void cli_print_text(FILE *out, const char *text)
{
    for (size_t left = strlen(text); left != 0;) {
        size_t good = at_str_utf8_prefix((struct at_str){text, left});
        for (size_t i = 0; i < good; i++) {
            unsigned char c = (unsigned char)text[i];
            bool c1 = c == 0xc2 && (unsigned char)text[i + 1] < 0xa0;
            if (c1) {
                i++;
            }
            fputc((c < ' ' && c != '\n' && c != '\t') || c == 0x7f || c1 ? '?' : c, out);
        }
        text += good;
        left -= good;
        if (left != 0) {
            fputc('?', out);
            text++;
            left--;
        }
    }
}
