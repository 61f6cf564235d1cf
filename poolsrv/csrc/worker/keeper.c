/* The keeper of a worker: see keeper.h. Pure C. */
#define _GNU_SOURCE
#include "worker/keeper.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/channel.h"
#include "common/clock.h"
#include "common/title.h"
#include "worker/places.h"
#include "worker/stream.h"

/* The supervisor never blocks, so it takes what it is sent. If it is stopped,
 * the application's files are not kept open for longer than this. */
#define PATIENCE (5 * CLOCK_SECOND)
/* Too many descriptors are in flight, and no event tells when they arrive. */
#define SEND_PAUSE_MILLISECONDS 1

/* Whoever had neither received a byte of a request nor recorded that it had may
 * have a client that has asked for nothing: an answer would be taken for that
 * to its next request. */
static bool
has_begun(ConnState state)
{
    return state == CONN_PARSE || state == CONN_HEAD || state == CONN_BODY ||
           state == CONN_RUNNING ||
           state == CONN_WRITING; /* it waited for others: see gather.h */
}

Fate
keeper_judge(const Conn *c)
{
    const ConnState state = (ConnState)c->state;
    if (state == CONN_FREE || c->fd < 0) {
        return FATE_NONE;
    }
    switch ((ConnProgress)atomic_load(&c->progress)) {
    case PROGRESS_PASSED_ON:
        return FATE_NONE;
    case PROGRESS_UNREAD:
        return !c->gone && conn_is_unread(state) ? FATE_UNREAD : FATE_CUT;
    case PROGRESS_BEGUN:
        return !c->gone && has_begun(state) ? FATE_LOST : FATE_CUT;
    case PROGRESS_ANSWERED:
        break;
    }
    return FATE_CUT;
}

/* ------------------------------------------------------------------------
 * After the worker's death. The table of descriptors is ours alone. */

typedef struct {
    Conn **items;
    size_t count;
} Found;

/* The connections that do not end with the worker, in a copy of its memory. */
static Found
find(const Keeper *k)
{
    Found found = {NULL, 0};
    const size_t stride = places_stride();
    struct stat info;
    if (fstat(k->places, &info) < 0 || info.st_size == 0) {
        return found;
    }
    const size_t blocks = (size_t)info.st_size / stride;
    char *all = mmap(NULL, blocks * stride, PROT_READ | PROT_WRITE, MAP_PRIVATE,
                     k->places, 0);
    found.items = malloc(blocks * CONN_BLOCK * sizeof *found.items);
    if (all == MAP_FAILED || found.items == NULL) {
        return found;
    }
    for (size_t i = 0; i < blocks; i++) {
        Conn *block = (Conn *)(void *)(all + i * stride);
        for (size_t j = 0; j < CONN_BLOCK; j++) {
            const Fate fate = keeper_judge(&block[j]);
            if (fate == FATE_UNREAD || fate == FATE_LOST) {
                found.items[found.count++] = &block[j];
            }
        }
    }
    return found;
}

static int
compare(const void *one, const void *other)
{
    const int a = *(const int *)one, b = *(const int *)other;
    return (a > b) - (a < b);
}

/* Close all but these: what the application had open, and locked, is for its
 * next process. A kernel before 5.9 closes it when we end, which is soon. */
static void
close_others(int *kept, size_t count)
{
    unsigned from = 0;
    qsort(kept, count, sizeof *kept, compare);
    for (size_t i = 0; i < count; i++) {
        const unsigned fd = (unsigned)kept[i];
        if (fd > from) {
            syscall(SYS_close_range, from, fd - 1, 0);
        }
        from = fd + 1;
    }
    syscall(SYS_close_range, from, ~0U, 0);
}

static void
let_go(const Keeper *k, const Found *found)
{
    int *kept = malloc((found->count + 1) * sizeof *kept);
    if (kept == NULL) {
        return;
    }
    for (size_t i = 0; i < found->count; i++) {
        kept[i] = found->items[i]->fd;
    }
    kept[found->count] = k->channel;
    close_others(kept, found->count + 1);
    free(kept);
}

typedef int Send(int fd, const ChannelMessage *m);

static int
send_batch(int fd, const ChannelMessage *m)
{
    return channel_send(fd, &m->batch);
}

/* False: nobody takes it. */
static bool
send_back(const Keeper *k, Send *by, const ChannelMessage *m, uint64_t until)
{
    while (by(k->channel, m) < 0) {
        struct pollfd room = {.fd = k->channel, .events = POLLOUT};
        if ((errno != EAGAIN && errno != EWOULDBLOCK) || clock_now() > until) {
            return false;
        }
        poll(&room, 1, SEND_PAUSE_MILLISECONDS);
        poll(NULL, 0, SEND_PAUSE_MILLISECONDS);
    }
    return true;
}

static void
give_back(const Keeper *k, const Found *found, uint64_t now)
{
    ChannelMessage m = {.header = {.kind = CHANNEL_HAND_BACK}};
    for (size_t i = 0; i < found->count; i++) {
        Conn *c = found->items[i];
        if (keeper_judge(c) != FATE_UNREAD) {
            continue;
        }
        /* Of one that nobody owns no event has been seen. */
        if (!(atomic_load(&c->word) & CONN_OWNED)) {
            c->ready = now;
        }
        m.fds[m.header.count] = c->fd;
        m.items[m.header.count++] = conn_item(c, now);
        if (m.header.count == CHANNEL_BATCH) {
            if (!send_back(k, send_batch, &m, now + PATIENCE)) {
                return;
            }
            m.header.count = 0;
        }
    }
    if (m.header.count) {
        send_back(k, send_batch, &m, now + PATIENCE);
    }
}

static void
copy_text(char *to, size_t room, const char *from)
{
    memcpy(to, from, room);
    to[room - 1] = '\0';
}

/* What the thread that ran it has written of it. */
static LostNote
note_of(const Keeper *k, const Scoreboard *board, const Conn *c)
{
    LostNote note = {0};
    if (c->state == CONN_RUNNING && board->base &&
        k->slot < board->slot_count && c->thread < board->thread_count) {
        const Current *current =
            &scoreboard_thread(board, k->slot, c->thread)->current;
        note.since = word_get(&current->since);
        copy_text(note.method, sizeof note.method, current->method);
        copy_text(note.path, sizeof note.path, current->path);
        copy_text(note.request_id, sizeof note.request_id, current->request_id);
    }
    return note;
}

static void
give_lost(const Keeper *k, const Scoreboard *board, const Found *found,
          uint64_t now)
{
    ChannelMessage m = {.header = {.kind = CHANNEL_LOST, .count = 1}};
    for (size_t i = 0; i < found->count; i++) {
        const Conn *c = found->items[i];
        if (keeper_judge(c) != FATE_LOST) {
            continue;
        }
        m.fds[0] = c->fd;
        m.items[0] = c->item;
        m.note = note_of(k, board, c);
        if (!send_back(k, channel_send_lost, &m, now + PATIENCE)) {
            return;
        }
    }
}

static void
settle(const Keeper *k)
{
    const uint64_t now = clock_now();
    const Found found = find(k);
    Scoreboard board;
    if (found.count == 0) {
        return;
    }
    if (scoreboard_attach(&board, k->board) < 0) {
        board.base = NULL;
    }
    let_go(k, &found);
    /* First what the next worker in the slot would write over. */
    give_lost(k, &board, &found, now);
    give_back(k, &found, now);
}

/* The whole life of the keeper. */
static _Noreturn void
keep(const Keeper *k, const char *name, const char *title)
{
    struct pollfd life = {.fd = k->life, .events = POLLIN};
    prctl(PR_SET_NAME, name);
    title_write(title);
    /* The file stays in our hands if the application closes what is not its
     * own: then nothing can be given back, and nothing is waited for. */
    while (poll(&life, 1, -1) <= 0) {
    }
    /* The number may be another file's by now: to settle while the worker lives
     * would end it. */
    if (life.revents & POLLIN && getppid() != k->worker) {
        settle(k);
    }
    _exit(0);
}

/* ------------------------------------------------------------------------ */

pid_t
keeper_start(Keeper *k, const char *name, const char *title)
{
    sigset_t all, before;
    pid_t pid = -1;
    k->worker = getpid();
    k->life = (int)syscall(SYS_pidfd_open, k->worker, 0);
    k->places = memfd_create("poolsrv-connections", MFD_CLOEXEC);
    if (k->life >= 0 && k->places >= 0) {
        /* It keeps all signals blocked: those that end the worker, and all
         * processes of a group, are not for it. No signal tells of its end,
         * and an application that waits for any child does not see it. */
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, &before);
        pid = (pid_t)syscall(SYS_clone, CLONE_FILES, NULL, NULL, NULL, NULL);
        if (pid == 0) {
            keep(k, name, title);
        }
        sigprocmask(SIG_SETMASK, &before, NULL);
    }
    if (pid < 0) {
        const int error = errno;
        for (int i = 0; i < 2; i++) {
            const int fd = i ? k->places : k->life;
            if (fd >= 0) {
                close(fd);
            }
        }
        errno = error;
    }
    return pid;
}

void
keeper_dismiss(pid_t keeper)
{
    if (kill(keeper, SIGKILL) == 0) {
        /* Of a child whose end is no signal only this flag tells. */
        while (waitpid(keeper, NULL, __WALL) < 0 && errno == EINTR) {
        }
    }
}
