/* Descriptors in tests: made without a word, and counted. */
#ifndef POOLSRV_TESTS_DESCRIPTORS_H
#define POOLSRV_TESTS_DESCRIPTORS_H

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

/* How many are open. */
static inline int
descriptors_open(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = -1; /* the folder's own */
    CHECK(folder != NULL);
    for (struct dirent *e; (e = readdir(folder)) != NULL;) {
        count += e->d_name[0] != '.';
    }
    closedir(folder);
    return count;
}

static inline bool
descriptors_same_file(int one, int other)
{
    struct stat a, b;
    CHECK(fstat(one, &a) == 0 && fstat(other, &b) == 0);
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static inline bool
descriptors_close_on_exec(int fd)
{
    return fcntl(fd, F_GETFD) & FD_CLOEXEC;
}

/* From now on the process can have so many more; the limit as it was. */
static inline struct rlimit
descriptors_leave(rlim_t more)
{
    struct rlimit before, now;
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    now = before;
    /* What counts is the highest number: ours have no gaps here. */
    now.rlim_cur = (rlim_t)dup(0);
    CHECK(now.rlim_cur != (rlim_t)-1);
    close((int)now.rlim_cur);
    now.rlim_cur += more;
    CHECK(setrlimit(RLIMIT_NOFILE, &now) == 0);
    return before;
}

/* Run a test; what it has opened it must have closed. */
#define RUN(test)                                                           \
    do {                                                                    \
        const int held = descriptors_open();                                \
        test();                                                             \
        if (descriptors_open() != held) {                                   \
            fprintf(stderr, "%s: %d descriptors before, %d after\n", #test, \
                    held, descriptors_open());                              \
            abort();                                                        \
        }                                                                   \
    } while (0)

#endif
