/* How long a request will hold its thread, judged by its path.
 *
 * Pure C. While all threads are busy, waiting requests are not served strictly
 * in order of arrival: short ones may overtake those that take long. The
 * workers learn in a table in shared memory what requests of a method and path
 * usually take; the supervisor looks it up for a connection that has to wait.
 * A path part that holds a digit counts as any other such part, so /users/7
 * and /users/8 are one.
 *
 * A wrong time harms little: it decides how far others may overtake, and that
 * is bounded by the time itself.
 */
#ifndef POOLSRV_PATH_TIMES_H
#define POOLSRV_PATH_TIMES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/choice.h"

#define PATH_TIMES_BUCKETS 1024
/* Bytes of the method and of the path that are hashed. */
#define PATH_TIMES_METHOD 16
#define PATH_TIMES_PATH 128

/* In shared memory. Many threads write and none waits: a lost sample does no
 * harm. */
typedef struct {
    uint64_t seed; /* so that no client can aim at another path's place */
    /* By how many times its own usual time a waiting request may be overtaken;
     * 0: by nobody, and nothing is learned. */
    _Atomic uint32_t factor;
    _Atomic uint64_t patience; /* and by how much at most, in nanoseconds */
    _Atomic uint32_t known;    /* is there anything to look up? */
    _Atomic uint32_t longest;  /* of `usual`, nearly */
    /* Written with each request that is learned from, hence a line of its own:
     * the mean of them all, in nanoseconds. */
    _Alignas(64) _Atomic uint64_t mean;
    _Alignas(64) _Atomic uint32_t usual[PATH_TIMES_BUCKETS]; /* microseconds */
} __attribute__((aligned(64))) PathTimes;

/* A request has held its thread for `took` nanoseconds. */
void path_times_learn(PathTimes *f, const char *method, size_t method_size,
                      const char *path, size_t path_size, uint64_t took);

/* Is there anything to look up? */
static inline bool
path_times_known(const PathTimes *f)
{
    return atomic_load_explicit(&f->known, memory_order_relaxed) != 0;
}

/* Is there something to learn from a request that took so long? There is not
 * if the path is always fast. */
static inline bool
path_times_learns(const PathTimes *f, uint64_t took)
{
    return path_times_known(f) ||
           (took >= LADDER_SLOW &&
            atomic_load_explicit(&f->factor, memory_order_relaxed) != 0);
}

/* Nanoseconds that the request which waits on this socket, unread, will take;
 * 0 if it is short, or nothing is known of it. One system call. */
uint64_t path_times_usual(const PathTimes *f, int fd);

/* For how long the unread request on this socket may be overtaken
 * (choice_delay); 0 if it is not slow, or nothing is known of it. One system
 * call, if anything is known. */
uint64_t path_times_delay(const PathTimes *f, int fd);

#endif
