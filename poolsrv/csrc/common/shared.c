/* See shared.h. Pure C. */
#define _GNU_SOURCE
#include "common/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000

/* "shared", a version, and what the machine's C library makes of a mutex. */
static const uint64_t magic =
    UINT64_C(0x736861726564) << 16 | 1U << 8 | sizeof(pthread_mutex_t);

/* Another process may have ended inside: what it did is done or is not. */
static int
settle(pthread_mutex_t *lock, int error)
{
    return error == EOWNERDEAD ? pthread_mutex_consistent(lock) : error;
}

static int
make_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t kind;
    int error = pthread_mutexattr_init(&kind);
    if (error) {
        return error;
    }
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    error = pthread_mutex_init(lock, &kind);
    pthread_mutexattr_destroy(&kind);
    return error;
}

int
shared_create(void)
{
    const int fd =
        memfd_create("poolsrv-shared", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -1;
    }
    SharedTable *table = MAP_FAILED;
    int error = 0;
    if (ftruncate(fd, sizeof *table) < 0 ||
        (table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED,
                      fd, 0)) == MAP_FAILED) {
        error = errno;
    } else {
        error = make_lock(&table->names);
        table->magic = magic;
        munmap(table, sizeof *table);
    }
    if (error) {
        close(fd);
        errno = error;
        return -1;
    }
    /* A mapping of what somebody has cut short is a SIGBUS in every process. */
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return fd;
}

SharedTable *
shared_attach(int fd)
{
    struct stat info;
    if (fstat(fd, &info) < 0) {
        return NULL;
    }
    if (info.st_size != sizeof(SharedTable)) {
        errno = EINVAL;
        return NULL;
    }
    SharedTable *table =
        mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (table == MAP_FAILED) {
        return NULL;
    }
    if (table->magic != magic) {
        munmap(table, sizeof *table);
        errno = EINVAL;
        return NULL;
    }
    return table;
}

/* With `names` held. */
static SharedPlace *
take(SharedPlace *place, SharedKind kind, const char *name, size_t size)
{
    const int error = kind == SHARED_LOCK ? make_lock(&place->lock) : 0;
    if (error) {
        errno = error;
        return NULL;
    }
    memcpy(place->name, name, size);
    place->size = (uint32_t)size;
    atomic_store(&place->kind, kind);
    return place;
}

/* With `names` held. Places are taken in order: the first free one is the end.
 * A name is looked for when an object is made, not when it is used. */
static SharedPlace *
look_for(SharedTable *table, SharedKind kind, const char *name, size_t size)
{
    for (size_t i = 0; i < SHARED_PLACES; i++) {
        SharedPlace *place = &table->places[i];
        const uint32_t found = atomic_load(&place->kind);
        if (found == SHARED_FREE) {
            return take(place, kind, name, size);
        }
        if (place->size == size && memcmp(place->name, name, size) == 0) {
            if (found == (uint32_t)kind) {
                return place;
            }
            errno = EEXIST;
            return NULL;
        }
    }
    errno = ENOSPC;
    return NULL;
}

SharedPlace *
shared_find(SharedTable *table, SharedKind kind, const char *name, size_t size)
{
    if (size == 0 || size > SHARED_NAME) {
        errno = EINVAL;
        return NULL;
    }
    const int error = settle(&table->names, pthread_mutex_lock(&table->names));
    if (error) {
        errno = error;
        return NULL;
    }
    SharedPlace *place = look_for(table, kind, name, size);
    const int found = errno;
    pthread_mutex_unlock(&table->names);
    errno = found;
    return place;
}

int
shared_acquire(SharedPlace *place, uint64_t nanoseconds)
{
    struct timespec end;
    int error;
    if (nanoseconds == 0) {
        error = pthread_mutex_trylock(&place->lock);
    } else {
        clock_gettime(CLOCK_REALTIME, &end); /* what timedlock understands */
        end.tv_sec += (time_t)(nanoseconds / SECOND);
        end.tv_nsec += (long)(nanoseconds % SECOND);
        if (end.tv_nsec >= SECOND) {
            end.tv_nsec -= SECOND;
            end.tv_sec++;
        }
        error = pthread_mutex_timedlock(&place->lock, &end);
    }
    if (error == EOWNERDEAD) {
        pthread_mutex_consistent(&place->lock);
        atomic_store(&place->number, 0);
        return SHARED_OWNER_DIED;
    }
    if (error == EBUSY || error == ETIMEDOUT) {
        return SHARED_TIMED_OUT;
    }
    errno = error;
    if (error) {
        return -1;
    }
    return atomic_exchange(&place->number, 0) ? SHARED_OWNER_DIED
                                              : SHARED_ACQUIRED;
}

void
shared_undo(SharedPlace *place, SharedOutcome outcome)
{
    if (outcome == SHARED_OWNER_DIED) {
        atomic_store(&place->number, 1);
    }
    pthread_mutex_unlock(&place->lock);
}

int
shared_release(SharedPlace *place)
{
    const int error = pthread_mutex_unlock(&place->lock);
    errno = error;
    return error ? -1 : 0;
}
