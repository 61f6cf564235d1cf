/* mounts.h for the library that the model test loads. */
#include "common/mounts.h"

#include <stdlib.h>
#include <string.h>

int32_t mounts_number(const char *const *hosts, const char *const *paths,
                      uint32_t count, const char *host, size_t host_size,
                      const char *path, size_t path_size, uint32_t *cut);

/* The number of the mount, or -404 or -421; -1: no memory. */
int32_t
mounts_number(const char *const *hosts, const char *const *paths,
              uint32_t count, const char *host, size_t host_size,
              const char *path, size_t path_size, uint32_t *cut)
{
    Mount *given = calloc(count + 1u, sizeof *given);
    Mounts *m = NULL;
    int32_t number = -1;
    for (uint32_t i = 0; given && i < count; i++) {
        given[i] = (Mount){.host = {hosts[i], (uint32_t)strlen(hosts[i])},
                           .path = {paths[i], (uint32_t)strlen(paths[i])},
                           .number = i};
    }
    m = given ? mounts_new(given, count) : NULL;
    if (m) {
        const MountsFound found =
            mounts_find(m, host, host_size, path, path_size);
        *cut = found.cut;
        number = found.result == MOUNTS_FOUND     ? (int32_t)found.mount->number
                 : found.result == MOUNTS_NO_PATH ? -404
                                                  : -421;
    }
    mounts_free(m);
    free(given);
    return number;
}
