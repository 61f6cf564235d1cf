/* What the files of the supervisor's loop share, and nobody else: accept.c,
 * parked.c, guess.c, busy.c, lost.c, queue.c, slots.c, heir.c, joined.c,
 * dispatch.c. A connection comes in through accept.c or slots.c, waits in
 * parked.c until it can be read, then in queue.c until a thread is free, and
 * leaves through slots.c. Between parked.c and queue.c it may change its group.
 */
#ifndef POOLSRV_DISPATCH_INTERNAL_H
#define POOLSRV_DISPATCH_INTERNAL_H

#include "common/buffer.h"
#include "common/choice.h"
#include "common/clock.h"
#include "common/log_file.h"
#include "common/path_times.h"
#include "common/refusals.h"
#include "supervisor/dispatch.h"
#include "supervisor/held.h"

/* The word that epoll keeps for a descriptor: what it is, and which. The
 * stamp tells a connection from an earlier one in the same place, whose event
 * may still be in the batch. */
typedef enum {
    TAG_LISTENER,
    TAG_CHANNEL,
    TAG_HELD,
    TAG_FOREIGN,
    TAG_BELL,
    TAG_FOREBEAR,
    TAG_GROUP, /* the epoll set of another that is joined */
} Tag;

static inline uint64_t
dispatch_tag(Tag tag, uint32_t stamp, uint32_t index)
{
    return (uint64_t)tag << 56 | (uint64_t)(stamp & 0xffffff) << 32 | index;
}

typedef struct {
    int ours, theirs;
    bool enabled;
    bool full;         /* the last send failed; EPOLLOUT clears it */
    uint64_t retry_at; /* try no earlier than this; 0: at once */
    ChannelBatch *out; /* that grows in this round */
} Slot;

/* What one group of workers has: its slots and the connections that wait for
 * it, or waited for it last. Groups that one process serves are joined. They
 * share no list and no limit, so that none of them can be in the way of
 * another, but one wait and the descriptors of the process. */
struct Dispatch {
    Scoreboard *board;
    DispatchLimits limits;
    NoticeLine *notice;
    Dispatch *first;   /* of those that are joined; itself if it is alone */
    Dispatch *next;    /* joined */
    Dispatch **groups; /* of the first, [group_count]: by number; NULL: none */
    uint32_t group_count;
    Dispatch *astir; /* of the first: those that hold anything, or were told
                      * anything, and perhaps others; the first is one */
    Dispatch *astir_next; /* the next of these */
    bool is_astir;
    uint32_t number;      /* of this group */
    uint32_t first_slot;  /* where the search for a slot begins */
    uint32_t enabled;     /* slots */
    bool said_wanted;     /* since none of them was */
    const Mounts *mounts; /* that its listeners lead to, if to other groups as
                           * well; NULL: all that comes is its own */
    int epoll;
    int bell;
    int *listeners;
    uint32_t listener_count;
    /* Of the first: so many connections are accepted by all, and what workers
     * give back finds room. */
    int32_t most;
    int32_t room; /* of the first: for so many more there is room, or for more
                   * than that; < 0: it is to be counted */
    uint64_t accept_again; /* accepting pauses until then, 0: it does not */
    bool stopped;
    bool drained; /* and the queue has been empty since */
    bool refuses; /* all that waits */
    HeldTable held;
    Refusals refusals;
    LogFile access_log;
    Http1Pages pages;
    Buffer busy_answers[2][2]; /* 503, and 408; with the date of busy_second;
                                * and to HEAD */
    time_t busy_second;
    Slot *slots;
    ChoiceWorker *workers; /* [slots]: as they are at one choice */
    uint64_t woke;         /* when the last wait ended; 0: before any did */
    int heir;              /* whoever takes our place gets all here; -1: none */
    uint64_t heir_again;   /* it took nothing: try again then; 0: at once */
    int forebear;          /* whose place we take hands over here; -1: nobody */
    uint16_t *translation; /* [listener of the forebear]: the same of ours */
    uint32_t translation_count;
};

/* joined.c */
/* The group with this number among those that are joined; NULL: none has it. */
Dispatch *joined_group(const Dispatch *d, uint32_t number);
/* Alone again, and so are those that it was the first of. */
void joined_leave(Dispatch *d);
/* Something has happened to it: it gets its turn in this round. A server may
 * have hundreds of groups, of which a few have anything to do. */
void joined_stir(Dispatch *d);
/* held_add(), which nobody else calls: whoever holds anything is astir. */
uint32_t joined_hold(Dispatch *d, int fd, const ChannelItem *item,
                     HeldState state);
/* When the first of all that they hold or wait for runs out of time, `at`
 * included; 0: never. Those that hold and wait for nothing are not astir from
 * then on. */
uint64_t joined_deadline(Dispatch *first, uint64_t at);
/* Are they stopped, and has each request a thread? */
bool joined_is_done(const Dispatch *first);
/* Nothing waits for a thread any more, and what will is refused. False:
 * something does. */
bool joined_end(Dispatch *first);

/* accept.c */
/* For how many more connections there are descriptors; may be negative. If it
 * is `enough`, there may be more. */
int32_t accept_room(Dispatch *d, int32_t enough);
void accept_listen(Dispatch *d, bool on);
bool accept_batch(Dispatch *d, uint32_t listener, uint64_t now);

/* parked.c */
void parked_add(Dispatch *d, int fd, const ChannelItem *item);
/* It has its last answer: end our side, and wait a little for the client's. */
void parked_linger(Dispatch *d, int fd, const ChannelItem *item);
/* The first bytes of a request are there, but do not tell whose it is. */
void parked_add_head(Dispatch *d, int fd, const ChannelItem *item);
void parked_close(Dispatch *d, uint32_t index, Closed why);
void parked_refuse(Dispatch *d, uint32_t index, Closed why);
/* Close up to so many connections that have been idle since `since` or longer,
 * or within a head, to make room: those that have been so longest, its own
 * first, then those of others that are joined. How many. */
uint32_t parked_evict(Dispatch *d, uint32_t count, uint64_t since);
void parked_event(Dispatch *d, uint32_t index, uint32_t mask, uint64_t now);
/* A request that has just arrived is still served; the idle ones go. */
void parked_stop(Dispatch *d, HeldState state, uint64_t now);
/* When the next thing that is held or waited for runs out of time; 0: never. */
uint64_t parked_deadline(const Dispatch *d);
void parked_expire(Dispatch *d, uint64_t now);

/* busy.c */
/* Answer, and count and log it. False: the client is gone. */
bool busy_answer(Dispatch *d, const Held *h, Closed why);
/* The pages that it answers with are others from now on. */
void busy_forget(Dispatch *d);

/* guess.c */
/* The group that the request is for which has come on `fd`, by what it looks
 * like. NULL: its first bytes do not tell, and more must come. */
Dispatch *guess_group(Dispatch *d, int fd, const ChannelItem *item);

/* lost.c */
/* A worker that has ended had begun this request, and answered nothing. */
void lost_answer(Dispatch *d, const ChannelMessage *m);

/* queue.c */
/* A request has come with `fd`: into the queue of its group. */
void queue_add(Dispatch *d, int fd, const ChannelItem *item);
/* This is its group. */
void queue_enter(Dispatch *d, int fd, const ChannelItem *item);
/* A request has come on one that is held, and not watched any more. */
void queue_move(Dispatch *d, uint32_t index, Dispatch *group, uint64_t now);
/* How many wait here. */
uint32_t queue_length(const Dispatch *d);
void queue_refuse_all(Dispatch *d);
/* Is a worker to be started, for want of any? Not said yet. */
bool queue_wants_worker(const Dispatch *d);
void queue_dispatch(Dispatch *d, uint64_t now);

/* heir.c */
/* Hand over what is held and waits for nothing but a thread or a request. */
void heir_send(Dispatch *d, uint64_t now);
void heir_receive(Dispatch *d, uint64_t now);

/* slots.c */
void slots_take_back(Dispatch *d, const ChannelMessage *m, uint64_t now);
void slots_flush(Dispatch *d, uint32_t slot, uint64_t now);
bool slots_hear(Dispatch *d, uint32_t slot, uint64_t now, DispatchEvent *events,
                uint32_t room, uint32_t *count);

/* The earlier of two times; 0 is none. */
static inline uint64_t
dispatch_earlier(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

#endif
