/* Tokens of service accounts: whatever is sent opens or is refused; nothing forged opens. */
#include "security/security.h"

#include "core/mem.h"
#include "core/str.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct at_service_key *key_make(char **ret_head)
{
    char dir[] = "/tmp/atoll-fuzz-XXXXXX";
    struct at_ca *ca = NULL;
    struct at_service_key *key = NULL;
    json_t *claims = json_object();
    if (mkdtemp(dir) == NULL || at_ca_open(dir, at_sys_real(), &ca, NULL) != AT_OK ||
        at_service_key_new(ca, &key, NULL) != AT_OK ||
        at_service_token_sign(key, claims, ret_head, NULL) != AT_OK) {
        abort();
    }
    strchr(*ret_head, '.')[1] = '\0';
    at_ca_free(ca);
    json_decref(claims);
    char path[64];
    static const char *const FILES[] = {"ca.crt", "ca.key"};
    for (size_t i = 0; i < AT_ARRAY_LEN(FILES); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, FILES[i]);
        unlink(path);
    }
    rmdir(dir);
    return key;
}

/* Behind the right head, so that what follows it is looked at. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct at_service_key *key;
    static char *head;
    if (key == NULL) {
        key = key_make(&head);
    }
    char *token = at_asprintf("%s%.*s", head, (int)size, (const char *)data);
    json_t *claims = NULL;
    if (at_service_token_open(key, at_str_of(token), INT64_MAX / 4, &claims, NULL) == AT_OK) {
        abort(); /* nobody signed it */
    }
    at_free(token);
    return 0;
}
