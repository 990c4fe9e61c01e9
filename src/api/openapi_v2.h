/* OpenAPI v2. */
#ifndef AT_API_OPENAPI_V2_H
#define AT_API_OPENAPI_V2_H

#include "api/api_priv.h"

/* The document, made at the first call, kept in api. */
const struct api_doc *api_openapi_v2(struct at_api *api, bool protobuf);
/* openapi_pb.c: a document of OpenAPI v2 as the message openapi.v2.Document. err: AT_TOO_LARGE. */
enum at_rc api_openapi_pb(const json_t *document, struct at_buf *out) AT_WARN_UNUSED;

#endif
