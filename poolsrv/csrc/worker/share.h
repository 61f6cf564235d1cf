/* What waits in this worker, seen by its main thread: found where no thread is
 * left to look, and given back where another worker is quicker. */
#ifndef POOLSRV_SHARE_H
#define POOLSRV_SHARE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/worker.h"

/* All threads are in calls: look for events in their place. False: a thread
 * does so by now. */
bool share_stand_in(Worker *w);
/* Requests that other workers would begin at once. */
uint32_t share_others_room(const Worker *w);
/* Does nothing wait here that this worker must serve? */
bool share_may_all_go(Worker *w);
/* Give back what waits here and would do better elsewhere; `room` is
 * share_others_room. */
void share_waiting(Worker *w, uint32_t room);
/* Would share_waiting give back anything? */
bool share_is_due(Worker *w, uint64_t now);
/* Give back some of those that wait, to workers with fewer connections. */
void share_even_out(Worker *w);
/* Let the main thread hear of the next event, which share_events_came takes. */
void share_await_events(Worker *w);
void share_events_came(Worker *w);

#endif
