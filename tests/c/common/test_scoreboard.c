/* The scoreboard: its shape in memory, who may map it, what a death leaves. */
#define _GNU_SOURCE
#include "common/scoreboard.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

#include "check.h"
#include "descriptors.h"

enum { SLOTS = 3, THREADS = 2 };

static Scoreboard
board_open(void)
{
    Scoreboard board;
    const int fd = scoreboard_create(SLOTS, THREADS);
    CHECK(fd >= 0 && descriptors_close_on_exec(fd));
    CHECK(scoreboard_attach(&board, fd) == 0);
    close(fd); /* the mapping stays */
    return board;
}

static void
test_rows_lie_apart_and_fill_the_mapping(void)
{
    Scoreboard b = board_open();
    const char *at = b.base;
    const char *starts[4 + 7 * SLOTS + SLOTS * THREADS];
    size_t sizes[sizeof starts / sizeof starts[0]], count = 0;
#define ROW(pointer)                          \
    (starts[count] = (const char *)(pointer), \
     sizes[count++] = sizeof *(pointer))
    ROW(b.supervisor);
    ROW(b.notice);
    ROW(b.path_times);
    for (uint32_t i = 0; i < SLOTS; i++) {
        ROW(&b.loads[i]);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        ROW(&b.slots[i]);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        ROW(&b.workers[i]);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        for (uint32_t t = 0; t <= THREADS; t++) {
            ROW(scoreboard_thread(&b, i, t));
        }
    }
    ROW(b.carried_supervisor);
    for (uint32_t i = 0; i < SLOTS; i++) {
        ROW(&b.carried_slots[i]);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        ROW(&b.carried_workers[i]);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        ROW(&b.carried_threads[i]);
    }
#undef ROW
    CHECK(b.slot_count == SLOTS && b.thread_count == THREADS);
    CHECK(count == sizeof starts / sizeof starts[0]);
    for (size_t i = 0; i < count; i++) {
        /* One line, one writer: a row begins on a line and ends with one. */
        CHECK((uintptr_t)starts[i] % SCOREBOARD_LINE == 0);
        CHECK(sizes[i] % SCOREBOARD_LINE == 0);
        CHECK(i == 0 ? starts[i] > at : starts[i] == at);
        at = starts[i] + sizes[i];
    }
    CHECK(at == (const char *)b.base + b.size);
    scoreboard_detach(&b);
}

static void
test_a_new_one_is_all_zero_but_for_the_seed(void)
{
    Scoreboard b = board_open(), other = board_open();
    const char *end = (const char *)b.base + b.size;
    CHECK(b.path_times->seed != other.path_times->seed);
    scoreboard_detach(&other);
    b.path_times->seed = 0;
    for (const char *at = (const char *)b.supervisor; at < end; at++) {
        CHECK(*at == 0);
    }
    scoreboard_detach(&b);
    CHECK(b.base == NULL);
    scoreboard_detach(&b); /* twice is harmless */
}

static void
test_what_one_writes_another_reads(void)
{
    const int fd = scoreboard_create(SLOTS, THREADS);
    Scoreboard one, other;
    CHECK(scoreboard_attach(&one, fd) == 0);
    CHECK(scoreboard_attach(&other, fd) == 0);
    word_add(&scoreboard_thread(&one, 2, 1)->bytes_in[0], 7);
    word_add(&scoreboard_thread(&one, 2, 1)->bytes_in[0], 8);
    CHECK(word_get(&scoreboard_thread(&other, 2, 1)->bytes_in[0]) == 15);
    scoreboard_detach(&one);
    CHECK(word_get(&scoreboard_thread(&other, 2, 1)->bytes_in[0]) == 15);
    scoreboard_detach(&other);
    close(fd);
}

static void
refuses(int fd, int error)
{
    Scoreboard board;
    CHECK(scoreboard_attach(&board, fd) == -1);
    CHECK(errno == error);
}

/* Without its seals. */
static int
copy_of(int fd, off_t size)
{
    const int copy = memfd_create("copy", MFD_CLOEXEC);
    off_t from = 0;
    CHECK(copy >= 0 && sendfile(copy, fd, &from, (size_t)size) == size);
    return copy;
}

static void
test_one_that_is_cut_or_grown_is_refused(void)
{
    const int fd = scoreboard_create(SLOTS, THREADS);
    struct stat whole;
    CHECK(fstat(fd, &whole) == 0);
    const off_t sizes[] = {0,
                           1,
                           SCOREBOARD_LINE,
                           whole.st_size / 2,
                           whole.st_size - 1,
                           whole.st_size + 1};
    Scoreboard board;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const int other = copy_of(fd, whole.st_size);
        CHECK(ftruncate(fd, sizes[i]) == -1 && errno == EPERM); /* sealed */
        CHECK(ftruncate(other, sizes[i]) == 0);
        refuses(other, EINVAL);
        close(other);
    }
    CHECK(scoreboard_attach(&board, fd) == 0); /* the measure of them all */
    CHECK(board.size == (size_t)whole.st_size);
    scoreboard_detach(&board);
    close(fd);
}

/* Magic, counts, sizes: nothing in the header may be something else. */
static void
test_one_of_another_layout_is_refused(void)
{
    enum { MEANING = 32 }; /* bytes of the header that are not padding */
    const int fd = scoreboard_create(SLOTS, THREADS);
    for (off_t at = 0; at < MEANING; at++) {
        unsigned char byte, other;
        CHECK(pread(fd, &byte, 1, at) == 1);
        other = byte ^ 0x40;
        CHECK(pwrite(fd, &other, 1, at) == 1);
        refuses(fd, EINVAL);
        CHECK(pwrite(fd, &byte, 1, at) == 1);
    }
    Scoreboard board;
    CHECK(scoreboard_attach(&board, fd) == 0); /* as it was */
    scoreboard_detach(&board);
    close(fd);
}

static void
test_what_is_no_scoreboard_is_refused(void)
{
    const int empty = memfd_create("empty", MFD_CLOEXEC);
    const int zeros = memfd_create("zeros", MFD_CLOEXEC);
    CHECK(ftruncate(zeros, 1 << 20) == 0);
    refuses(empty, EINVAL);
    refuses(zeros, EINVAL);
    close(empty);
    close(zeros);
    refuses(zeros, EBADF);
}

static uint64_t
row_sum(const Word *words, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += word_get(&words[i]);
    }
    return sum;
}

static void
test_burying_folds_what_ran_and_keeps_what_was_counted(void)
{
    enum { NOW = 1000000, BUSY = 300 };
    Scoreboard b = board_open();
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        for (uint32_t t = 0; t <= THREADS; t++) {
            ThreadRow *row = scoreboard_thread(&b, slot, t);
            word_add(row->requests, 5);
            word_add(row->busy_time, BUSY);
            word_set(&row->connections[0], 2);
            word_set(&row->connections[3], (uint64_t)-1);
            atomic_store(&row->current.state, THREAD_APPLICATION);
            strcpy(row->current.path, "/post/mortem");
        }
        /* One runs, one is idle, and one's clock is ahead of ours. */
        word_set(&scoreboard_thread(&b, slot, 0)->current.since, NOW - 50);
        word_set(&scoreboard_thread(&b, slot, THREADS)->current.since, NOW + 9);
        word_set(b.workers[slot].threads, THREADS);
        word_add(b.workers[slot].ticks, 11);
        atomic_store(&b.loads[slot].load, 3);
        atomic_store(&b.loads[slot].limit, 4);
        atomic_store(&b.loads[slot].connections, 5);
    }
    for (int again = 0; again < 2; again++) { /* a second time adds nothing */
        scoreboard_bury(&b, 1, NOW);
        for (uint32_t t = 0; t <= THREADS; t++) {
            const ThreadRow *row = scoreboard_thread(&b, 1, t);
            CHECK(word_get(row->requests) == 5);
            CHECK(word_get(row->busy_time) == (t == 0 ? BUSY + 50 : BUSY));
            CHECK(row_sum(row->connections, 4) == 0);
            CHECK(word_get(&row->current.since) == 0);
            CHECK(row->current.state == THREAD_IDLE);
        }
        CHECK(word_get(b.workers[1].threads) == 0);
        CHECK(word_get(b.workers[1].ticks) == 11);
        CHECK(b.loads[1].load == 0 && b.loads[1].limit == 0);
        CHECK(b.loads[1].connections == 0);
    }
    for (uint32_t slot = 0; slot < SLOTS; slot += 2) { /* the neighbours live */
        CHECK(word_get(scoreboard_thread(&b, slot, 0)->busy_time) == BUSY);
        CHECK(word_get(&scoreboard_thread(&b, slot, 0)->current.since) != 0);
        CHECK(word_get(b.workers[slot].threads) == THREADS);
        CHECK(b.loads[slot].load == 3);
    }
    scoreboard_detach(&b);
}

static void
test_a_histogram_counts_times_and_adds_them_up(void)
{
    Word words[HISTOGRAM_WORDS] = {0};
    histogram_add(words, 0);
    histogram_add(words, 1000);
    histogram_add(words, 1001);
    histogram_add(words, UINT64_MAX / 2);
    CHECK(word_get(&words[0]) == 1);
    CHECK(word_get(&words[histogram_bucket(1000)]) == 2);
    CHECK(word_get(&words[HISTOGRAM_BUCKETS - 1]) == 1);
    CHECK(row_sum(words, HISTOGRAM_BUCKETS) == 4);
    CHECK(word_get(&words[HISTOGRAM_BUCKETS]) == UINT64_MAX / 2 + 2001);
}

int
main(void)
{
    RUN(test_rows_lie_apart_and_fill_the_mapping);
    RUN(test_a_new_one_is_all_zero_but_for_the_seed);
    RUN(test_what_one_writes_another_reads);
    RUN(test_one_that_is_cut_or_grown_is_refused);
    RUN(test_one_of_another_layout_is_refused);
    RUN(test_what_is_no_scoreboard_is_refused);
    RUN(test_burying_folds_what_ran_and_keeps_what_was_counted);
    RUN(test_a_histogram_counts_times_and_adds_them_up);
    return 0;
}
