/* The bytes of a connection: the only file that receives from a client, sends
 * to it, or ends its connection.
 *
 * All of it is for the owner of the connection alone: a stream may keep a
 * state of its own in this process (bytes of a record that is not complete,
 * keys that count records). One exception: pieces.c sends from the main thread
 * while it holds the lock without which the owner sends nothing.
 */
#ifndef POOLSRV_STREAM_H
#define POOLSRV_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "worker/worker.h"

/* Instead of a number of bytes. */
#define STREAM_AGAIN (-1) /* nothing now: an event will tell */
#define STREAM_LOST (-2)  /* the connection is broken */

/* What follows the bytes that are sent? */
typedef enum {
    STREAM_PUSH, /* perhaps nothing: they must go now */
    STREAM_MORE, /* a file, or the end of the connection, and at once: it
                  * travels with them, and the client wakes once for both */
} StreamFollow;

/* Receive up to `room` bytes, which are not 0. How many; 0: the client has
 * ended its side; or STREAM_AGAIN, STREAM_LOST. Sets c->drained. */
ssize_t stream_receive(Conn *c, void *to, size_t room);
/* The same, but the bytes stay where they are. */
ssize_t stream_peek(Conn *c, void *to, size_t room);
/* Is there a byte that nobody has received? */
bool stream_has_bytes(Conn *c);
/* Send these bytes: how many were taken, or STREAM_AGAIN, STREAM_LOST. */
ssize_t stream_send(Conn *c, const struct iovec *parts, size_t count,
                    StreamFollow follow);
/* Send from a file, and advance *offset; 0: the file ends before. */
ssize_t stream_send_file(Conn *c, int fd, off_t *offset, size_t size);
/* How many of the bytes sent the client has not taken; 0 if nobody can tell. */
uint64_t stream_untaken(const Conn *c);
/* Is no more of them on the way than the kernel sends without an answer from
 * the client's? */
bool stream_is_nearly_sent(const Conn *c);
/* Wait for up to so many milliseconds: 1, or 0 if nothing came, or -1 and
 * errno. */
int stream_wait_readable(const Conn *c, int milliseconds);
int stream_wait_writable(const Conn *c, int milliseconds);
/* End our side: behind what was sent, the client finds the end. -1: it is gone.
 */
int stream_end(Conn *c);
/* Whoever waits for bytes, on any thread, finds the client's end. Afterwards
 * that end says nothing of the client. */
void stream_deafen(Conn *c);
/* Nobody sends or receives here for a long time: the kernel asks now and then
 * whether the peer is there, and gives up one that takes nothing of what is
 * sent for `timeout` nanoseconds. Whoever reads or writes then finds the end.
 */
void stream_watch_peer(const Conn *c, uint64_t timeout);
/* Has the client ended its side? To be asked where stream_receive gave 0. */
bool stream_has_ended(const Conn *c);
/* Is the connection broken, as far as can be seen without sending? From the
 * first time on, the kernel finds out whether a client that has ended its side
 * still reads. */
bool stream_is_reset(Conn *c);
/* No more in either direction, for all processes that share the connection. */
void stream_shut(Conn *c);
/* The same, but the client learns that something is missing. */
void stream_reset(Conn *c);

#endif
