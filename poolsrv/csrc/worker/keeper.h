/* The keeper of a worker: a process that shares its table of descriptors, and
 * nothing else, and outlives it by a moment.
 *
 * When a process dies the kernel closes its descriptors. If it is the only one
 * that had them, the clients of all its connections are told so, also those
 * whose requests no thread had begun to read. While the keeper lives the table
 * does: it finds the connections where the worker has left them (places.h),
 * gives back to the supervisor those that lose nothing by it, and those whose
 * answer had not begun, to be answered 502, and ends. What
 * the application had open it closes first. As long as the worker lives the
 * keeper sleeps, and costs a request nothing but the words that say how far it
 * has come (ConnProgress). A duplicate of each descriptor in the supervisor
 * would cost a message for each connection that comes, and one for each that
 * ends.
 *
 * It does not share the worker's memory: a kernel that is short of memory, or
 * that writes a core, ends all processes that do. It is made before the worker
 * has loaded anything, so that it keeps no copy of what the worker changes.
 *
 * Pure C.
 */
#ifndef POOLSRV_KEEPER_H
#define POOLSRV_KEEPER_H

#include <sys/types.h>

#include "worker/conn.h"

typedef struct {
    int channel;   /* the worker's end */
    int board;     /* the scoreboard */
    uint32_t slot; /* of the worker */
    int places;    /* the file of its connections */
    int life;      /* a pidfd of the worker */
    pid_t worker;
} Keeper;

/* What becomes of a connection of a dead worker. */
typedef enum {
    FATE_NONE,   /* nobody is there, or somebody else has it */
    FATE_UNREAD, /* it goes back to the supervisor: no request is lost */
    FATE_LOST,   /* the supervisor answers its request: 502 */
    FATE_CUT,    /* it ends with the worker: its answer had begun */
} Fate;

/* Pure. */
Fate keeper_judge(const Conn *c);

/* Make the keeper of this process, which must have one thread and no connection
 * yet; `name` and `title` are for ps. `places` and `life` are set, and are the
 * caller's from now on. Its pid, or -1 and errno. */
pid_t keeper_start(Keeper *keeper, const char *name, const char *title);

/* This process, whose child it is, has no connection any more: end it, so that
 * whoever adopts what we leave behind has nothing to do. */
void keeper_dismiss(pid_t keeper);

#endif
