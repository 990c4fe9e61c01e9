/* Does this text hold a secret? Three ways to know: a shape that some issuer gives its keys, a name
 * that promises one beside a value that is no reference, and a text that nobody would think up. */
#include "core/mem.h"
#include "scan/scan_priv.h"

#include <ctype.h>
#include <math.h>

/* --- shapes --- */

enum alphabet { A_WORD, A_UPPER, A_HEX, A_BASE64URL, A_BASE64, A_DIGIT };

static bool in_alphabet(enum alphabet a, unsigned char c)
{
    switch (a) {
    case A_WORD:
        return isalnum(c);
    case A_UPPER:
        return isupper(c) || isdigit(c);
    case A_HEX:
        return isxdigit(c);
    case A_BASE64URL:
        return isalnum(c) || c == '-' || c == '_';
    case A_BASE64:
        return isalnum(c) || c == '+' || c == '/' || c == '=';
    case A_DIGIT:
        return isdigit(c);
    }
    return false;
}

/* What follows the prefix: at least so many of the alphabet. at_least == at_most: exactly. */
static const struct shape {
    const char *prefix;
    enum alphabet alphabet;
    size_t at_least, at_most; /* 0: no most */
    const char *what;
} SHAPES[] = {
    {"AKIA", A_UPPER, 16, 16, "an AWS access key"},
    {"ASIA", A_UPPER, 16, 16, "an AWS access key"},
    {"ghp_", A_WORD, 36, 0, "a GitHub token"},
    {"gho_", A_WORD, 36, 0, "a GitHub token"},
    {"ghu_", A_WORD, 36, 0, "a GitHub token"},
    {"ghs_", A_WORD, 36, 0, "a GitHub token"},
    {"ghr_", A_WORD, 36, 0, "a GitHub token"},
    {"github_pat_", A_BASE64URL, 22, 0, "a GitHub token"},
    {"glpat-", A_BASE64URL, 20, 0, "a GitLab token"},
    {"xoxb-", A_BASE64URL, 20, 0, "a Slack token"},
    {"xoxp-", A_BASE64URL, 20, 0, "a Slack token"},
    {"xoxa-", A_BASE64URL, 20, 0, "a Slack token"},
    {"xapp-", A_BASE64URL, 20, 0, "a Slack token"},
    {"AIza", A_BASE64URL, 35, 35, "a Google API key"},
    {"ya29.", A_BASE64URL, 20, 0, "a Google access token"},
    {"sk-ant-", A_BASE64URL, 20, 0, "an Anthropic key"},
    {"sk-proj-", A_BASE64URL, 20, 0, "an OpenAI key"},
    {"sk-", A_WORD, 32, 0, "an OpenAI key"},
    {"hf_", A_WORD, 30, 0, "a Hugging Face token"},
    {"nvapi-", A_BASE64URL, 40, 0, "an NVIDIA key"},
    {"sk_live_", A_WORD, 16, 0, "a Stripe key"},
    {"rk_live_", A_WORD, 16, 0, "a Stripe key"},
    {"npm_", A_WORD, 36, 36, "an npm token"},
    {"pypi-AgE", A_BASE64URL, 50, 0, "a PyPI token"},
    {"dckr_pat_", A_BASE64URL, 20, 0, "a Docker token"},
    {"dop_v1_", A_HEX, 64, 64, "a DigitalOcean token"},
    {"SG.", A_BASE64URL, 22, 0, "a SendGrid key"},
    {"key-", A_HEX, 32, 32, "a Mailgun key"},
    {"hvs.", A_BASE64URL, 24, 0, "a Vault token"},
    {"AccountKey=", A_BASE64, 60, 0, "an Azure storage key"},
    {"SharedAccessKey=", A_BASE64, 30, 0, "an Azure access key"},
    {"AGE-SECRET-KEY-1", A_UPPER, 50, 0, "an age key"},
    {"eyJhbGciOi", A_BASE64URL, 20, 0, "a JSON Web Token"},
    {"eyJ0eXAiOi", A_BASE64URL, 20, 0, "a JSON Web Token"},
};

static bool shape_at(const struct shape *s, struct at_str text, size_t at)
{
    size_t len = strlen(s->prefix);
    if (at > 0 && (isalnum((unsigned char)text.ptr[at - 1]) || text.ptr[at - 1] == '_') &&
        isalnum((unsigned char)s->prefix[0])) {
        return false; /* within a longer word */
    }
    size_t n = 0;
    while (at + len + n < text.len &&
           in_alphabet(s->alphabet, (unsigned char)text.ptr[at + len + n])) {
        n++;
    }
    return n >= s->at_least && (s->at_most == 0 || n <= s->at_most);
}

/* A key that is only an example: one letter again and again, or EXAMPLE at its end. */
static bool is_example(struct at_str text)
{
    static const char *const WORDS[] = {"EXAMPLE", "example", "xxxxxx", "XXXXXX", "000000000000"};
    for (size_t i = 0; i < AT_ARRAY_LEN(WORDS); i++) {
        if (memmem(text.ptr, text.len, WORDS[i], strlen(WORDS[i])) != NULL) {
            return true;
        }
    }
    return false;
}

static bool key_shape(struct at_str text, struct scan_secret *ret)
{
    for (size_t i = 0; i < AT_ARRAY_LEN(SHAPES); i++) {
        const struct shape *s = &SHAPES[i];
        const char *p = text.ptr, *end = text.ptr + text.len;
        size_t len = strlen(s->prefix);
        while ((p = memmem(p, (size_t)(end - p), s->prefix, len)) != NULL) {
            size_t at = (size_t)(p - text.ptr);
            size_t span = s->at_least + len < text.len - at ? s->at_least + len : text.len - at;
            if (shape_at(s, text, at) && !is_example((struct at_str){p, span})) {
                *ret = (struct scan_secret){s->what, AT_SCAN_CRITICAL};
                return true;
            }
            p += len;
        }
    }
    return false;
}

static bool has(struct at_str text, const char *words)
{
    return text.ptr != NULL && memmem(text.ptr, text.len, words, strlen(words)) != NULL;
}

/* scheme://user:password@host, where the password is no reference. */
static bool url_password(struct at_str text)
{
    const char *p = text.ptr, *end = text.ptr + text.len;
    while ((p = memmem(p, (size_t)(end - p), "://", 3)) != NULL) {
        p += 3;
        const char *q = p, *colon = NULL;
        while (q < end && strchr("/ \t\n\"'<>?#", *q) == NULL && *q != '@') {
            colon = *q == ':' && colon == NULL ? q : colon;
            q++;
        }
        if (q < end && *q == '@' && colon != NULL &&
            scan_secret_value((struct at_str){colon + 1, (size_t)(q - colon) - 1})) {
            return true;
        }
    }
    return false;
}

static bool bearer(struct at_str text)
{
    static const char *const WORDS[] = {"Bearer ", "bearer ", "Basic "};
    for (size_t i = 0; i < AT_ARRAY_LEN(WORDS); i++) {
        const char *p = memmem(text.ptr, text.len, WORDS[i], strlen(WORDS[i]));
        if (p != NULL && has(text, "uthorization")) {
            p += strlen(WORDS[i]);
            size_t n = 0;
            while (p + n < text.ptr + text.len && strchr(" \t\n\"'", p[n]) == NULL) {
                n++;
            }
            return n >= 8 && scan_secret_value((struct at_str){p, n});
        }
    }
    return false;
}

bool scan_secret_shape(struct at_str text, struct scan_secret *ret)
{
    if (text.ptr == NULL || text.len == 0 || text.len > AT_SCAN_TEXT_BYTES_MAX) {
        return false;
    }
    if (has(text, "PRIVATE KEY-----") && has(text, "-----BEGIN ")) {
        *ret = (struct scan_secret){"a private key", AT_SCAN_CRITICAL};
        return true;
    }
    if (key_shape(text, ret)) {
        return true;
    }
    if (url_password(text)) {
        *ret = (struct scan_secret){"a URL with a password", AT_SCAN_HIGH};
        return true;
    }
    if (bearer(text)) {
        *ret = (struct scan_secret){"an Authorization header", AT_SCAN_HIGH};
        return true;
    }
    return false;
}

/* --- names --- */

#define NAME_WORDS_MAX 16

/* api-key, API_KEY, apiKey as small words. */
static size_t words_of(struct at_str name, char out[NAME_WORDS_MAX][32])
{
    size_t n = 0, len = 0;
    for (size_t i = 0; i < name.len && n < NAME_WORDS_MAX; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        bool hump = isupper(c) && i > 0 && islower((unsigned char)name.ptr[i - 1]);
        if ((!isalnum(c) || hump) && len > 0) {
            out[n++][len] = '\0';
            len = 0;
        }
        if (n < NAME_WORDS_MAX && isalnum(c) && len < 31) {
            out[n][len++] = (char)tolower(c);
        }
    }
    if (n < NAME_WORDS_MAX && len > 0) {
        out[n++][len] = '\0';
    }
    return n;
}

static bool one_of(const char *word, const char *list)
{
    char framed[40];
    snprintf(framed, sizeof framed, " %s ", word);
    return strstr(list, framed) != NULL;
}

static bool ends(const char *word, const char *end)
{
    size_t a = strlen(word), b = strlen(end);
    return a >= b && strcmp(word + a - b, end) == 0;
}

bool scan_secret_name(struct at_str name)
{
    static const char TAIL[] = " value base plain prod production dev staging test default old new "
                               "primary secondary main b64 base64 0 1 2 3 ";
    static const char OWN[] = " password passwd passphrase pwd pass secret secrets credential "
                              "credentials apikey accesskey secretkey privatekey token auth ";
    static const char KEYS[] = " api access secret private signing encryption account master auth "
                               "client shared license service storage app ";
    /* Tokens of language models, and of text. */
    static const char TEXT[] = " eos bos pad unk stop mask cls sep special per next first last max "
                               "min num image start end new no use max target ";
    char words[NAME_WORDS_MAX][32];
    size_t n = words_of(name, words);
    while (n > 1 && one_of(words[n - 1], TAIL)) {
        n--;
    }
    if (n == 0) {
        return false;
    }
    const char *last = words[n - 1], *before = n > 1 ? words[n - 2] : "";
    if (strcmp(last, "auth") == 0) {
        return one_of(before, " rediscli basic http proxy requirepass ");
    }
    if (strcmp(last, "key") == 0) {
        return one_of(before, KEYS);
    }
    if (strcmp(last, "token") == 0) {
        return !one_of(before, TEXT);
    }
    return one_of(last, OWN) || ends(last, "password") || ends(last, "passwd") ||
           ends(last, "secret") || ends(last, "apikey") || ends(last, "accesstoken") ||
           ends(last, "authtoken");
}

static bool is_number(struct at_str v)
{
    for (size_t i = 0; i < v.len; i++) {
        if (!isdigit((unsigned char)v.ptr[i]) && v.ptr[i] != '.') {
            return false;
        }
    }
    return true;
}

static bool is_one_letter(struct at_str v)
{
    for (size_t i = 1; i < v.len; i++) {
        if (v.ptr[i] != v.ptr[0]) {
            return false;
        }
    }
    return true;
}

bool scan_secret_value(struct at_str value)
{
    static const char *const BEGINS[] = {
        "$",        "{{",      "<",       "[",      "%",       "/",        "./",      "../",
        "~/",       "file:",   "vault:",  "env:",   "secret:", "secrets:", "op://",   "arn:",
        "ref+",     "aws:",    "gcp:",    "azure:", "sops:",   "ENC[",     "sha256:", "http://",
        "https://", "REPLACE", "replace", "your-",  "YOUR_",   "your_",    "unix:"};
    static const char *const WORDS[] = {
        "none", "null",     "nil",      "true",    "false",    "yes",      "no",   "unset",  "todo",
        "tbd",  "redacted", "disabled", "enabled", "required", "optional", "auto", "default"};
    struct at_str v = at_str_trim(value);
    if (v.len < 4 || is_one_letter(v) || has(v, "$(") || has(v, "${") || has(v, "{{")) {
        return false;
    }
    if (is_number(v) && v.len < 6) {
        return false;
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(BEGINS); i++) {
        if (at_str_starts(v, BEGINS[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(WORDS); i++) {
        if (at_str_eq_nocase(v, WORDS[i])) {
            return false;
        }
    }
    return true;
}

/* --- randomness --- */

/* Shannon's entropy of its bytes, in bits a byte. */
static double entropy(struct at_str text)
{
    size_t counts[256] = {0};
    for (size_t i = 0; i < text.len; i++) {
        counts[(unsigned char)text.ptr[i]]++;
    }
    double sum = 0;
    for (size_t i = 0; i < 256; i++) {
        if (counts[i] > 0) {
            double p = (double)counts[i] / (double)text.len;
            sum -= p * log2(p);
        }
    }
    return sum;
}

#define RANDOM_BYTES_MIN 24
#define RANDOM_BYTES_MAX 256
#define RANDOM_BITS_MIN 4.0
#define RANDOM_SEGMENT_MIN 10 /* names are put together of shorter ones */

static bool word_is_random(struct at_str w)
{
    size_t upper = 0, lower = 0, digits = 0, turns = 0, segments = 1;
    if (w.len < RANDOM_BYTES_MIN || w.len > RANDOM_BYTES_MAX) {
        return false;
    }
    for (size_t i = 0; i < w.len; i++) {
        unsigned char c = (unsigned char)w.ptr[i];
        if (!in_alphabet(A_BASE64, c) && !in_alphabet(A_BASE64URL, c)) {
            return false;
        }
        upper += isupper(c) != 0;
        lower += islower(c) != 0;
        digits += isdigit(c) != 0;
        segments += c == '/' || c == '-' || c == '_' || c == '+';
        turns += i > 0 && (isdigit(c) != 0) != (isdigit((unsigned char)w.ptr[i - 1]) != 0);
    }
    /* Hexadecimal texts are digests and ids of something far more often than keys. */
    return upper >= 3 && lower >= 3 && digits >= 3 && turns >= 4 &&
           w.len / segments >= RANDOM_SEGMENT_MIN && entropy(w) >= RANDOM_BITS_MIN;
}

bool scan_secret_random(struct at_str text)
{
    static const char BETWEEN[] = " \t\r\n,;:\"'()[]{}<>|&?#";
    size_t at = 0;
    if (text.len > AT_SCAN_TEXT_BYTES_MAX || has(text, "sha256") || has(text, "sha512") ||
        has(text, "-----BEGIN ")) {
        return false;
    }
    while (at < text.len) {
        size_t n = 0;
        while (at + n < text.len && strchr(BETWEEN, text.ptr[at + n]) == NULL &&
               !(text.ptr[at + n] == '=' && at + n + 1 < text.len && text.ptr[at + n + 1] != '=')) {
            n++;
        }
        if (word_is_random((struct at_str){text.ptr + at, n})) {
            return true;
        }
        at += n + 1;
    }
    return false;
}

bool scan_secret(struct at_str name, struct at_str value, struct scan_secret *ret)
{
    if (scan_secret_shape(value, ret)) {
        return true;
    }
    if (value.len > 0 && scan_secret_name(name) && scan_secret_value(value)) {
        *ret = (struct scan_secret){"a value whose name says that it is a secret", AT_SCAN_HIGH};
        return true;
    }
    if (scan_secret_random(value)) {
        *ret = (struct scan_secret){"a text that looks like a random key", AT_SCAN_MEDIUM};
        return true;
    }
    return false;
}
