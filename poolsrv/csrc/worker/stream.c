/* A connection over a plain socket. Pure C. */
#define _GNU_SOURCE
#include "worker/stream.h"

#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "worker/conn.h"

/* A client that is there answers each probe with one small segment. The kernel
 * of one that is not forgets the connection a minute after it was closed
 * (net.ipv4.tcp_fin_timeout), and resets it at the next. */
#define PROBE_SECONDS 5
#define PROBES 12

/* What a kernel sends before it has heard anything: ten segments of Ethernet
 * (RFC 6928 section 2). */
#define FIRST_FLIGHT_BYTES 14600

static bool
is_again(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

ssize_t
stream_receive(Conn *c, void *to, size_t room)
{
    ssize_t n;
    do {
        n = recv(c->fd, to, room, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        /* Less than there was room for has emptied the socket, but the client's
         * end may lie behind it, and it comes with no further event. */
        c->drained = (size_t)n < room && !(atomic_load(&c->word) & CONN_ENDS);
        return n;
    }
    if (n == 0) {
        return 0;
    }
    c->drained = true;
    return is_again() ? STREAM_AGAIN : STREAM_LOST;
}

ssize_t
stream_peek(Conn *c, void *to, size_t room)
{
    ssize_t n;
    do {
        n = recv(c->fd, to, room, MSG_DONTWAIT | MSG_PEEK);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : is_again() ? STREAM_AGAIN : STREAM_LOST;
}

bool
stream_has_bytes(Conn *c)
{
    char byte;
    return stream_peek(c, &byte, 1) > 0;
}

ssize_t
stream_send(Conn *c, const struct iovec *parts, size_t count,
            StreamFollow follow)
{
    const struct msghdr m = {.msg_iov = (struct iovec *)parts,
                             .msg_iovlen = count};
    const int flags =
        MSG_DONTWAIT | MSG_NOSIGNAL | (follow == STREAM_MORE ? MSG_MORE : 0);
    ssize_t n;
    conn_progress(c, PROGRESS_ANSWERED);
    do { /* one part: the kernel's shorter way */
        n = count == 1 ? send(c->fd, parts->iov_base, parts->iov_len, flags)
                       : sendmsg(c->fd, &m, flags);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : is_again() ? STREAM_AGAIN : STREAM_LOST;
}

ssize_t
stream_send_file(Conn *c, int fd, off_t *offset, size_t size)
{
    ssize_t n;
    conn_progress(c, PROGRESS_ANSWERED);
    do {
        n = sendfile(c->fd, fd, offset, size);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : is_again() ? STREAM_AGAIN : STREAM_LOST;
}

/* TCP keeps what is not acknowledged; a Unix socket what is not read, and
 * counts with it what each message costs. */
uint64_t
stream_untaken(const Conn *c)
{
    int kept;
    return ioctl(c->fd, SIOCOUTQ, &kept) < 0 ? 0 : (uint64_t)kept;
}

bool
stream_is_nearly_sent(const Conn *c)
{
    return stream_untaken(c) <= FIRST_FLIGHT_BYTES;
}

static int
wait_for(const Conn *c, short events, int milliseconds)
{
    struct pollfd p = {.fd = c->fd, .events = events};
    int n;
    do {
        n = poll(&p, 1, milliseconds);
    } while (n < 0 && errno == EINTR);
    return n;
}

int
stream_wait_readable(const Conn *c, int milliseconds)
{
    return wait_for(c, POLLIN, milliseconds);
}

int
stream_wait_writable(const Conn *c, int milliseconds)
{
    return wait_for(c, POLLOUT, milliseconds);
}

int
stream_end(Conn *c)
{
    return shutdown(c->fd, SHUT_WR);
}

void
stream_deafen(Conn *c)
{
    c->deaf = true;
    shutdown(c->fd, SHUT_RD);
}

/* Not on a Unix socket, whose peer cannot vanish: there these calls fail. */
void
stream_watch_peer(const Conn *c, uint64_t timeout)
{
    /* Routers forget a connection after some minutes of silence. */
    const int on = 1, idle = 60, interval = 15, count = 4;
    const uint64_t milliseconds = timeout / CLOCK_MILLISECOND;
    const unsigned most =
        milliseconds < INT_MAX ? (unsigned)milliseconds : INT_MAX;
    setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(c->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &most, sizeof most);
}

/* TCP goes on receiving when its reader has shut: only its state tells. */
bool
stream_has_ended(const Conn *c)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    return !c->deaf ||
           getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0 ||
           (info.tcpi_state != TCP_ESTABLISHED &&
            info.tcpi_state != TCP_FIN_WAIT1 &&
            info.tcpi_state != TCP_FIN_WAIT2);
}

/* A client that has ended its side may still read, or be gone for good: to the
 * kernel that is the same until a segment of ours finds nobody. */
static void
probe(Conn *c)
{
    const int on = 1, seconds = PROBE_SECONDS, times = PROBES;
    setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
    setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
    setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof times);
    setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    c->probed = true;
}

bool
stream_is_reset(Conn *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};
    if (poll(&p, 1, 0) <= 0) {
        return false;
    }
    if ((p.revents & POLLRDHUP) && !c->probed) {
        probe(c);
    }
    return p.revents & (POLLERR | POLLHUP);
}

void
stream_shut(Conn *c)
{
    shutdown(c->fd, SHUT_RDWR);
}

/* A connection that just ends would make an answer without a length look
 * complete. A reset also frees what the kernel keeps for a client that does not
 * read: megabytes, for as long as it likes. Disconnecting resets at once, also
 * if a child of the application holds the socket; where the kernel knows no
 * such thing, closing does it. */
void
stream_reset(Conn *c)
{
    const struct sockaddr none = {.sa_family = AF_UNSPEC};
    const struct linger at_once = {.l_onoff = 1};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    if (connect(c->fd, &none, sizeof none) < 0) {
        shutdown(c->fd, SHUT_RDWR);
    }
}
