/* An answer's text as it comes, token by token: whole UTF-8 characters only, and never a part of a
 * stop word. Pure. */
#ifndef AT_RUNNERS_LLM_TEXT_H
#define AT_RUNNERS_LLM_TEXT_H

#include "core/buf.h"
#include "core/str.h"

struct at_llm_text {
    const char *const *stops; /* borrowed; none is empty */
    size_t n_stops;
    struct at_buf held; /* not yet given out */
    bool stopped;
};

/* Bytes of one more token. What may be given out is appended to out. true: a stop word was met; the
 * text ends before it, and nothing more is taken. err by out's cap is never hit by held alone. */
bool at_llm_text_push(struct at_llm_text *text, const char *bytes, size_t len, struct at_buf *out);
/* The answer ends: what was held back is given out, broken characters as U+FFFD. */
void at_llm_text_end(struct at_llm_text *text, struct at_buf *out);
void at_llm_text_done(struct at_llm_text *text);

#endif
