/* See descriptor_room.h. Pure C. */
#define _GNU_SOURCE
#include "common/descriptor_room.h"

#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

int32_t
descriptor_room_lowest(void)
{
    const int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0) {
        return INT32_MAX;
    }
    close(fd);
    return fd;
}

int32_t
descriptor_room_here(uint64_t more)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return INT32_MAX;
    }
    return descriptor_room_of(limit.rlim_max,
                              (uint64_t)descriptor_room_lowest(), more);
}
