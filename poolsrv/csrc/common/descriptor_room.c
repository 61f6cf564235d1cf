/* See descriptor_room.h. Pure C. */
#define _GNU_SOURCE
#include "common/descriptor_room.h"

#include <sys/epoll.h>
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
