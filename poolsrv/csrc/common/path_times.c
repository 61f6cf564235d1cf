/* How long a request will hold its thread. Pure C; see path_times.h. */
#include "common/path_times.h"

#include <string.h>
#include <sys/socket.h>

/* FNV-1a. Names are few and short, and the seed is secret. */
#define PRIME UINT64_C(0x100000001b3)

static uint64_t
mix(uint64_t hash, unsigned char byte)
{
    return (hash ^ byte) * PRIME;
}

static uint32_t
place(const PathTimes *f, const char *method, size_t method_size,
      const char *path, size_t path_size)
{
    uint64_t hash = f->seed;
    uint64_t part;
    bool number = false;
    size_t i;

    if (method_size > PATH_TIMES_METHOD) {
        method_size = PATH_TIMES_METHOD;
    }
    if (path_size > PATH_TIMES_PATH) {
        path_size = PATH_TIMES_PATH;
    }
    for (i = 0; i < method_size; i++) {
        hash = mix(hash, (unsigned char)method[i]);
    }
    part = hash;
    for (i = 0; i <= path_size; i++) {
        if (i == path_size || path[i] == '/') {
            hash = number ? mix(hash, '0') : part;
            part = hash = mix(hash, '/');
            number = false;
        } else {
            part = mix(part, (unsigned char)path[i]);
            number |= path[i] >= '0' && path[i] <= '9';
        }
    }
    return (uint32_t)(hash >> 32) % PATH_TIMES_BUCKETS;
}

void
path_times_learn(PathTimes *f, const char *method, size_t method_size,
                 const char *path, size_t path_size, uint64_t took)
{
    _Atomic uint32_t *usual =
        &f->usual[place(f, method, method_size, path, path_size)];
    const uint32_t old = atomic_load_explicit(usual, memory_order_relaxed);
    const uint32_t now =
        took / 1000 > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)(took / 1000);
    uint32_t new = old, longest;

    atomic_store_explicit(
        &f->mean,
        choice_mean(atomic_load_explicit(&f->mean, memory_order_relaxed), took),
        memory_order_relaxed);
    /* Steps towards the sample, each of the same size: that ends at the
     * median. A mean would be moved by the one request of many that found the
     * processor taken. Near the median nothing is written, so the cache line
     * stays with its readers. */
    if (old == 0) {
        new = took < LADDER_SLOW ? 0 : now;
    } else if (now > old + old / 4) {
        new = old + old / 8 + 1;
    } else if (now < old - old / 4 && old > 1) {
        new = old - old / 8 - 1;
    }
    longest = atomic_load_explicit(&f->longest, memory_order_relaxed);
    if (new > longest || (old == longest && new < old)) {
        atomic_store_explicit(&f->longest, new, memory_order_relaxed);
    }
    if (new == old) {
        return;
    }
    atomic_store_explicit(usual, new, memory_order_relaxed);
    if (!path_times_known(f)) {
        atomic_store_explicit(&f->known, 1, memory_order_relaxed);
    }
}

uint64_t
path_times_usual(const PathTimes *f, int fd)
{
    char head[PATH_TIMES_METHOD + 1 + PATH_TIMES_PATH];
    const ssize_t n = recv(fd, head, sizeof head, MSG_DONTWAIT | MSG_PEEK);
    const char *space, *path, *end;
    uint32_t at;

    if (n <= 0) {
        return 0;
    }
    space = memchr(head, ' ', (size_t)n);
    if (space == NULL) {
        return 0;
    }
    path = end = space + 1;
    while (end < head + n && *end != ' ' && *end != '?' && *end != '\r' &&
           *end != '\n') {
        end++;
    }
    at = place(f, head, (size_t)(space - head), path, (size_t)(end - path));
    return (uint64_t)atomic_load_explicit(&f->usual[at], memory_order_relaxed) *
           1000;
}

uint64_t
path_times_delay(const PathTimes *f, int fd)
{
    const ChoicePatience patience = {
        atomic_load_explicit(&f->factor, memory_order_relaxed),
        atomic_load_explicit(&f->patience, memory_order_relaxed)};
    const uint64_t mean = atomic_load_explicit(&f->mean, memory_order_relaxed);
    const uint64_t longest = 1000 * (uint64_t)atomic_load_explicit(
                                        &f->longest, memory_order_relaxed);
    /* Where no path is slow, none is looked up. */
    if (!path_times_known(f) || choice_delay(longest, mean, patience) == 0) {
        return 0;
    }
    return choice_delay(path_times_usual(f, fd), mean, patience);
}
