/* Blocks of connections: see places.h. Pure C. */
#define _GNU_SOURCE
#include "worker/places.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

size_t
places_stride(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (sizeof(Conn) * CONN_BLOCK + page - 1) / page * page;
}

Conn *
places_make(int file, uint32_t number)
{
    const size_t stride = places_stride();
    const off_t at = (off_t)(stride * number);
    if (file < 0) {
        return calloc(CONN_BLOCK, sizeof(Conn));
    }
    /* All of it now: if memory is short later, touching it would be a SIGBUS.
     */
    if (posix_fallocate(file, at, (off_t)stride) != 0) {
        return NULL;
    }
    Conn *block =
        mmap(NULL, stride, PROT_READ | PROT_WRITE, MAP_SHARED, file, at);
    return block == MAP_FAILED ? NULL : block;
}

void
places_leave(int file, Conn *block, uint32_t number)
{
    const size_t stride = places_stride();
    if (file >= 0) {
        mmap(block, stride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
             file, (off_t)(stride * number));
    }
}

void
places_free(int file, Conn *block)
{
    if (file < 0) {
        free(block);
    } else {
        munmap(block, places_stride());
    }
}
