/* The Open Inference Protocol over gRPC, translated to its REST form with binary tensors: one kind
 * of replica serves both. Pure: bytes in, bytes out; proxy.c does the rest.
 * Source: open-inference-protocol, specification/protocol/open_inference_grpc.proto; gRPC over
 * HTTP/2 (framing, status codes); Triton's binary tensor data extension. */
#ifndef AT_GATEWAY_GRPC_H
#define AT_GATEWAY_GRPC_H

#include "core/buf.h"
#include "core/str.h"
#include "gateway/limits.h"
#include "net/http1.h"

enum gw_grpc_kind {
    GW_GRPC_NONE, /* no gRPC request */
    GW_GRPC_UNKNOWN,
    GW_GRPC_SERVER_LIVE,
    GW_GRPC_SERVER_READY,
    GW_GRPC_SERVER_METADATA,
    GW_GRPC_MODEL_READY,
    GW_GRPC_MODEL_METADATA,
    GW_GRPC_MODEL_INFER,
};

/* By method, content type and path. */
enum gw_grpc_kind gw_grpc_kind_of(const struct at_http_head *head);

/* What a request of the last three kinds becomes. Zero-initialise; gw_grpc_call_done. */
struct gw_grpc_call {
    char model[AT_GW_MODEL_BYTES_MAX], version[64];
    struct at_buf target; /* "/v2/models/m/infer" */
    struct at_buf lines;  /* fields of the body: "Content-Type: ...\r\n" */
    struct at_buf body;
};
void gw_grpc_call_done(struct gw_grpc_call *call); /* keeps nothing; the call may be used again */

/* body: one length-prefixed message. err: AT_BAD_REQUEST malformed, AT_INVALID a field, with its
 * name; AT_TOO_LARGE; AT_UNSUPPORTED compressed. */
enum at_rc gw_grpc_request(enum gw_grpc_kind kind, struct at_str body, struct gw_grpc_call *call,
                           struct at_err *err) AT_WARN_UNUSED;

/* The replica's answer (status 200) as one length-prefixed message, appended to out. header_bytes:
 * length of the JSON before binary tensors; 0: all of body is JSON. err: AT_UPSTREAM it is no
 * answer of the protocol; AT_TOO_LARGE. */
enum at_rc gw_grpc_answer(enum gw_grpc_kind kind, struct at_str body, size_t header_bytes,
                          struct at_buf *out, struct at_err *err) AT_WARN_UNUSED;
/* Answers that the gateway gives itself: ServerLive, ServerReady, ServerMetadata, ModelReady. */
enum at_rc gw_grpc_own(enum gw_grpc_kind kind, bool yes, struct at_buf *out) AT_WARN_UNUSED;

int gw_grpc_status_of(int http_status);
/* "grpc-status: 5\r\ngrpc-message: ...\r\n", the message percent-encoded. */
void gw_grpc_status_lines(int status, const char *message, char *out, size_t size);
/* grpc-timeout as ns; 0: none, or not readable. */
int64_t gw_grpc_timeout_ns(const struct at_http_head *head);

#endif
