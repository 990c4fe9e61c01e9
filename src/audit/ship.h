/* Records on their way to a sink: an HTTP collector, or syslog. They are read from the log's files,
 * so that nothing is lost while a sink is away; how far one has got is kept in audit.cursor.<id>.
 * At least once, in order, each with its number.
 *
 *     https://HOST[:PORT]/PATH        POST of a JSON array of records; 2xx takes them
 *     syslog+tls://HOST:PORT          RFC 5424 in RFC 5425's frames; taken once the peer's kernel
 *     syslog+tcp://HOST:PORT          has acknowledged the bytes (syslog itself says nothing)
 *     syslog+unix:///PATH             a stream socket
 *
 * Options behind #, joined by &: ca=FILE, cert=FILE, key=FILE (TLS), token-file=FILE (HTTP: a
 * bearer token). */
#ifndef AT_AUDIT_SHIP_H
#define AT_AUDIT_SHIP_H

#include "audit/audit.h"

struct at_audit_ship;
/* err: AT_INVALID the URL or an option, by name | those of files and TLS. own: at_audit_ship_free.
 */
enum at_rc at_audit_ship_new(struct at_audit *audit, const char *url, struct at_audit_ship **ret,
                             struct at_err *err) AT_WARN_UNUSED;
/* Gauges and counters with the label sink. */
void at_audit_ship_metrics(struct at_audit_ship *ship, struct at_metrics *metrics,
                           const char *sink);
void at_audit_ship_behind(struct at_audit_ship *ship, uint64_t last_seq); /* its metric */
void at_audit_ship_free(struct at_audit_ship *ship); /* keeps the cursor; accepts NULL */

#endif
