/* gRPC messages from clients and answers from replicas: whatever comes, what goes on is bounded and
 * well-formed. First byte: which of them. */
#include "gateway/grpc.h"
#include "gateway/pb.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void request(enum gw_grpc_kind kind, struct at_str body)
{
    struct gw_grpc_call call = {0};
    struct at_err err = {0};
    enum at_rc rc = gw_grpc_request(kind, body, &call, &err);
    if (rc == AT_OK) {
        assert(memcmp(call.target.data, "/v2/models/", 11) == 0);
        for (size_t i = 0; i < call.target.len; i++) {
            assert(call.target.data[i] > ' ' && call.target.data[i] < 0x7f);
        }
        assert(strstr(call.target.data, "/../") == NULL);
    } else {
        assert(err.msg[0] != '\0');
        char lines[4 * AT_ERR_MSG_BYTES_MAX];
        gw_grpc_status_lines(3, err.msg, lines, sizeof lines);
        const char *end = strstr(lines, "\r\ngrpc-message: ");
        assert(end != NULL);
        assert(strpbrk(end + 2, "\r\n") == lines + strlen(lines) - 2);
    }
    gw_grpc_call_done(&call);
}

static void answer(enum gw_grpc_kind kind, struct at_str body, size_t header_bytes)
{
    struct at_buf out = {0};
    struct at_err err = {0};
    if (gw_grpc_answer(kind, body, header_bytes, &out, &err) == AT_OK) {
        struct at_str rest = {out.data + 5, out.len - 5};
        struct gw_pb_field f;
        enum at_rc rc;
        while ((rc = gw_pb_next(&rest, &f)) == AT_OK) {
        }
        assert(rc == AT_EOF);
    } else {
        assert(out.len == 0);
    }
    at_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    enum gw_grpc_kind kind = GW_GRPC_MODEL_READY + data[0] % 3;
    struct at_str rest = {(const char *)data + 2, size - 2};
    if (data[0] < 128) {
        request(kind, rest);
    } else {
        answer(kind, rest, data[1]);
    }
    return 0;
}
