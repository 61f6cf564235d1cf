/* Messages on the channel of a slot: a SOCK_SEQPACKET pair between the
 * supervisor and the worker in the slot, that carries connections both ways.
 *
 * Pure C. Neither side ever blocks on it. A descriptor that was sent belongs
 * to the kernel until it is received: the supervisor keeps both ends, so what
 * a dead worker had not received can be received by the supervisor itself.
 */
#ifndef POOLSRV_CHANNEL_H
#define POOLSRV_CHANNEL_H

#include <stdint.h>
#include <sys/socket.h>

#include "common/address.h"
#include "common/tls_note.h"

/* Of what supervisors of two releases say to each other: raise the number when
 * the meaning of ChannelHeader or ChannelItem changes; their sizes count
 * themselves. */
#define CHANNEL_VERSION \
    (2000000 + sizeof(ChannelHeader) * 1000 + sizeof(ChannelItem))

/* Connections per message. The kernel allows 253; 64 fill 2.5 KiB. */
#define CHANNEL_BATCH 64

/* Bytes of text in a worker's news: room for the traceback of an application.
 */
#define CHANNEL_TEXT 16000

typedef enum {
    CHANNEL_DISPATCH = 1, /* supervisor: serve these */
    CHANNEL_HAND_BACK,    /* worker: these are yours again */
    CHANNEL_READY,        /* worker: the application is loaded */
    CHANNEL_FAILED,       /* worker: it could not be loaded; text says why */
    CHANNEL_REPLACE,      /* worker: start another in my place, then drain me */
    CHANNEL_HUNG,         /* worker: the interpreter does not come free */
    CHANNEL_LOST,         /* a worker's keeper: it had begun this request, and
                           * answered nothing */
} ChannelKind;

/* What the PROXY header of a connection has said of its client. */
typedef enum {
    PREFACE_NONE,    /* it has not been read, or there is none */
    PREFACE_NAMED,   /* who it is */
    PREFACE_UNNAMED, /* no client: only the peer is known */
} ChannelPreface;

/* The highest number of a group. */
#define CHANNEL_GROUPS 8190

/* A connection on its way. */
typedef struct {
    uint64_t since;    /* readable (request_waits) or idle since then */
    uint32_t requests; /* answered on it so far */
    uint16_t listener; /* which listener accepted it */
    uint16_t request_waits : 1; /* unread bytes of a request are there */
    uint16_t preface : 2;       /* a ChannelPreface */
    uint16_t group : 13; /* a worker has looked at the request that waits, and
                          * says: it is for the group with this number, plus 1;
                          * 0: nobody has looked */
    Address client; /* the peer, or the client that the PROXY header names */
    uint16_t port;  /* the port that it asked, by the header; 0: not known */
    TlsNote tls;    /* what that header says of its TLS */
} ChannelItem;

typedef struct {
    uint16_t kind;
    uint16_t reserved;
    uint32_t count; /* of items, or bytes of text */
} ChannelHeader;

/* What is known of a request that was lost; texts are NUL-terminated, and empty
 * if no thread had it. */
typedef struct {
    uint64_t since; /* when a thread took it; 0: not known */
    char method[16], path[160], request_id[40];
} LostNote;

#define CHANNEL_BATCH_MEMBERS         \
    ChannelHeader header;             \
    ChannelItem items[CHANNEL_BATCH]; \
    int fds[CHANNEL_BATCH];

/* Connections, which is all that most messages are. */
typedef struct {
    CHANNEL_BATCH_MEMBERS
} ChannelBatch;

/* Whatever may come. */
typedef struct {
    union {
        ChannelBatch batch;
        struct {
            CHANNEL_BATCH_MEMBERS
        };
    };
    uint32_t lost; /* connections that came too, but found no descriptor */
    LostNote note; /* of CHANNEL_LOST */
    char text[CHANNEL_TEXT + 1]; /* of news, NUL-terminated */
} ChannelMessage;

#undef CHANNEL_BATCH_MEMBERS

/* Send batch->header.count connections; the descriptors stay the caller's,
 * to close. 0, or -1 and errno: EAGAIN if the channel is full or too many
 * descriptors are in flight (back-pressure: try later), else it is broken. */
int channel_send(int fd, const ChannelBatch *batch);

/* Likewise, of one connection, and the note. */
int channel_send_lost(int fd, const ChannelMessage *message);

/* Send news, which carry no connections. */
int channel_say(int fd, ChannelKind kind, const char *text, size_t size);

/* Receive one message; its descriptors are the caller's, CLOEXEC. A process
 * that has no descriptors left gets the first of them, and the others are lost.
 * 1, 0 if nothing is there, or -1 and errno (EPROTO: cut short or malformed;
 * its descriptors have been closed). */
int channel_receive(int fd, ChannelMessage *message);

#endif
