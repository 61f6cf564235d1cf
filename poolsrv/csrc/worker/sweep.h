/* The connections of a worker whose time is over. The main thread alone calls
 * this. */
#ifndef POOLSRV_SWEEP_H
#define POOLSRV_SWEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/worker.h"

/* Look at each that no thread has: those that are late are refused, and idle
 * ones go back to the supervisor, `all_idle` of them whatever their time. */
void sweep_run(Worker *w, uint64_t now, bool all_idle);
/* Close those that nobody has in hand: the worker ends, and its threads may be
 * late. */
void sweep_close(Worker *w);

#endif
