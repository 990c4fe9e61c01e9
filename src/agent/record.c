#include "agent/agent_priv.h"
#include "agent/gpu.h"

#include "core/log.h"
#include "sys/file.h"

#define RECORD_BYTES_MAX ((size_t)1 << 20)

enum at_rc agent_record_write(const struct agent_instance *i, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *r = json_object();
    json_object_set_new(r, "uid", json_string(i->uid));
    json_object_set_new(r, "namespace", json_string(i->ns));
    json_object_set_new(r, "name", json_string(i->name));
    json_object_set_new(r, "driver", json_string(i->driver->ops->name));
    json_object_set_new(r, "port", json_integer(i->port));
    json_object_set_new(r, "restarts", json_integer(i->restarts));
    json_object_set_new(r, "startedWallNs", json_integer(i->started_wall_ns));
    agent_model_record(i, r);
    agent_parking_record(i, r);
    if (i->endpoint != NULL) {
        json_object_set_new(r, "endpoint", json_string(i->endpoint));
    }
    if (i->local_endpoint != NULL) {
        json_object_set_new(r, "localEndpoint", json_string(i->local_endpoint));
    }
    if (i->isolation != NULL) {
        json_object_set_new(r, "isolation", json_string(i->isolation));
    }
    if (i->task != NULL) {
        json_object_set_new(r, "task", i->driver->ops->describe(i->task));
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_json_dump_pretty(r, &text);
    if (rc != AT_OK) {
        return at_err_set(err, rc, "record of %s", i->name);
    }
    return at_file_write_atomic(i->record_path, text.data, text.len, 0600, err);
}

void agent_record_remove(const struct agent_instance *i)
{
    struct at_err err = {0};
    if (at_tree_remove(i->record_path, &err) != AT_OK) {
        at_log(AT_LOG_WARN, "record.remove", "%s", err.msg);
    }
}

json_t *agent_record_read(const char *path)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    struct at_err err = {0};
    json_t *record = NULL;
    enum at_rc rc = at_file_read(path, RECORD_BYTES_MAX, &text, &err);
    if (rc == AT_OK) {
        rc = at_json_parse(text.data, text.len, &record, &err);
    }
    if (rc != AT_OK) {
        at_log(AT_LOG_ERROR, "record.unreadable", "%s: %s", path, err.msg);
        return NULL;
    }
    return record;
}
