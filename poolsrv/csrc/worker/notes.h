/* What the threads have to say, logged by the main thread. */
#ifndef POOLSRV_NOTES_H
#define POOLSRV_NOTES_H

#include <stdbool.h>

#include "worker/worker.h"

#define NOTES_MOST 64
/* Clients can cause lines: so many reach the log in a second, and what the
 * others said is not worth more than their number. */
#define NOTES_A_SECOND 10

typedef enum { NOTE_DEBUG = 10, NOTE_INFO = 20, NOTE_WARNING = 30 } NoteLevel;

typedef struct {
    NoteLevel level;
    char text[248];
} Note;

void notes_add(Worker *w, NoteLevel level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool notes_pop(Worker *w, Note *note);
/* Is there one to pop? */
bool notes_wait(Worker *w);

/* A request was refused, because of `reason`, which must stay: a warning says
 * so, one a second at most. */
void notes_refused(Worker *w, int status, const char *reason);
/* Say what is due of the warnings that were put off; `now` in nanoseconds. */
void notes_tick(Worker *w, uint64_t now);

#endif
