/* How a connection ends after an answer. */
#ifndef POOLSRV_ENDING_H
#define POOLSRV_ENDING_H

#include "worker/exchange.h"

/* The last answer is with the kernel: end our side, and the connection when its
 * client has read the answer.
 *
 * Closing over bytes that the client still sends would reset the connection,
 * and the reset may overtake the answer. So our side ends first, and whatever
 * comes is thrown away until the client ends its side, or its time is over. No
 * thread waits for that. */
Step ending_start(Worker *w, Thread *t, Conn *c);
/* End an idle one, as all of the server ends. Its client owes us nothing, and
 * most pools of connections notice our end no sooner than they need one: so
 * nobody waits for its end, but only until its kernel has ours. What it sends
 * before that still meets an end, and no reset. */
void ending_idle(Worker *w, Conn *c);
/* Throw away what has come. */
Step ending_linger(Worker *w, Thread *t, Conn *c);
/* From the main thread: look at those whose side has ended since the last look.
 * Most clients have ended theirs by then, and their connections never enter the
 * epoll set. */
void ending_tick(Worker *w);

#endif
