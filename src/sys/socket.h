/* Non-blocking, close-on-exec stream sockets. Addresses are text: "127.0.0.1:8443", "[::1]:80",
 * "localhost:0", "unix:/run/x.sock". */
#ifndef AT_SYS_SOCKET_H
#define AT_SYS_SOCKET_H

#include "core/err.h"

#include <sys/types.h>

#define AT_ADDR_TEXT_BYTES_MAX 128
/* What agents call the Unix socket of an instance, in a folder named after its uid; gateways on the
 * same machine look for it. */
#define AT_LOCAL_SOCKET_NAME "runner.sock"
/* A line of the answer that an agent gives for an instance that it cannot reach. */
#define AT_RELAY_HEADER "Atoll-Relay"

/* Listen; port 0 takes a free one. out_addr gets the address bound, as text. SO_REUSEPORT when
 * reuse_port. err: AT_CONFLICT the address is taken; AT_INVALID bad text; AT_FORBIDDEN. */
enum at_rc at_sock_listen(const char *addr, int backlog, bool reuse_port, int *ret_fd,
                          char out_addr[AT_ADDR_TEXT_BYTES_MAX], struct at_err *err) AT_WARN_UNUSED;
/* Begin to connect; the fd becomes writable when done, then at_sock_connect_result tells. Names are
 * resolved by getaddrinfo: blocking for anything but numeric addresses and "localhost". err:
 * AT_EXHAUSTED no descriptors or ports are left here. */
enum at_rc at_sock_connect(const char *addr, int *ret_fd, struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_sock_connect_result(int fd, struct at_err *err) AT_WARN_UNUSED;
/* err: AT_AGAIN none waiting. */
enum at_rc at_sock_accept(int listen_fd, int *ret_fd,
                          char out_peer[AT_ADDR_TEXT_BYTES_MAX]) AT_WARN_UNUSED;
/* err: AT_AGAIN would block; AT_EOF (read) the peer is done; AT_UNAVAILABLE reset or broken. *ret >
 * 0 on success. */
enum at_rc at_sock_read(int fd, void *buf, size_t len, size_t *ret) AT_WARN_UNUSED;
enum at_rc at_sock_write(int fd, const void *buf, size_t len, size_t *ret) AT_WARN_UNUSED;
struct iovec;
enum at_rc at_sock_writev(int fd, const struct iovec *iov, int n, size_t *ret) AT_WARN_UNUSED;
/* Bytes that the peer's machine has taken over TCP since the connection was made, also when it has
 * ended. false: not known, as of a Unix socket. */
bool at_sock_acked(int fd, uint64_t *ret);
long at_sock_unsent(int fd); /* bytes that the peer has not acknowledged; 0 when unknown */
void at_sock_shutdown_write(int fd);
void at_sock_close(int fd); /* accepts -1 */

#endif
