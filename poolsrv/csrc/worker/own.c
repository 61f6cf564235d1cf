/* Is a descriptor what it was? See own.h. Pure C. */
#include "worker/own.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "worker/worker_internal.h"

enum { MEMBERS = 7 };

/* One that tells us something, and who waits for it. */
typedef struct {
    int set, fd;
    uint32_t events;
    uint64_t data;
} Member;

static void
list(const Worker *w, Member members[MEMBERS])
{
    const Member all[MEMBERS] = {
        {w->epoll, w->nudge, EPOLLIN | EPOLLET, INDEX_NUDGE},
        {w->watch, w->timer, EPOLLIN, WATCHED_TIMER},
        {w->watch, w->alarm, EPOLLIN, WATCHED_ALARM},
        {w->watch, w->o.signals, EPOLLIN, WATCHED_SIGNALS},
        {w->watch, w->epoll, 0, WATCHED_EPOLL},
        /* What follows leaves its set as the supervisor ends. */
        {w->watch, w->o.lifeline, EPOLLIN, WATCHED_LIFELINE},
        {w->epoll, w->o.channel, EPOLLIN, INDEX_CHANNEL},
    };
    for (int i = 0; i < MEMBERS; i++) {
        members[i] = all[i];
    }
}

static int
add(const Member *m)
{
    struct epoll_event e = {.events = m->events, .data.u64 = m->data};
    return epoll_ctl(m->set, EPOLL_CTL_ADD, m->fd, &e);
}

static OwnFile
file_at(int fd)
{
    struct stat found;
    if (fstat(fd, &found) < 0) {
        return (OwnFile){0};
    }
    return (OwnFile){found.st_dev, found.st_ino};
}

static bool
is_at(const OwnFile *file, int fd)
{
    const OwnFile found = file_at(fd);
    return found.device == file->device && found.number == file->number;
}

int
own_begin(Worker *w)
{
    Member members[MEMBERS];
    list(w, members);
    for (int i = 0; i < MEMBERS; i++) {
        if (add(&members[i]) < 0) {
            return -1;
        }
    }
    w->own = (Own){file_at(w->o.channel), file_at(w->o.bell)};
    return 0;
}

/* A set knows the file behind a number: EEXIST says that it is the same. All
 * files without a name of a kernel look alike to fstat, so that it would not
 * tell another eventfd from ours; the bell is in no set, because each of its
 * rings would cost something in every worker then. */
void
own_check(Worker *w)
{
    Member members[MEMBERS];
    bool ours = is_at(&w->own.bell, w->o.bell);
    if (w->orphan) {
        return; /* it ends, and has given some of them up */
    }
    list(w, members);
    for (int i = 0; ours && i < MEMBERS; i++) {
        ours = members[i].fd == w->o.channel
                   ? is_at(&w->own.channel, w->o.channel)
                   : add(&members[i]) < 0 && errno == EEXIST;
    }
    if (!ours) {
        worker_break(w, EBADF);
    }
}
