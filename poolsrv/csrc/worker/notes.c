/* Notes: a ring of them, guarded by `side`. Pure C. */
#define _GNU_SOURCE
#include "worker/notes.h"

#include <stdarg.h>
#include <stdio.h>

#include "worker/watch.h"
#include "worker/worker_internal.h"

static NoteLevel
level_of(NoteAbout about)
{
    switch (about) {
#define X(name, number, level) \
    case name:                 \
        return level;
        NOTE_ABOUTS(X)
#undef X
    }
    return NOTE_WARNING;
}

/* Do the lines that were dropped wait to be told of? Not more than once a
 * second; `side` is held. */
static bool
is_loss_due(const Worker *w)
{
    return w->note_lost && (atomic_load(&w->live) == 0 ||
                            clock_now() - w->note_second >= CLOCK_SECOND);
}

/* May one more line be said now? A debug line is asked for. */
static bool
is_allowed(Worker *w, NoteLevel level)
{
    const uint64_t now = clock_now();
    if (w->note_count == NOTES_MOST) {
        return false;
    }
    if (level <= NOTE_DEBUG) {
        return true;
    }
    if (now - w->note_second >= CLOCK_SECOND && w->note_lost == 0) {
        w->note_second = now;
        w->note_said = 0;
    }
    return w->note_said++ < NOTES_A_SECOND;
}

void
notes_add(Worker *w, NoteAbout about, const char *format, ...)
{
    const NoteLevel level = level_of(about);
    va_list arguments;
    bool first;
    pthread_mutex_lock(&w->side);
    first = w->note_count == 0;
    if (is_allowed(w, level)) {
        Note *note = &w->notes[(w->note_first + w->note_count++) % NOTES_MOST];
        note->level = level;
        note->about = about;
        va_start(arguments, format);
        vsnprintf(note->text, sizeof note->text, format, arguments);
        va_end(arguments);
    } else if (w->note_lost++ == 0 || level > w->note_lost_level) {
        /* A flood of debug lines must not become a warning. */
        w->note_lost_level = level;
    }
    pthread_mutex_unlock(&w->side);
    if (first) {
        worker_ring(w->alarm);
    }
}

void
notes_refused(Worker *w, int status, const char *reason)
{
    pthread_mutex_lock(&w->side);
    refusals_add(&w->refusals, status, reason);
    atomic_store(&w->has_refusals, true);
    pthread_mutex_unlock(&w->side);
    notes_tick(w, clock_now());
}

void
notes_tick(Worker *w, uint64_t now)
{
    char text[sizeof w->notes[0].text];
    bool said = false;
    if (!atomic_load(&w->has_refusals)) {
        return;
    }
    pthread_mutex_lock(&w->side);
    if (refusals_say(&w->refusals, now, text, sizeof text)) {
        said = true;
        atomic_store(&w->has_refusals, false);
    }
    pthread_mutex_unlock(&w->side);
    if (said) {
        notes_add(w, NOTE_REFUSED, "%s", text);
    } else {
        watch_attend(w);
    }
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
    } else if (is_loss_due(w)) {
        note->level = w->note_lost_level;
        note->about = NOTE_DROPPED;
        snprintf(note->text, sizeof note->text,
                 "%u more messages like these were dropped", w->note_lost);
        w->note_lost = 0;
        found = true;
    }
    pthread_mutex_unlock(&w->side);
    return found;
}

bool
notes_wait(Worker *w)
{
    bool found;
    pthread_mutex_lock(&w->side);
    found = w->note_count || is_loss_due(w);
    pthread_mutex_unlock(&w->side);
    return found;
}
