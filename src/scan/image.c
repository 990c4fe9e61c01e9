/* Where bytes come from: images and models. */
#include "core/mem.h"
#include "scan/scan_priv.h"

/* Is what follows an '@' a whole digest? */
static bool has_digest(struct at_str image)
{
    static const char MARK[] = "@sha256:";
    const char *at = memmem(image.ptr, image.len, MARK, sizeof MARK - 1);
    size_t left = at != NULL ? image.len - (size_t)(at - image.ptr) - (sizeof MARK - 1) : 0;
    return left == 64;
}

static struct at_str tag_of(struct at_str image)
{
    size_t slash = 0;
    for (size_t i = 0; i < image.len; i++) {
        slash = image.ptr[i] == '/' ? i + 1 : slash;
    }
    struct at_str name = {image.ptr + slash, image.len - slash};
    const char *colon = memchr(name.ptr, ':', name.len);
    if (colon == NULL) {
        return (struct at_str){"", 0};
    }
    return (struct at_str){colon + 1, name.len - (size_t)(colon - name.ptr) - 1};
}

void scan_image(struct scan_look *look, const char *image, const char *field)
{
    struct at_str text = at_str_of(image);
    bool local = at_str_starts(text, "oci:");
    if (text.len == 0 || has_digest(text)) {
        return;
    }
    struct at_str tag = tag_of(local ? (struct at_str){text.ptr + 4, text.len - 4} : text);
    if (!local && (tag.len == 0 || at_str_eq(tag, "latest"))) {
        scan_found(look, SCAN_IMAGE_LATEST, field, "%.200s: %s", image,
                   tag.len == 0 ? "no tag means latest" : "latest");
    }
    scan_found_as(look, SCAN_IMAGE_DIGEST, local ? AT_SCAN_LOW : AT_SCAN_MEDIUM, field,
                  "%.200s has no @sha256: digest", image);
}

static bool ends(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

void scan_model(struct scan_look *look, const json_t *model, const char *base)
{
    static const char *const PICKLES[] = {".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt"};
    if (!json_is_object(model)) {
        return;
    }
    const char *uri = scan_text(model, "uri");
    const char *field = scan_path(look, "%s.uri", base);
    bool remote = at_str_starts(at_str_of(uri), "http");
    struct scan_secret secret;
    if (scan_text(model, "digest")[0] == '\0') {
        scan_found_as(look, SCAN_MODEL_DIGEST, remote ? AT_SCAN_HIGH : AT_SCAN_MEDIUM, field,
                      "the model has no digest");
    }
    if (at_str_starts(at_str_of(uri), "http://")) {
        scan_found(look, SCAN_MODEL_PLAIN, field, "http is neither secret nor certain");
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(PICKLES); i++) {
        if (ends(uri, PICKLES[i])) {
            scan_found(look, SCAN_MODEL_PICKLE, field, "%s files are pickles, which hold code",
                       PICKLES[i]);
        }
    }
    if (scan_secret_shape(at_str_of(uri), &secret)) {
        scan_found_as(look, SCAN_SECRET_ARGS, secret.severity, field, "%s", secret.what);
    }
    if (at_str_starts(at_str_of(uri), "file:///")) {
        scan_found_as(look, SCAN_HOST_PATH, AT_SCAN_LOW, field,
                      "the model is a file of one machine, by its path there");
    }
}
