/* Command lines, as lists of words; what is given to a shell is taken apart like a shell does, as
 * far as words and quotes go. */
#include "core/mem.h"
#include "scan/scan_priv.h"

#include <ctype.h>

static void word_add(struct scan_words *words, struct at_str text, const char *field)
{
    if (words->n < AT_SCAN_WORDS_MAX && text.len > 0) {
        words->items[words->n++] = (struct scan_word){text, field};
    }
}

/* Words of a script: blanks and ; & | ( ) end one, quotes do not. */
static void script_split(struct scan_words *words, struct at_str script, const char *field)
{
    static const char ENDS[] = " \t\n\r;&()";
    size_t at = 0;
    while (at < script.len) {
        if (script.ptr[at] == '|') { /* worth a word of its own: what comes in is run */
            word_add(words, (struct at_str){script.ptr + at, 1}, field);
            at++;
            continue;
        }
        if (strchr(ENDS, script.ptr[at]) != NULL) {
            at++;
            continue;
        }
        size_t n = 0;
        char quote = '\0';
        while (at + n < script.len) {
            char c = script.ptr[at + n];
            if (quote != '\0') {
                quote = c == quote ? '\0' : quote;
            } else if (c == '"' || c == '\'') {
                quote = c;
            } else if (strchr(ENDS, c) != NULL || c == '|') {
                break;
            }
            n++;
        }
        struct at_str word = {script.ptr + at, n};
        if (n >= 2 && (word.ptr[0] == '"' || word.ptr[0] == '\'') &&
            word.ptr[n - 1] == word.ptr[0]) {
            word = (struct at_str){word.ptr + 1, n - 2};
        }
        word_add(words, word, field);
        at += n;
    }
}

static const char *base_name(struct at_str word, size_t *ret_len)
{
    size_t from = word.len;
    while (from > 0 && word.ptr[from - 1] != '/') {
        from--;
    }
    *ret_len = word.len - from;
    return word.ptr + from;
}

static bool is_program(struct at_str word, const char *list)
{
    size_t len;
    const char *name = base_name(word, &len);
    char framed[40];
    if (len == 0 || len > 32) {
        return false;
    }
    snprintf(framed, sizeof framed, " %.*s ", (int)len, name);
    return strstr(list, framed) != NULL;
}

#define SHELLS " sh bash dash ash zsh ksh busybox "

static void words_of(struct scan_look *look, struct scan_words *words, const json_t *list,
                     const char *base)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        if (!json_is_string(item)) {
            continue;
        }
        struct at_str text = {json_string_value(item), json_string_length(item)};
        const char *field = scan_path(look, "%s[%zu]", base, i);
        bool script =
            text.len <= AT_SCAN_TEXT_BYTES_MAX && words->n > 0 &&
            (memchr(text.ptr, ' ', text.len) != NULL || memchr(text.ptr, '\n', text.len) != NULL) &&
            is_program(words->items[0].text, SHELLS " env sudo timeout nice xargs ");
        struct scan_secret secret;
        if (script && memmem(text.ptr, text.len, "uthorization:", 13) != NULL &&
            scan_secret_shape(text, &secret)) { /* its words apart do not show it */
            scan_found_as(look, SCAN_SECRET_ARGS, secret.severity, field, "%s", secret.what);
        }
        if (script) {
            script_split(words, text, field);
        } else {
            word_add(words, text, field);
        }
    }
}

/* --- secrets --- */

/* "--name=value", "NAME=value", "--name:value" and "Header: value" as two; false: none of them. */
static bool assigned(struct at_str word, struct at_str *ret_name, struct at_str *ret_value)
{
    const char *sep = memchr(word.ptr, '=', word.len);
    const char *colon = memchr(word.ptr, ':', word.len);
    bool header = colon != NULL && colon + 1 < word.ptr + word.len && colon[1] == ' ';
    if (colon != NULL && (header ? sep == NULL || colon < sep : sep == NULL) &&
        (header || (word.len > 2 && memcmp(word.ptr, "--", 2) == 0))) {
        sep = colon;
    }
    if (sep == NULL || sep == word.ptr) {
        return false;
    }
    *ret_name = (struct at_str){word.ptr, (size_t)(sep - word.ptr)};
    *ret_value = (struct at_str){sep + 1, word.len - ret_name->len - 1};
    size_t len = ret_value->len;
    if (len >= 2 && (ret_value->ptr[0] == '"' || ret_value->ptr[0] == '\'') &&
        ret_value->ptr[len - 1] == ret_value->ptr[0]) {
        *ret_value = (struct at_str){ret_value->ptr + 1, len - 2};
    }
    return true;
}

static bool is_flag(struct at_str word)
{
    return word.len > 2 && word.ptr[0] == '-';
}

/* Programs that take a password by a flag whose name does not say so. */
static const struct password_flag {
    const char *programs, *flags;
    bool attached; /* -pPASSWORD, in one word */
    bool user;     /* the value is USER:PASSWORD */
} PASSWORD_FLAGS[] = {
    {" curl ", " -u --user -U --proxy-user ", false, true},
    {" skopeo podman buildah oras crane ", " --creds --src-creds --dest-creds ", false, true},
    {" mysql mysqldump mysqladmin mariadb mariadb-dump sshpass 7z ", " -p ", true, false},
    {" sshpass mongo mongosh mongodump ", " -p ", false, false},
    {" redis-cli ", " -a ", false, false},
};

static bool password_of(const struct password_flag *f, struct at_str value)
{
    if (f->user) {
        const char *colon = memchr(value.ptr, ':', value.len);
        size_t skip = colon != NULL ? (size_t)(colon - value.ptr) + 1 : value.len;
        value = (struct at_str){value.ptr + skip, value.len - skip};
    }
    return value.len > 0 && scan_secret_value(value);
}

/* Has word i, after one of these programs, a password in it, or before it a flag for one? */
static bool is_password(const struct scan_words *words, const bool *after, size_t i)
{
    struct at_str word = words->items[i].text;
    for (size_t k = 0; k < AT_ARRAY_LEN(PASSWORD_FLAGS); k++) {
        const struct password_flag *f = &PASSWORD_FLAGS[k];
        struct at_str before = i > 0 ? words->items[i - 1].text : (struct at_str){"", 0};
        char flag[20];
        snprintf(flag, sizeof flag, " %.*s ", (int)(before.len < 16 ? before.len : 16), before.ptr);
        if (!after[k]) {
            continue;
        }
        if (f->attached && at_str_starts(word, "-p") &&
            password_of(f, (struct at_str){word.ptr + 2, word.len - 2})) {
            return true;
        }
        if (!f->attached && before.len > 1 && strstr(f->flags, flag) != NULL && !is_flag(word) &&
            password_of(f, word)) {
            return true;
        }
    }
    return false;
}

static void passwords_check(struct scan_look *look, const struct scan_words *words)
{
    bool after[AT_ARRAY_LEN(PASSWORD_FLAGS)] = {false};
    for (size_t i = 0; i < words->n; i++) {
        for (size_t k = 0; k < AT_ARRAY_LEN(after); k++) {
            after[k] = after[k] || is_program(words->items[i].text, PASSWORD_FLAGS[k].programs);
        }
        if (is_password(words, after, i)) {
            scan_found(look, SCAN_SECRET_ARGS, words->items[i].field,
                       "a password for the program before it");
            return;
        }
    }
}

static void secrets_check(struct scan_look *look, const struct scan_words *words)
{
    const char *told = NULL; /* one finding for a field is enough */
    for (size_t i = 0; i < words->n; i++) {
        const struct scan_word *w = &words->items[i];
        struct scan_secret secret = {0};
        struct at_str name = {"", 0}, value = w->text;
        bool pair = assigned(w->text, &name, &value);
        bool found = scan_secret_shape(w->text, &secret) ||
                     (pair ? scan_secret(name, value, &secret)
                           : scan_secret((struct at_str){"", 0}, value, &secret));
        const char *field = w->field;
        if (!found && !pair && is_flag(w->text) && i + 1 < words->n &&
            memchr(w->text.ptr, '$', w->text.len) == NULL) {
            const struct scan_word *next = &words->items[i + 1];
            found =
                !is_flag(next->text) && scan_secret_name(w->text) && scan_secret_value(next->text);
            secret =
                (struct scan_secret){"a value whose flag says that it is a secret", AT_SCAN_HIGH};
            field = found ? next->field : field;
        }
        if (found && field != told) {
            scan_found_as(look, SCAN_SECRET_ARGS, secret.severity, field, "%s", secret.what);
            told = field;
        }
    }
}

/* --- listeners --- */

static bool is_any_address(struct at_str v)
{
    return at_str_eq(v, "0.0.0.0") || at_str_starts(v, "0.0.0.0:") || at_str_eq(v, "::") ||
           at_str_starts(v, "[::]") || at_str_eq(v, "*") || at_str_starts(v, "*:") ||
           at_str_starts(v, "tcp://0.0.0.0") || at_str_starts(v, "http://0.0.0.0") ||
           at_str_starts(v, "tcp://*") || at_str_starts(v, "http://*");
}

static bool is_listen_flag(struct at_str name)
{
    static const char *const NAMES[] = {"host",
                                        "bind",
                                        "listen",
                                        "address",
                                        "addr",
                                        "ip",
                                        "http-addr",
                                        "listen-address",
                                        "bind-address",
                                        "bind-addr",
                                        "http-host",
                                        "server-name",
                                        "listen-host",
                                        "bind_addr",
                                        "server_name",
                                        "listen-addr",
                                        "bind-all",
                                        "http_address",
                                        "http-address",
                                        "server.address",
                                        "h",
                                        "b",
                                        "H",
                                        "l"};
    while (name.len > 0 && name.ptr[0] == '-') {
        name = (struct at_str){name.ptr + 1, name.len - 1};
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(NAMES); i++) {
        if (at_str_eq(name, NAMES[i])) {
            return true;
        }
    }
    static const char *const ENDS[] = {"_HOST", "_BIND", "_ADDRESS", "_ADDR",
                                       "HOST",  "BIND",  "LISTEN"};
    for (size_t i = 0; i < AT_ARRAY_LEN(ENDS); i++) {
        size_t len = strlen(ENDS[i]);
        if (name.len >= len && memcmp(name.ptr + name.len - len, ENDS[i], len) == 0) {
            return true;
        }
    }
    return false;
}

/* ":8080", as programs in Go take it. */
static bool is_bare_port(struct at_str v)
{
    bool digits = v.len > 1 && v.len <= 6 && v.ptr[0] == ':';
    for (size_t i = 1; i < v.len && digits; i++) {
        digits = isdigit((unsigned char)v.ptr[i]) != 0;
    }
    return digits;
}

bool scan_is_open_address(struct at_str name, struct at_str value)
{
    return at_str_eq(value, "0.0.0.0") || at_str_starts(value, "0.0.0.0:") ||
           at_str_starts(value, "[::]") ||
           (is_listen_flag(name) && (is_any_address(value) || is_bare_port(value)));
}

static void listeners_check(struct scan_look *look, const struct scan_words *words)
{
    for (size_t i = 0; i < words->n; i++) {
        struct at_str name = {"", 0}, value = words->items[i].text;
        bool pair = assigned(words->items[i].text, &name, &value);
        bool named = pair ? is_listen_flag(name)
                          : i > 0 && is_flag(words->items[i - 1].text) &&
                                is_listen_flag(words->items[i - 1].text);
        bool open = pair ? is_any_address(value) && named : is_any_address(value);
        if (!pair && at_str_eq(value, "*")) {
            open = false; /* a file pattern, more likely */
        }
        if (!pair && open && i > 0 && words->items[i - 1].text.ptr[0] != '-' &&
            at_str_eq(value, "::")) {
            open = false;
        }
        open = open || (named && is_bare_port(value));
        if (open) {
            scan_found(look, SCAN_OPEN_LISTENER, words->items[i].field, "%.*s is every address",
                       (int)(value.len < 64 ? value.len : 64), value.ptr);
        }
    }
}

/* --- tricks --- */

static void privileges_check(struct scan_look *look, const struct scan_words *words)
{
    static const char ENGINES[] = " docker podman nerdctl ctr crictl runc ";
    bool engine = false;
    for (size_t i = 0; i < words->n; i++) {
        struct at_str w = words->items[i].text;
        const char *field = words->items[i].field;
        bool first = i == 0 || words->items[i - 1].field != field || i == 1;
        engine = engine || is_program(w, ENGINES);
        if (is_program(w, " nsenter chroot pivot_root insmod modprobe mount ") && first) {
            scan_found_as(look, SCAN_PRIVILEGED, AT_SCAN_HIGH, field,
                          "%.*s needs the rights of the machine", (int)(w.len < 64 ? w.len : 64),
                          w.ptr);
        } else if (is_program(w, " sudo su doas pkexec ")) {
            scan_found(look, SCAN_ROOT, field, "%.*s makes it root", (int)(w.len < 64 ? w.len : 64),
                       w.ptr);
        } else if (engine && (at_str_eq(w, "--privileged") || at_str_eq(w, "--privileged=true"))) {
            scan_found(look, SCAN_PRIVILEGED, field,
                       "a container engine is asked for --privileged");
        } else if (engine &&
                   (at_str_starts(w, "--net=host") || at_str_starts(w, "--network=host") ||
                    at_str_starts(w, "--pid=host") || at_str_starts(w, "--ipc=host"))) {
            scan_found(look, SCAN_HOST_NAMESPACES, field, "%.*s", (int)w.len, w.ptr);
        } else if (engine && at_str_starts(w, "--cap-add")) {
            scan_found(look, SCAN_CAPABILITIES, field,
                       "a container engine is asked for capabilities");
        }
    }
}

static bool under(struct at_str path, const char *folder)
{
    size_t len = strlen(folder);
    return at_str_starts(path, folder) && (path.len == len || path.ptr[len] == '/');
}

static void host_paths_check(struct scan_look *look, const struct scan_words *words)
{
    static const char *const FOLDERS[] = {
        "/etc/shadow",         "/etc/kubernetes", "/root",   "/boot",
        "/var/lib/kubelet",    "/var/lib/docker", "/proc/1", "/proc/sys",
        "/proc/sysrq-trigger", "/dev/mem",        "/host"};
    static const char *const SOCKETS[] = {"/var/run/docker.sock", "/run/docker.sock",
                                          "/containerd.sock", "/crio.sock", "/podman.sock"};
    for (size_t i = 0; i < words->n; i++) {
        struct at_str w = words->items[i].text, name, value;
        struct at_str path = assigned(w, &name, &value) ? value : w;
        for (size_t k = 0; k < AT_ARRAY_LEN(SOCKETS); k++) {
            if (memmem(path.ptr, path.len, SOCKETS[k], strlen(SOCKETS[k])) != NULL) {
                scan_found_as(look, SCAN_HOST_PATH, AT_SCAN_CRITICAL, words->items[i].field,
                              "the socket of a container engine is the machine itself");
                break;
            }
        }
        for (size_t k = 0; k < AT_ARRAY_LEN(FOLDERS); k++) {
            if (under(path, FOLDERS[k])) {
                scan_found(look, SCAN_HOST_PATH, words->items[i].field, "uses %s of the machine",
                           FOLDERS[k]);
                break;
            }
        }
    }
}

static void downloads_check(struct scan_look *look, const struct scan_words *words)
{
    bool fetches = false, piped = false;
    for (size_t i = 0; i < words->n; i++) {
        struct at_str w = words->items[i].text;
        if (fetches && piped && is_program(w, SHELLS " python python3 perl node ruby sudo ")) {
            scan_found(look, SCAN_DOWNLOAD_RUN, words->items[i].field,
                       "what is downloaded goes into %.*s", (int)(w.len < 32 ? w.len : 32), w.ptr);
            return;
        }
        piped = at_str_eq(w, "|");
        fetches = fetches || is_program(w, " curl wget fetch ");
    }
}

static void tls_check(struct scan_look *look, const struct scan_words *words)
{
    static const char *const FLAGS[] = {"--insecure",
                                        "--no-check-certificate",
                                        "--tls-skip-verify",
                                        "--insecure-skip-tls-verify",
                                        "--insecure-skip-verify",
                                        "--no-verify-ssl",
                                        "--skip-tls-verify",
                                        "--trusted-host",
                                        "--disable-ssl-verification",
                                        "--insecure-skip-tls-verify=true",
                                        "--tls-verify=false",
                                        "--verify=false"};
    bool curl = false;
    for (size_t i = 0; i < words->n; i++) {
        struct at_str w = words->items[i].text;
        curl = curl || is_program(w, " curl ");
        bool off = curl && at_str_eq(w, "-k");
        for (size_t k = 0; k < AT_ARRAY_LEN(FLAGS) && !off; k++) {
            off = at_str_eq(w, FLAGS[k]);
        }
        if (off) {
            scan_found(look, SCAN_TLS_OFF, words->items[i].field, "%.*s",
                       (int)(w.len < 64 ? w.len : 64), w.ptr);
        }
    }
}

void scan_command(struct scan_look *look, const json_t *command, const char *command_field,
                  const json_t *args, const char *args_field)
{
    struct scan_words *words = at_alloc(sizeof *words);
    words_of(look, words, command, command_field);
    words_of(look, words, args, args_field);
    secrets_check(look, words);
    passwords_check(look, words);
    listeners_check(look, words);
    privileges_check(look, words);
    host_paths_check(look, words);
    downloads_check(look, words);
    tls_check(look, words);
    at_free(words);
}
