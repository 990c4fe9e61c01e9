/* URLs: scheme, host, port, path. */
#ifndef AT_NET_URL_H
#define AT_NET_URL_H

#include "core/str.h"

struct at_url {
    char scheme[16];
    char host[256];    /* without brackets for IPv6 */
    int port;          /* default filled in for http and https; 0 otherwise */
    char addr[272];    /* "host:port" as socket.h takes it; "unix:/path" for unix URLs */
    char target[2048]; /* path and query, at least "/" */
};
/* http://, https://, unix://, file:// URLs. err: AT_INVALID names what is wrong. */
enum at_rc at_url_parse(const char *text, struct at_url *ret, struct at_err *err) AT_WARN_UNUSED;

#endif
