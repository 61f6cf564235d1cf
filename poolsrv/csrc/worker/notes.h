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

/* What a note is about: the number of its message in operator_messages.py, and
 * its level. X(name, number, level) */
#define NOTE_ABOUTS(X)                     \
    X(NOTE_REFUSED, 301, NOTE_WARNING)     \
    X(NOTE_DROPPED, 305, NOTE_WARNING)     \
    X(NOTE_ACCESS_LOG, 311, NOTE_WARNING)  \
    X(NOTE_FILE_CUT, 312, NOTE_WARNING)    \
    X(NOTE_FILE_CLOSED, 313, NOTE_WARNING) \
    X(NOTE_NO_OPENAT2, 314, NOTE_WARNING)  \
    X(NOTE_SENDFILE, 315, NOTE_WARNING)    \
    X(NOTE_SPOOL, 316, NOTE_WARNING)       \
    X(NOTE_DESCRIPTORS, 317, NOTE_WARNING) \
    X(NOTE_LENGTH, 318, NOTE_WARNING)      \
    X(NOTE_UNPROXIED, 319, NOTE_DEBUG)     \
    X(NOTE_CLIENT_GONE, 320, NOTE_DEBUG)   \
    X(NOTE_BODY_UNREAD, 321, NOTE_DEBUG)

#define NOTE_ENUM(name, number, level) name = number,
typedef enum { NOTE_ABOUTS(NOTE_ENUM) } NoteAbout;
#undef NOTE_ENUM

typedef struct {
    NoteLevel level;
    NoteAbout about;
    char text[248];
} Note;

void notes_add(Worker *w, NoteAbout about, const char *format, ...)
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
