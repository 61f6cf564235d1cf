/* Owners of what has been sent, by interpreter: see garbage.h. Pure C. */
#include "worker/garbage.h"

#include <stdlib.h>

#include "worker/worker_internal.h"

void
garbage_add(Worker *w, Segment *segment)
{
    Garbage *garbage = &w->garbage[segment->interpreter];
    pthread_mutex_lock(&w->side);
    segment->next = garbage->first;
    garbage->first = segment;
    atomic_store(&garbage->any, true);
    pthread_mutex_unlock(&w->side);
    worker_ring(w->alarm);
}

bool
garbage_is_there(const Worker *w, uint32_t interpreter)
{
    return atomic_load_explicit(&w->garbage[interpreter].any,
                                memory_order_relaxed);
}

void *
garbage_pop(Worker *w, uint32_t interpreter)
{
    Garbage *garbage = &w->garbage[interpreter];
    Segment *segment;
    void *owner;
    if (!garbage_is_there(w, interpreter)) {
        return NULL;
    }
    pthread_mutex_lock(&w->side);
    segment = garbage->first;
    if (segment) {
        garbage->first = segment->next;
    }
    atomic_store(&garbage->any, garbage->first != NULL);
    pthread_mutex_unlock(&w->side);
    if (segment == NULL) {
        return NULL;
    }
    owner = segment->owner;
    free(segment);
    return owner;
}
