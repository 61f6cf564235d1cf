/* Folders that mounts serve: see folders.h. Pure C. */
#define _GNU_SOURCE
#include "worker/folders.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"

/* As in linux/openat2.h, which machines that build wheels are too old to have.
 */
#define OPENAT2 437
#define NO_MAGIC_LINKS 0x02
#define NO_LINKS 0x04
#define BENEATH 0x08

typedef struct {
    uint64_t flags, mode, resolve;
} OpenHow;

/* O_NONBLOCK: a FIFO, or a device, would wait for somebody else. */
#define READ (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

/* The kernel says EAGAIN if something was renamed while it looked. */
#define TRIES 8

static int
open_beneath(int folder, const char *name, int flags, uint64_t resolve)
{
    OpenHow how = {.flags = (uint64_t)flags, .resolve = resolve};
    long fd = -1;
    for (int i = 0; i < TRIES; i++) {
        fd = syscall(OPENAT2, folder, name, &how, sizeof how);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) {
            break;
        }
    }
    return (int)fd;
}

/* Part by part, following no link: what a kernel before 5.6 can do, and one
 * whose seccomp filter has never heard of openat2. */
static int
walk(int folder, const char *name)
{
    char part[256];
    int at = folder;
    for (;;) {
        const char *slash = strchrnul(name, '/');
        const size_t size = (size_t)(slash - name);
        if (size >= sizeof part) {
            errno = ENAMETOOLONG;
            break;
        }
        memcpy(part, name, size);
        part[size] = '\0';
        const int next =
            openat(at, part,
                   *slash ? O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
                          : READ | O_NOFOLLOW);
        const int error = errno;
        if (at != folder) {
            close(at);
        }
        errno = error;
        if (next < 0 || *slash == '\0') {
            return next;
        }
        at = next;
        name = slash + 1;
    }
    if (at != folder) {
        const int error = errno;
        close(at);
        errno = error;
    }
    return -1;
}

/* All that says how the folder looks outside of what is to be seen is as if
 * there were nothing. */
static int
as_missing(int error)
{
    switch (error) {
    case EPERM:
        return EACCES;
    case EXDEV:
        return ELOOP;
    case ENOTDIR:
    case ENAMETOOLONG:
    case ENXIO: /* a socket */
    case ENODEV:
    case EAGAIN:
    case EBADF: /* a folder that has not been there yet */
        return ENOENT;
    default:
        return error;
    }
}

int
folders_open_file(const Folder *folder, const char *name)
{
    int fd;
    if (folder->is_file) {
        fd = open(name, READ);
    } else if (folder->links == LINKS_ANYWHERE) {
        fd = openat(folder->fd, name, READ);
    } else if (folder->has_beneath) {
        fd = open_beneath(folder->fd, name, READ,
                          BENEATH | NO_MAGIC_LINKS |
                              (folder->links == LINKS_NONE ? NO_LINKS : 0));
    } else {
        fd = walk(folder->fd, name);
    }
    if (fd < 0) {
        errno = as_missing(errno);
    }
    return fd;
}

int
folders_open(Folder *folder)
{
    folder->fd = -1;
    if (folder->is_file) {
        return 0;
    }
    folder->fd = open(folder->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder->fd < 0) { /* below it there is nothing, until there is */
        folder->fd = open("/dev/null", O_PATH | O_CLOEXEC);
    }
    if (folder->fd < 0) {
        return -1;
    }
    const int probe =
        open_beneath(folder->fd, ".", O_PATH | O_CLOEXEC, BENEATH);
    folder->has_beneath =
        probe >= 0 || (errno != ENOSYS && errno != EPERM && errno != E2BIG);
    if (probe >= 0) {
        close(probe);
    }
    return 0;
}

void
folders_close(Folder *folder)
{
    if (folder->fd >= 0) {
        close(folder->fd);
    }
    folder->fd = -1;
}

/* Another folder at the path takes the number of the one before: whoever opens
 * a file in this moment opens it in one of the two. */
static void
look_again(const Folder *folder)
{
    struct stat there, ours;
    if (stat(folder->path, &there) < 0 || !S_ISDIR(there.st_mode) ||
        (fstat(folder->fd, &ours) == 0 && ours.st_ino == there.st_ino &&
         ours.st_dev == there.st_dev)) {
        return;
    }
    const int fd = open(folder->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        dup3(fd, folder->fd, O_CLOEXEC);
        close(fd);
    }
}

void
folders_look(Folder *folder, uint64_t now)
{
    const uint64_t second = now / CLOCK_SECOND;
    uint64_t looked =
        atomic_load_explicit(&folder->looked, memory_order_relaxed);
    if (folder->fd >= 0 && looked != second &&
        atomic_compare_exchange_strong(&folder->looked, &looked, second)) {
        look_again(folder);
    }
}
