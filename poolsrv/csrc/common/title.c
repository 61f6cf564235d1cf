/* The title of the process: see title.h. */
#define _GNU_SOURCE
#include "common/title.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* proc(5): fields of /proc/PID/stat, counted from 1. */
enum { STATE = 3, ARG_START = 48, ARG_END = 49 };

/* Arguments are at most this long (MAX_ARG_STRLEN, for one of them). */
#define MOST (UINT64_C(1) << 21)

static bool
read_stat(char *text, size_t room)
{
    const int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    const ssize_t n = read(fd, text, room - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

bool
title_write(const char *text)
{
    char stat[2048];
    uint64_t numbers[2] = {0, 0};
    if (!read_stat(stat, sizeof stat)) {
        return false;
    }
    /* "pid (name) S ...", and the name may hold anything. */
    const char *at = strrchr(stat, ')');
    for (int field = STATE; at && field <= ARG_END; field++) {
        at = strchr(at + 1, ' ');
        if (at && field >= ARG_START) {
            numbers[field - ARG_START] = strtoull(at + 1, NULL, 10);
        }
    }
    if (numbers[0] == 0 || numbers[1] <= numbers[0] ||
        numbers[1] - numbers[0] > MOST) {
        return false;
    }
    /* The last byte stays NUL: otherwise the kernel takes what follows, which
     * is the environment, for a part of the title. */
    char *place = (char *)(uintptr_t)numbers[0];
    const size_t room = (size_t)(numbers[1] - numbers[0]);
    const size_t size = strlen(text) < room ? strlen(text) : room - 1;
    memcpy(place, text, size);
    memset(place + size, 0, room - size);
    return true;
}
