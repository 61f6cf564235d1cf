/* Notes: a ring of them, guarded by `side`. Pure C. */
#define _GNU_SOURCE
#include "worker/notes.h"

#include <stdarg.h>
#include <stdio.h>

#include "worker/worker_internal.h"

void
notes_add(Worker *w, NoteLevel level, const char *format, ...)
{
    va_list arguments;
    bool first;
    pthread_mutex_lock(&w->side);
    first = w->note_count == 0;
    if (w->note_count == NOTES_MOST) {
        /* A flood must not become a flood of log lines, nor one of debug
         * lines a warning. */
        if (w->note_lost++ == 0 || level > w->note_lost_level)
            w->note_lost_level = level;
    } else {
        Note *note = &w->notes[(w->note_first + w->note_count++) % NOTES_MOST];
        note->level = level;
        va_start(arguments, format);
        vsnprintf(note->text, sizeof note->text, format, arguments);
        va_end(arguments);
    }
    pthread_mutex_unlock(&w->side);
    if (first)
        worker_ring(w->bell);
}

bool
notes_pop(Worker *w, Note *note)
{
    bool found = false;
    pthread_mutex_lock(&w->side);
    if (w->note_count) {
        *note = w->notes[w->note_first];
        w->note_first = (w->note_first + 1) % NOTES_MOST;
        w->note_count--;
        found = true;
    } else if (w->note_lost) {
        note->level = w->note_lost_level;
        snprintf(note->text, sizeof note->text,
                 "%u more messages like these were dropped", w->note_lost);
        w->note_lost = 0;
        found = true;
    }
    pthread_mutex_unlock(&w->side);
    return found;
}
