/* The supervisor's loop: accept, park, dispatch, take back.
 *
 * Pure C, one thread, one wait. A connection that the supervisor holds is
 * either parked (nothing to read) or queued (a request waits, and all workers
 * are full); both cost a `Held` of 96 bytes and no buffer, because the
 * supervisor never reads a byte of a request, it only looks. What needs policy
 * comes back to the caller as an event.
 */
#ifndef POOLSRV_DISPATCH_H
#define POOLSRV_DISPATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/channel.h"
#include "common/mounts.h"
#include "common/options.h"
#include "protocol/http1_answer.h"
#include "common/scoreboard.h"

typedef struct {
    SUPERVISOR_OPTIONS(OPTION_MEMBER)
} DispatchLimits;

typedef enum {
    DISPATCH_READABLE, /* a watched descriptor is readable: `token` */
    DISPATCH_NEWS,     /* a worker said something: `group`, `slot`, `news`,
                        * `text` */
    DISPATCH_DRAINED,  /* stopped, and all that came has a thread: said once */
    DISPATCH_REFUSED,  /* requests of `group` were refused: `text`, for the
                        * log */
    DISPATCH_WANTED,   /* a request waits for `group`, and none of its slots is
                        * enabled; said once until one is */
} DispatchEventKind;

typedef struct {
    DispatchEventKind kind;
    uint32_t token;
    uint32_t group;
    uint32_t slot;
    ChannelKind news;
    char text[CHANNEL_TEXT + 1];
} DispatchEvent;

typedef struct Dispatch Dispatch;

/* `listeners` stay the caller's. NULL and errno if it cannot be made. */
Dispatch *dispatch_new(Scoreboard *board, const DispatchLimits *limits,
                       const int *listeners, uint32_t listener_count);

/* Close every connection it holds, and itself. Those that were joined to it
 * stand alone again. */
void dispatch_free(Dispatch *d);

/* In a child just forked: close its copies of all that `d` has open. Its memory
 * stays: to free it would be to write to it, and so to have it twice. */
void dispatch_close_in_child(const Dispatch *d);

/* `other`, of another group, is waited for together with `first`: whoever waits
 * for the first does so for all. The group of the first is number 0, and so is
 * that of one which stands alone. 0, or -1 and errno: EINVAL if there is such a
 * number, or `other` is joined. */
int dispatch_join(Dispatch *first, Dispatch *other, uint32_t number);

/* Both ends of a slot's channel; they stay the caller's. 0, or -1 and errno. */
int dispatch_channel(Dispatch *d, uint32_t slot, int ours, int theirs);

/* For how many connections there are descriptors, in all that are joined. To be
 * called when the caller has opened all that it needs: before, any number of
 * connections is accepted, afterwards no more than these. */
int32_t dispatch_measure(Dispatch *d);

/* What its answers say; the pages stay the caller's until others are given. */
void dispatch_set_pages(Dispatch *d, const Http1Pages *pages);

/* Groups that share listeners: each is told the same mounts. From then on it
 * looks whose a request is, and hands it to that one, or keeps it where all
 * answer. They stay the caller's. */
void dispatch_set_mounts(Dispatch *d, const Mounts *mounts);

/* Where it writes of the requests that it refuses; it stays the caller's. */
void dispatch_log(Dispatch *d, int fd);

/* Allow or stop dispatching to this slot. */
void dispatch_enable(Dispatch *d, uint32_t slot, bool on);

/* Queue again what was sent to the slot and never received. How many. */
uint32_t dispatch_reclaim(Dispatch *d, uint32_t slot);

/* Receive what the worker in the slot has sent and nobody has received yet:
 * its connections are taken back, its news are written to `events`. How many.
 * To be called before the slot is buried, so that the last news are not lost.
 */
uint32_t dispatch_hear(Dispatch *d, uint32_t slot, DispatchEvent *events,
                       uint32_t room);

/* A descriptor of the caller's whose readability is an event. */
int dispatch_watch(Dispatch *d, int fd, uint32_t token);
void dispatch_unwatch(Dispatch *d, int fd);

/* The eventfd by which a worker says that a thread is free (dispatch owns). */
int dispatch_bell(const Dispatch *d);

/* Accept what waits in the listeners, then never again; close connections
 * as they fall idle. What is queued is still dispatched; DISPATCH_DRAINED says
 * when, and what comes back with a request after that is refused. This goes for
 * all that are joined. */
void dispatch_stop(Dispatch *d);

/* What waits for a thread, and what will, is refused from now on: soon all that
 * goes on is ended. This goes for `d` alone: a group has a time of its own. */
void dispatch_last_call(Dispatch *d);

/* Take connections from the listeners, or leave them there. It does at first.
 */
void dispatch_accept(Dispatch *d, bool on);

/* Another supervisor takes our place: accept what waits in the listeners, then
 * never again, and hand over all that is held or comes back, to `heir`, which
 * stays the caller's. Nobody must be enabled. */
void dispatch_bequeath(Dispatch *d, int heir);

/* Take what another supervisor bequeaths from `forebear`, which stays the
 * caller's. `translation` names for each of its listeners ours. 0, or -1 and
 * errno. */
int dispatch_inherit(Dispatch *d, int forebear, const uint16_t *translation,
                     uint32_t count);

/* The other supervisor has ended: take what it has sent. `forebear` is not used
 * any more. */
void dispatch_inherit_rest(Dispatch *d);

/* Connections that it holds, in whatever state. */
uint32_t dispatch_held(const Dispatch *d);

/* Connections that wait for a thread. */
uint32_t dispatch_queued(const Dispatch *d);

/* Run until something needs the caller or `deadline` (0: none) has passed, with
 * all that are joined to this one. How many events were written (0 at the
 * deadline or on a signal), or -1 and errno. */
int dispatch_wait(Dispatch *d, uint64_t deadline, DispatchEvent *events,
                  uint32_t room);

#endif
