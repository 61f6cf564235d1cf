/* Messages on the channel of a slot. Pure C. */
#define _GNU_SOURCE
#include "common/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

typedef union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * CHANNEL_BATCH)];
} Control;

static int
send_message(int fd, const struct msghdr *m)
{
    for (;;) {
        if (sendmsg(fd, m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
            return 0;
        }
        if (errno == EINTR) {
            continue;
        }
        /* Too many descriptors are in flight: that ends as other processes
         * receive theirs. */
        if (errno == ETOOMANYREFS || errno == ENOBUFS || errno == ENOMEM) {
            errno = EAGAIN;
        }
        return -1;
    }
}

/* With the note behind the connections, unless it is NULL. */
static int
send_connections(int fd, const ChannelBatch *batch, const LostNote *note)
{
    const uint32_t count = batch->header.count;
    Control control;
    struct iovec parts[3] = {
        {(void *)&batch->header, sizeof batch->header},
        {(void *)batch->items, sizeof batch->items[0] * count},
        {(void *)note, note ? sizeof *note : 0},
    };
    struct msghdr m = {
        .msg_iov = parts,
        .msg_iovlen = 3,
        .msg_control = control.bytes,
        .msg_controllen = CMSG_SPACE(sizeof(int) * count),
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);

    /* The padding goes to another process: leave nothing of ours in it. */
    memset(&control, 0, CMSG_SPACE(sizeof(int) * count));
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(c), batch->fds, sizeof(int) * count);
    return send_message(fd, &m);
}

int
channel_send(int fd, const ChannelBatch *batch)
{
    return send_connections(fd, batch, NULL);
}

int
channel_send_lost(int fd, const ChannelMessage *message)
{
    return send_connections(fd, &message->batch, &message->note);
}

int
channel_say(int fd, ChannelKind kind, const char *text, size_t size)
{
    ChannelHeader header = {.kind = (uint16_t)kind};
    struct iovec parts[2] = {{&header, sizeof header}, {(void *)text, size}};
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};

    if (size > CHANNEL_TEXT) {
        parts[1].iov_len = size = CHANNEL_TEXT;
    }
    header.count = (uint32_t)size;
    return send_message(fd, &m);
}

/* All descriptors that came with `m`; at most CHANNEL_BATCH go to `fds`. */
static uint32_t
take_descriptors(struct msghdr *m, int *fds)
{
    uint32_t count = 0;
    struct cmsghdr *c;
    for (c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        size_t i, n;
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (i = 0; i < n; i++) {
            int one;
            memcpy(&one, CMSG_DATA(c) + i * sizeof one, sizeof one);
            if (count < CHANNEL_BATCH) {
                fds[count++] = one;
            } else {
                close(one);
            }
        }
    }
    return count;
}

int
channel_receive(int fd, ChannelMessage *message)
{
    Control control;
    char body[CHANNEL_TEXT];
    _Static_assert(sizeof body >= sizeof message->items, "either fits");
    struct iovec parts[2] = {
        {&message->header, sizeof message->header},
        {body, sizeof body},
    };
    struct msghdr m = {
        .msg_iov = parts,
        .msg_iovlen = 2,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    ChannelHeader *header = &message->header;
    ssize_t size;
    uint32_t count;

    do {
        size = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (size < 0 && errno == EINTR);
    if (size < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    }
    if (size == 0) {
        errno = EPIPE; /* nobody holds the other end any more */
        return -1;
    }

    count = take_descriptors(&m, message->fds);
    size -= (ssize_t)sizeof *header;
    if (size >= 0 && !(m.msg_flags & MSG_TRUNC)) {
        if (header->kind == CHANNEL_DISPATCH ||
            header->kind == CHANNEL_HAND_BACK) {
            if (header->count <= CHANNEL_BATCH &&
                (size_t)size == header->count * sizeof message->items[0] &&
                (m.msg_flags & MSG_CTRUNC ? count < header->count
                                          : count == header->count)) {
                memcpy(message->items, body, (size_t)size);
                message->lost = header->count - count;
                header->count = count;
                return 1;
            }
        } else if (header->kind == CHANNEL_LOST) {
            LostNote *note = &message->note;
            if (header->count == 1 && count == 1 &&
                (size_t)size == sizeof message->items[0] + sizeof *note) {
                memcpy(message->items, body, sizeof message->items[0]);
                memcpy(note, body + sizeof message->items[0], sizeof *note);
                note->method[sizeof note->method - 1] = '\0';
                note->path[sizeof note->path - 1] = '\0';
                note->request_id[sizeof note->request_id - 1] = '\0';
                message->lost = 0;
                return 1;
            }
        } else if (count == 0 && header->count == (size_t)size &&
                   size <= CHANNEL_TEXT) {
            memcpy(message->text, body, (size_t)size);
            message->text[size] = '\0';
            return 1;
        }
    }
    while (count > 0) {
        close(message->fds[--count]);
    }
    errno = EPROTO;
    return -1;
}
