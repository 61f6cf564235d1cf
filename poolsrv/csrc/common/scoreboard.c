/* Laying out, mapping and folding the scoreboard. Pure C. */
#define _GNU_SOURCE
#include "common/scoreboard.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* "poolsrv" and a digit that changes with the layout's meaning; the sizes of
 * the rows, which the header carries too, catch what the digit forgets. */
#define MAGIC UINT64_C(0x327672736c6f6f70)

typedef struct {
    _Alignas(SCOREBOARD_LINE) uint64_t magic;
    uint32_t slot_count;
    uint32_t thread_count;
    uint64_t row_sizes; /* of all kinds of rows, added up */
    uint64_t size;
} Header;

typedef struct {
    size_t supervisor, notice, path_times, loads, slots, workers, threads;
    size_t carried_supervisor, carried_slots, carried_workers, carried_threads;
    size_t end;
} Layout;

static Layout
layout(uint32_t slots, uint32_t threads)
{
    Layout at;
    at.supervisor = sizeof(Header);
    at.notice = at.supervisor + sizeof(SupervisorRow);
    at.path_times = at.notice + sizeof(NoticeLine);
    at.loads = at.path_times + sizeof(PathTimes);
    at.slots = at.loads + slots * sizeof(LoadLine);
    at.workers = at.slots + slots * sizeof(SlotRow);
    at.threads = at.workers + slots * sizeof(WorkerRow);
    at.carried_supervisor =
        at.threads + (size_t)slots * (threads + 1) * sizeof(ThreadRow);
    at.carried_slots = at.carried_supervisor + sizeof(SupervisorRow);
    at.carried_workers = at.carried_slots + slots * sizeof(SlotRow);
    at.carried_threads = at.carried_workers + slots * sizeof(WorkerRow);
    at.end = at.carried_threads + slots * sizeof(ThreadRow);
    return at;
}

static const uint64_t row_sizes = sizeof(Header) + sizeof(SupervisorRow) +
                                  sizeof(NoticeLine) + sizeof(PathTimes) +
                                  sizeof(LoadLine) + sizeof(SlotRow) +
                                  sizeof(WorkerRow) + sizeof(ThreadRow);

int
scoreboard_create(uint32_t slots, uint32_t threads)
{
    Header header = {.magic = MAGIC,
                     .slot_count = slots,
                     .thread_count = threads,
                     .row_sizes = row_sizes,
                     .size = layout(slots, threads).end};
    const size_t path_times = layout(slots, threads).path_times;
    uint64_t seed;
    int fd =
        memfd_create("poolsrv-scoreboard", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -1;
    }
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed ||
        ftruncate(fd, (off_t)header.size) < 0 ||
        pwrite(fd, &header, sizeof header, 0) != (ssize_t)sizeof header ||
        pwrite(fd, &seed, sizeof seed,
               (off_t)(path_times + offsetof(PathTimes, seed))) !=
            (ssize_t)sizeof seed) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    /* If somebody cut the file short, the next access would be a SIGBUS in
     * every process. Where the kernel knows no seals, only our own processes
     * have the file. */
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return fd;
}

void
scoreboard_leave(void *argument)
{
    const Scoreboard *board = argument;
    mmap(board->base, board->size, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

int
scoreboard_attach(Scoreboard *board, int fd)
{
    struct stat info;
    Header header;
    Layout at;
    char *base;

    if (fstat(fd, &info) < 0) {
        return -1;
    }
    if (pread(fd, &header, sizeof header, 0) != (ssize_t)sizeof header ||
        header.magic != MAGIC || header.row_sizes != row_sizes ||
        header.size != layout(header.slot_count, header.thread_count).end ||
        (uint64_t)info.st_size != header.size) {
        errno = EINVAL;
        return -1;
    }
    base = mmap(NULL, header.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        return -1;
    }
    at = layout(header.slot_count, header.thread_count);
    *board = (Scoreboard){
        .base = base,
        .size = header.size,
        .slot_count = header.slot_count,
        .thread_count = header.thread_count,
        .supervisor = (SupervisorRow *)(void *)(base + at.supervisor),
        .notice = (NoticeLine *)(void *)(base + at.notice),
        .path_times = (PathTimes *)(void *)(base + at.path_times),
        .loads = (LoadLine *)(void *)(base + at.loads),
        .slots = (SlotRow *)(void *)(base + at.slots),
        .workers = (WorkerRow *)(void *)(base + at.workers),
        .threads = (ThreadRow *)(void *)(base + at.threads),
        .carried_supervisor =
            (SupervisorRow *)(void *)(base + at.carried_supervisor),
        .carried_slots = (SlotRow *)(void *)(base + at.carried_slots),
        .carried_workers = (WorkerRow *)(void *)(base + at.carried_workers),
        .carried_threads = (ThreadRow *)(void *)(base + at.carried_threads),
    };
    return 0;
}

void
scoreboard_detach(Scoreboard *board)
{
    if (board->base) {
        munmap(board->base, board->size);
    }
    *board = (Scoreboard){0};
}

void
scoreboard_bury(Scoreboard *board, uint32_t slot, uint64_t now)
{
    uint32_t i;
    for (i = 0; i <= board->thread_count; i++) {
        ThreadRow *row = scoreboard_thread(board, slot, i);
        uint64_t since = word_get(&row->current.since);
        size_t state;
        if (since && now > since) {
            word_add(&row->busy_time[0], now - since);
        }
        word_set(&row->current.since, 0);
        atomic_store(&row->current.state, THREAD_IDLE);
        for (state = 0; state < sizeof row->connections / sizeof(Word);
             state++) {
            word_set(&row->connections[state], 0);
        }
    }
    word_set(&board->workers[slot].threads[0], 0);
    if (word_get(&board->workers[slot].keeper[0]) == 0) {
        /* Their requests were unread, but their descriptors went with it. */
        word_add(&board->supervisor->closed[CLOSED_WORKER],
                 word_get(&board->workers[slot].waiting[0]));
    }
    word_set(&board->workers[slot].keeper[0], 0);
    word_set(&board->workers[slot].waiting[0], 0);
    word_set(&board->workers[slot].leaving[0], 0);
    word_set(&board->workers[slot].waiting_since[0], 0);
    word_set(&board->workers[slot].buffered[0], 0);
    word_set(&board->workers[slot].spooled[0], 0);
    word_set(&board->workers[slot].waiting_rank[0], 0);
    word_set(&board->workers[slot].waiting_slow_rank[0], 0);
    atomic_store(&board->loads[slot].load, 0);
    atomic_store(&board->loads[slot].limit, 0);
    atomic_store(&board->loads[slot].width, 0);
    atomic_store(&board->loads[slot].connections, 0);
    atomic_store(&board->loads[slot].most, 0);
}

ChoiceWorker
scoreboard_view(const Scoreboard *board, uint32_t slot)
{
    LoadLine *line = &board->loads[slot];
    return (ChoiceWorker){
        .load = atomic_load(&line->load),
        .limit = atomic_load(&line->limit),
        .width = atomic_load(&line->width),
        .waiting = (int32_t)word_get(board->workers[slot].waiting),
        .connections = atomic_load(&line->connections),
        .rank = word_get(board->workers[slot].waiting_rank),
        .slow_rank = word_get(board->workers[slot].waiting_slow_rank),
    };
}
