/* Owners of what has been sent: whoever has their interpreter releases them. */
#ifndef POOLSRV_GARBAGE_H
#define POOLSRV_GARBAGE_H

#include "worker/output.h"
#include "worker/worker.h"

/* The segment, which has an owner, has been sent. */
void garbage_add(Worker *w, Segment *segment);

/* An owner of this interpreter, or NULL. */
void *garbage_pop(Worker *w, uint32_t interpreter);
bool garbage_is_there(const Worker *w, uint32_t interpreter);

#endif
