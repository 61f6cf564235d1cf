/* Numbers and locks by name, in memory that all processes of a server share.
 *
 * Pure C. A place is taken by name the first time and stays until the server
 * ends. A lock is a robust mutex: the kernel notices that its owner has ended,
 * thread or process, and whoever gets the lock next is told; no pid is kept, so
 * none can be another's. A number is one atomic word.
 *
 * Two releases may have one table at a time (an upgrade hands it over): what it
 * looks like is part of `magic`, and one of another form is refused.
 */
#ifndef POOLSRV_SHARED_H
#define POOLSRV_SHARED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SHARED_PLACES 1024
/* Bytes of a name. */
#define SHARED_NAME 200

typedef enum {
    SHARED_FREE,
    SHARED_NUMBER,
    SHARED_LOCK,
} SharedKind;

typedef struct {
    _Atomic uint32_t kind; /* set last */
    uint32_t size;         /* of the name */
    char name[SHARED_NAME];
    _Atomic int64_t number; /* of a lock: 1 if its next owner is to be told
                             * that one has ended with it */
    pthread_mutex_t lock;
} __attribute__((aligned(64))) SharedPlace;

typedef struct {
    uint64_t magic;
    pthread_mutex_t names; /* held while a place is taken */
    SharedPlace places[SHARED_PLACES];
} SharedTable;

typedef enum {
    SHARED_TIMED_OUT,
    SHARED_ACQUIRED,
    SHARED_OWNER_DIED, /* acquired, and its last owner ended with it */
} SharedOutcome;

/* A memfd with an empty table; -1 and errno. */
int shared_create(void);

/* Map it. NULL and errno: EINVAL if it is none, or of another form. */
SharedTable *shared_attach(int fd);

/* The place of that name and kind, taken if there is none. NULL and errno:
 * EEXIST if the name is of another kind, ENOSPC if all places are taken, EINVAL
 * for a name that is empty or too long. */
SharedPlace *shared_find(SharedTable *table, SharedKind kind, const char *name,
                         size_t size);

/* Wait at most `nanoseconds` for the lock: a SharedOutcome, or -1 and errno
 * (EDEADLK: this thread has it). */
int shared_acquire(SharedPlace *place, uint64_t nanoseconds);

/* 0, or -1 and errno (EPERM: this thread does not have it). */
int shared_release(SharedPlace *place);

/* As if it had not been acquired with that outcome: what this thread was not
 * told, the next owner is. */
void shared_undo(SharedPlace *place, SharedOutcome outcome);

#endif
