/**
 * Whole messages with descriptors over SOCK_SEQPACKET sockets between processes of one host; inside
 * runtime/node only. The kernel keeps the borders of messages; descriptors travel beside them
 * (SCM_RIGHTS). Threads: any.
 */
#ifndef MORAY_NODE_WIRE_H
#define MORAY_NODE_WIRE_H

#include <stddef.h>
#include <stdint.h>

enum { WIRE_FDS_MAX = 6 };

/** Sends a message with `fd_count` descriptors; returns 0, or -1 with errno. `flags`: MSG_DONTWAIT
 *  or 0. Never raises SIGPIPE. */
int wire_send(int socket, const void *message, size_t message_bytes, const int *fds,
              uint32_t fd_count, int flags);

/** Receives one whole message. Returns 1; 0 at the end of the connection; -1 with errno. `fds` has
 *  room for WIRE_FDS_MAX and gets -1 where none came; the caller owns them. A message of another
 *  size is EBADMSG. */
int wire_receive(int socket, void *message, size_t message_bytes, int *fds, int flags);

/** CLOCK_MONOTONIC. */
uint64_t wire_now_ns(void);
uint64_t wire_now_ms(void);

#endif
