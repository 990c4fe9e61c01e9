#include "gateway/path.h"

#include "core/mem.h"
#include "net/http1.h"

static const struct {
    const char *path;
    enum gw_path_kind kind;
    bool infer;
} FIXED[] = {
    {"/v2", GW_PATH_SERVER, false},
    {"/v2/", GW_PATH_SERVER, false},
    {"/v2/health/live", GW_PATH_LIVE, false},
    {"/v2/health/ready", GW_PATH_READY, false},
    {"/healthz", GW_PATH_HEALTHZ, false},
    {"/metrics", GW_PATH_METRICS, false},
    {"/v1/models", GW_PATH_MODEL_LIST, false},
    {"/v2/repository/index", GW_PATH_INDEX, false},
    {"/playground", GW_PATH_PLAYGROUND, false},
    {"/v1/chat/completions", GW_PATH_OPENAI, false},
    {"/v1/completions", GW_PATH_OPENAI, false},
    {"/v1/embeddings", GW_PATH_OPENAI, true},
};

static bool is_clean_segment(struct at_str s)
{
    if (s.len == 0) {
        return false;
    }
    if (s.ptr[0] != '.' && s.ptr[0] != '%') {
        return true;
    }
    char decoded[8];
    if (s.len > 6 || at_percent_decode(s, false, decoded, sizeof decoded) != AT_OK) {
        return true; /* too long for any spelling of the two */
    }
    return strcmp(decoded, ".") != 0 && strcmp(decoded, "..") != 0;
}

static bool take_model(struct at_str name, struct gw_path *ret)
{
    if (memchr(name.ptr, '%', name.len) == NULL) {
        if (name.len >= sizeof ret->model || memchr(name.ptr, '\0', name.len) != NULL) {
            return false;
        }
        memcpy(ret->model, name.ptr, name.len);
        ret->model[name.len] = '\0';
        ret->model_len = name.len;
        return true;
    }
    if (at_percent_decode(name, false, ret->model, sizeof ret->model) != AT_OK) {
        return false;
    }
    ret->model_len = strlen(ret->model);
    return true;
}

static bool take_model_path(struct at_str rest, struct gw_path *ret)
{
    if (rest.len == 0 || rest.ptr[rest.len - 1] == '/') {
        return false;
    }
    struct at_str name = at_str_cut(&rest, '/');
    if (!is_clean_segment(name) || !take_model(name, ret)) {
        return false;
    }
    struct at_str last = {"", 0};
    size_t depth = 0;
    bool versioned = false;
    ret->raw_model = name;
    for (; rest.len > 0; depth++) {
        last = at_str_cut(&rest, '/');
        versioned = depth == 0 ? at_str_eq(last, "versions") : versioned;
        ret->version = depth == 1 && versioned ? last : ret->version;
        if (!is_clean_segment(last)) {
            return false;
        }
    }
    ret->infer = (depth == 1 || depth == 3) && at_str_eq(last, "infer");
    return true;
}

/* The rest of the path is the name: clients that do not encode its slashes mean the same. */
static bool take_card(struct at_str name, struct gw_path *ret)
{
    if (name.len == 0 || name.ptr[name.len - 1] == '/') {
        return false;
    }
    for (struct at_str rest = name; rest.len > 0;) {
        if (!is_clean_segment(at_str_cut(&rest, '/'))) {
            return false;
        }
    }
    return take_model(name, ret);
}

void gw_path_parse(struct at_str path, struct gw_path *ret)
{
    static const char MODELS[] = "/v2/models/", CARDS[] = "/v1/models/", PAGES[] = "/playground/";
    ret->kind = GW_PATH_NONE;
    ret->infer = false;
    ret->stream = false;
    ret->rule = NULL;
    ret->found = NULL;
    ret->model_len = 0;
    ret->model[0] = '\0';
    ret->raw_model = ret->version = (struct at_str){NULL, 0};
    ret->user = ret->session = ret->prompt = ret->tools = (struct at_str){NULL, 0};
    ret->more = (struct gw_scan_more){0};
    if (at_str_starts(path, MODELS)) {
        struct at_str rest = {path.ptr + sizeof MODELS - 1, path.len - (sizeof MODELS - 1)};
        if (take_model_path(rest, ret)) {
            ret->kind = GW_PATH_MODEL;
            return;
        }
        ret->model_len = 0;
        ret->model[0] = '\0';
        return;
    }
    if (at_str_starts(path, CARDS)) {
        struct at_str name = {path.ptr + sizeof CARDS - 1, path.len - (sizeof CARDS - 1)};
        if (take_card(name, ret)) {
            ret->kind = GW_PATH_MODEL_CARD;
            return;
        }
        ret->model_len = 0;
        ret->model[0] = '\0';
        return;
    }
    if (at_str_starts(path, PAGES)) {
        ret->kind = GW_PATH_PLAYGROUND;
        return;
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(FIXED); i++) {
        if (at_str_eq(path, FIXED[i].path)) {
            ret->kind = FIXED[i].kind;
            ret->infer = FIXED[i].infer;
            return;
        }
    }
}
