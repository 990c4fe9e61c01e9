/* The first line is a WWW-Authenticate value, the rest a config.json. */
#include "core/mem.h"
#include "package/auth.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const char *newline = size > 0 ? memchr(text, '\n', size) : NULL;
    size_t first = newline != NULL ? (size_t)(newline - text) : size;
    struct at_pkg_challenge c;
    struct at_pkg_credentials who = {0};
    if (at_pkg_challenge_parse(text, first, &c, NULL) == AT_OK) {
        if ((!c.bearer && !c.basic) || (c.bearer && c.realm[0] == '\0') ||
            strpbrk(c.realm, "\r\n") != NULL) {
            abort();
        }
    }
    if (newline != NULL) {
        enum at_rc rc =
            at_pkg_credentials_parse(newline + 1, size - first - 1, "r.example.com", &who, NULL);
        if (rc == AT_OK && who.user != NULL) {
            at_free(at_pkg_basic_header(&who));
        }
        at_pkg_credentials_done(&who);
    }
    return 0;
}
