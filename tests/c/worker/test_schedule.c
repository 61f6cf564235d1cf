/* How many threads are awake: the decisions one by one, then a worker in
 * simulated time that serves calls whose times were recorded. */
#include "worker/schedule.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define MICROSECOND UINT64_C(1000)
#define MILLISECOND UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

static Schedule
new_schedule(int32_t threads, bool parallel)
{
    Schedule s;
    schedule_init(&s, threads, parallel ? threads : 1);
    return s;
}

/* ------------------------------------------------------------------------
 * Decisions */

/* A call alone in its worker; was it measured? */
static bool
runs_alone(Schedule *s, ScheduleMeter *m, uint64_t wall, uint64_t cpu,
           long switches)
{
    const bool measured = schedule_runs(s, m);
    schedule_ran(s, m, wall, measured, cpu, switches);
    return measured;
}

/* Of so many calls of one kind, how many are measured? */
static int
measured_of(int calls, Schedule *s, ScheduleMeter *m, uint64_t wall,
            uint64_t cpu, long switches)
{
    int measured = 0;
    for (int i = 0; i < calls; i++) {
        measured += runs_alone(s, m, wall, cpu, switches);
    }
    return measured;
}

static void
test_calls_are_measured_while_they_are_long(void)
{
    Schedule s = new_schedule(4, false);
    ScheduleMeter m = {0};
    CHECK(!runs_alone(&s, &m, 90 * MICROSECOND, 0, 0));
    CHECK(!runs_alone(&s, &m, MILLISECOND, 0, 0));
    CHECK(runs_alone(&s, &m, MILLISECOND, MILLISECOND, 0)); /* at once */
    /* While they compute, one of eight. */
    CHECK(measured_of(80, &s, &m, MILLISECOND, MILLISECOND, 0) == 10);
    /* Once one has blocked, each; but not for ever. */
    while (!runs_alone(&s, &m, MILLISECOND, 900 * MICROSECOND, 1)) {
    }
    CHECK(measured_of(5, &s, &m, MILLISECOND, 900 * MICROSECOND, 1) == 5);
    CHECK(!schedule_wakes(&s));
    measured_of(100, &s, &m, MILLISECOND, MILLISECOND, 0);
    CHECK(measured_of(80, &s, &m, MILLISECOND, MILLISECOND, 0) == 10);
    /* Short ones a while longer. */
    CHECK(measured_of(1000, &s, &m, MICROSECOND, MICROSECOND, 0) == 8);
}

/* Calls of one kind, until they count as blocking; how many, 0: they do not. */
static int
calls_until_many(Schedule *s, uint64_t wall, uint64_t cpu, long switches)
{
    ScheduleMeter m = {0};
    for (int i = 1; i <= 1000; i++) {
        runs_alone(s, &m, wall, cpu, switches);
        if (schedule_wakes(s)) {
            return i;
        }
    }
    return 0;
}

static void
test_what_counts_as_blocked(void)
{
    static const struct {
        uint64_t wall, cpu;
        long switches;
        bool blocked;
    } calls[] = {
        {10 * MILLISECOND, 50 * MICROSECOND, 1, true}, /* it sleeps */
        {2 * MILLISECOND, MILLISECOND, 2, true},       /* half of it */
        {200 * MICROSECOND, 120 * MICROSECOND, 1, true},
        /* Taken off the processor by others: a second thread is no help. */
        {10 * MILLISECOND, 2 * MILLISECOND, 0, false},
        {10 * MILLISECOND, 10 * MILLISECOND, 1, false}, /* it computes */
        {200 * MICROSECOND, 180 * MICROSECOND, 1, false},
        {90 * MICROSECOND, 5 * MICROSECOND, 1, false}, /* too short to matter */
        /* CPU clocks are coarser than the wall's: never below zero. */
        {200 * MICROSECOND, 201 * MICROSECOND, 1, false},
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        Schedule s = new_schedule(4, false);
        const int took = calls_until_many(&s, calls[i].wall, calls[i].cpu,
                                          calls[i].switches);
        CHECK((took > 0) == calls[i].blocked);
    }
}

static void
test_the_longer_it_blocks_the_sooner_it_shows(void)
{
    Schedule one = new_schedule(4, false), other = new_schedule(4, false);
    const int sleep = calls_until_many(&one, 10 * MILLISECOND, 0, 1);
    const int brief = calls_until_many(&other, 200 * MICROSECOND, 0, 1);
    CHECK(sleep > 0 && sleep <= 2);
    CHECK(brief > sleep && brief <= 10);
}

/* Beside another a call may have waited for the GIL, which looks the same. */
static void
test_only_a_call_that_was_alone_tells(void)
{
    Schedule s = new_schedule(4, false);
    ScheduleMeter one = {0}, other = {0};
    int measured = 0;
    runs_alone(&s, &one, MILLISECOND, MILLISECOND, 0);
    runs_alone(&s, &other, MILLISECOND, MILLISECOND, 0);
    for (int i = 0; i < 100; i++) {
        const bool first = schedule_runs(&s, &one);
        CHECK(!schedule_runs(&s, &other));
        schedule_ran(&s, &one, 10 * MILLISECOND, first, 0, 1);
        schedule_ran(&s, &other, 10 * MILLISECOND, false, 0, 1);
        CHECK(!schedule_wakes(&s));
    }
    /* Nor does one that began and ended as the only one. */
    for (int i = 0; i < 100; i++) {
        const bool first = schedule_runs(&s, &one);
        measured += first;
        CHECK(!schedule_runs(&s, &other));
        schedule_ran(&s, &other, 10 * MILLISECOND, false, 0, 1);
        schedule_ran(&s, &one, 20 * MILLISECOND, first, 0, 1);
        CHECK(!schedule_wakes(&s));
    }
    CHECK(measured > 10);
    CHECK(calls_until_many(&s, 10 * MILLISECOND, 0, 1) > 0); /* alone again */
}

static void
test_without_a_gil_all_may_be_awake(void)
{
    Schedule s = new_schedule(4, true);
    const ScheduleView computing = {.busy = 1, .polled = true};
    ScheduleMeter m = {0};
    CHECK(schedule_wakes(&s));
    runs_alone(&s, &m, MILLISECOND, MILLISECOND, 0);
    schedule_tick(&s, &computing, SECOND);
    schedule_tick(&s, &computing, 100 * SECOND);
    CHECK(schedule_wakes(&s));
}

/* Ticks of a process that uses so many of ten processors' tenths, until the
 * mode is FEW again; in seconds, 0: never. */
static uint64_t
lease_of(uint64_t tenths)
{
    Schedule s = new_schedule(4, false);
    ScheduleView view = {.busy = 1, .polled = true};
    uint64_t now = 1000 * SECOND;
    const uint64_t start = now;
    calls_until_many(&s, 10 * MILLISECOND, 0, 1);
    for (; now < start + 10 * SECOND; now += LADDER_TICK) {
        view.cpu = (now - start) * tenths / 10;
        schedule_tick(&s, &view, now);
        if (!schedule_wakes(&s)) {
            CHECK(s.blocked == 0); /* what it was before is forgotten */
            return (now - start) / SECOND;
        }
    }
    return 0;
}

static void
test_many_is_a_lease_that_an_idle_process_renews(void)
{
    CHECK(lease_of(0) == 0);
    CHECK(lease_of(3) == 0);
    CHECK(lease_of(4) == 1);
    CHECK(lease_of(10) == 1);
}

static void
test_how_much_a_worker_may_be_given(void)
{
    static const struct {
        uint64_t wall;
        int32_t ahead; /* as much as it does within a tick */
    } calls[] = {
        {10 * MICROSECOND, 64},  {100 * MICROSECOND, 20},
        {240 * MICROSECOND, 8},  {260 * MICROSECOND, 7},
        {900 * MICROSECOND, 2},  {1900 * MICROSECOND, 1},
        {2100 * MICROSECOND, 0}, {10 * SECOND, 0},
    };
    Schedule new = new_schedule(4, false);
    CHECK(schedule_limit(&new, 0) == 4); /* nothing is known of it yet */
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        Schedule s = new_schedule(4, false);
        atomic_store(&s.mean,
                     (uint32_t)(calls[i].wall < UINT32_MAX ? calls[i].wall
                                                           : UINT32_MAX));
        /* They compute: one at a time, beside those that hang. */
        CHECK(schedule_width(&s, 0) == 1 && schedule_width(&s, 3) == 4);
        CHECK(schedule_limit(&s, 0) == 1 + calls[i].ahead);
        CHECK(schedule_limit(&s, 2) == 3 + calls[i].ahead);
        CHECK(schedule_limit(&s, 4) == 4);    /* it is pinned */
        atomic_store(&s.mode, SCHEDULE_MANY); /* they block */
        CHECK(schedule_width(&s, 0) == 4 && schedule_width(&s, 4) == 4);
        CHECK(schedule_limit(&s, 0) == 4 + calls[i].ahead);
        CHECK(schedule_limit(&s, 4) == 4);
    }
}

/* Are calls as long as this, as the worker sees them? */
static bool
takes_long(const Schedule *s)
{
    return atomic_load(&s->mean) > 250 * MICROSECOND;
}

/* Its processor was others', or the GIL was: neither makes a call long. */
static void
test_what_makes_no_call_longer(void)
{
    Schedule s = new_schedule(4, false);
    ScheduleMeter one = {0}, other = {0};
    runs_alone(&s, &one, 200 * MICROSECOND, 0, 0);
    for (int i = 0; i < 100; i++) {
        runs_alone(&s, &one, 20 * MILLISECOND, 150 * MICROSECOND, 0);
        const bool first = schedule_runs(&s, &one);
        const bool second = schedule_runs(&s, &other);
        schedule_ran(&s, &other, 5 * MILLISECOND, second, 0, 1);
        schedule_ran(&s, &one, 5 * MILLISECOND, first, 0, 1);
        CHECK(!takes_long(&s));
    }
    CHECK(calls_until_many(&s, 10 * MILLISECOND, 0, 1) > 0);
    CHECK(takes_long(&s)); /* but sleep does, in company as well */
    for (int i = 0; i < 100; i++) {
        const bool first = schedule_runs(&s, &one);
        const bool second = schedule_runs(&s, &other);
        schedule_ran(&s, &other, 100 * MICROSECOND, second, 0, 1);
        schedule_ran(&s, &one, 100 * MICROSECOND, first, 0, 1);
    }
    CHECK(!takes_long(&s));
}

static void
test_the_tick(void)
{
    static const struct {
        const char *why;
        ScheduleView view;
        bool parallel;
        TickDecision decision;
        ScheduleMode after;
    } rows[] = {
        {"nobody works", {.parked = 4}, false, TICK_NOTHING, SCHEDULE_FEW},
        {"a thread looks for events",
         {.busy = 1, .stuck = 1, .asleep = true, .parked = 2, .polled = true},
         false,
         TICK_NOTHING,
         SCHEDULE_FEW},
        {"one has just begun, and will look when it is done",
         {.busy = 2, .stuck = 1, .asleep = true, .parked = 2},
         false,
         TICK_NOTHING,
         SCHEDULE_FEW},
        {"the only one sleeps",
         {.busy = 1, .stuck = 1, .asleep = true, .parked = 3, .longest = 1},
         false,
         TICK_WAKE,
         SCHEDULE_MANY},
        {"the only one computes: another would fight it for the GIL",
         {.busy = 1, .stuck = 1, .parked = 3, .longest = 5 * MILLISECOND},
         false,
         TICK_NOTHING,
         SCHEDULE_FEW},
        {"it computes for long: the others get their turn of the GIL",
         {.busy = 1, .stuck = 1, .parked = 3, .longest = 11 * MILLISECOND},
         false,
         TICK_WAKE,
         SCHEDULE_FEW},
        {"it does, and others serve what comes meanwhile",
         {.busy = 1,
          .stuck = 1,
          .parked = 3,
          .longest = 11 * MILLISECOND,
          .served = true},
         false,
         TICK_NOTHING,
         SCHEDULE_FEW},
        {"it computes, and there is no GIL",
         {.busy = 1, .stuck = 1, .parked = 3, .longest = 5 * MILLISECOND},
         true,
         TICK_WAKE,
         SCHEDULE_MANY},
        {"all sleep",
         {.busy = 4, .stuck = 4, .asleep = true, .longest = SECOND},
         false,
         TICK_NOTHING,
         SCHEDULE_MANY},
        {"all compute, and not for long",
         {.busy = 4, .stuck = 4, .longest = 5 * MILLISECOND},
         false,
         TICK_NOTHING,
         SCHEDULE_FEW},
        {"all compute",
         {.busy = 4, .stuck = 4, .longest = SECOND},
         false,
         TICK_NOTHING,
         SCHEDULE_FEW},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        Schedule s = new_schedule(4, rows[i].parallel);
        if (schedule_tick(&s, &rows[i].view, SECOND) != rows[i].decision ||
            s.mode != rows[i].after) {
            fprintf(stderr, "not so: %s\n", rows[i].why);
            abort();
        }
    }
}

/* A thread that hangs takes no place only once another is awake. */
static void
test_what_is_served_beside_those_that_hang(void)
{
    static const struct {
        ScheduleView view;
        TickDecision decision;
        ScheduleMode mode;
        int32_t beside, width;
    } rows[] = {
        {{.stuck = 1, .parked = 3}, TICK_NOTHING, SCHEDULE_FEW, 0, 1},
        {{.stuck = 1, .parked = 3}, TICK_WAKE, SCHEDULE_FEW, 1, 2},
        {{.stuck = 1, .parked = 2}, TICK_NOTHING, SCHEDULE_FEW, 1, 2},
        {{.stuck = 2, .parked = 2}, TICK_NOTHING, SCHEDULE_FEW, 1, 2},
        {{.stuck = 2, .held = 1, .parked = 0},
         TICK_NOTHING,
         SCHEDULE_FEW,
         3,
         4},
        {{.stuck = 4}, TICK_NOTHING, SCHEDULE_FEW, 4, 4},
        {{.stuck = 1, .parked = 3}, TICK_NOTHING, SCHEDULE_MANY, 1, 4},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        Schedule s = new_schedule(4, false);
        atomic_store(&s.mean, (uint32_t)MILLISECOND);
        atomic_store(&s.mode, rows[i].mode);
        const int32_t beside =
            schedule_beside(&s, &rows[i].view, rows[i].decision);
        CHECK(beside == rows[i].beside);
        CHECK(schedule_width(&s, beside) == rows[i].width);
    }
}

/* ------------------------------------------------------------------------
 * A worker in simulated time
 *
 * Its threads take work by the rules of threads.c and share one GIL by those of
 * CPython: who wants it queues, who has it keeps it for 5 ms at most while
 * others want it. There are always `clients` requests, waiting or running. */

#define SWITCH_INTERVAL (5 * MILLISECOND)
#define MOST_THREADS 16

/* What a call did, in microseconds: half of the computing is done before the
 * wait, and half after it. */
typedef struct {
    uint32_t computes, waits;
} Call;

/* Recorded with CPython 3.11 on an idle machine, eight calls in a row. */
#define RECORDING 8
static const Call hello[RECORDING] = {{1, 0}, {1, 0}, {1, 0}, {1, 0},
                                      {1, 0}, {1, 0}, {1, 0}, {1, 0}};
/* A page that Flask renders. */
static const Call page[RECORDING] = {{73, 0}, {72, 0}, {72, 0}, {71, 0},
                                     {71, 0}, {70, 0}, {71, 0}, {70, 0}};
/* 1,500 hashes, one of the other. */
static const Call compute[RECORDING] = {{329, 0}, {331, 0}, {323, 0}, {339, 0},
                                        {329, 0}, {341, 0}, {343, 0}, {348, 0}};
/* A row inserted and committed with SQLite. */
static const Call insert[RECORDING] = {{209, 462}, {207, 457}, {208, 452},
                                       {212, 484}, {211, 449}, {217, 418},
                                       {210, 430}, {209, 406}};
/* The page, and an answer from a socket after 2 ms. */
static const Call query[RECORDING] = {{155, 2111}, {162, 2088}, {159, 2088},
                                      {160, 2092}, {185, 2091}, {208, 2109},
                                      {251, 2103}, {197, 2094}};
/* time.sleep(0.01) */
static const Call nap[RECORDING] = {{44, 10086}, {35, 10069}, {43, 10085},
                                    {44, 10080}, {45, 10085}, {42, 10079},
                                    {39, 10079}, {40, 10085}};
/* Seven hellos and a nap. */
static const Call mixed[RECORDING] = {{1, 0}, {1, 0}, {1, 0}, {44, 10086},
                                      {1, 0}, {1, 0}, {1, 0}, {1, 0}};

typedef enum { PARKED, POLLING, WANTS_GIL, COMPUTING, WAITING } Doing;

typedef struct {
    Doing doing;
    uint64_t computing; /* still to do before the wait, or the end */
    uint64_t then;      /* to do after the wait */
    uint64_t waiting;   /* how long; 0: it has waited */
    uint64_t until;     /* the end of the wait */
    uint64_t asked;     /* for the GIL: a place in the queue */
    /* Of this call, and of the thread, as the worker sees them. */
    ScheduleMeter meter;
    bool measured;
    uint64_t began;
    uint64_t cpu_before, cpu;
    long switches_before, switches;
    uint64_t sequence, sequence_seen;
} SimThread;

typedef struct {
    Schedule schedule;
    SimThread threads[MOST_THREADS];
    int thread_count;
    int leader;        /* who polls, or -1 */
    int holder;        /* of the GIL, or -1 */
    uint64_t granted;  /* when it got the GIL */
    uint64_t asked;    /* places given in the queue for the GIL */
    uint32_t arriving; /* requests that polling would find */
    uint32_t ready;    /* that were found */
    uint64_t now, tick_at;
    const Call *calls;
    uint32_t turn;
    uint64_t done, wakeups, tick_wakeups;
} Sim;

static void
want_gil(Sim *sim, SimThread *t)
{
    t->doing = WANTS_GIL;
    t->asked = sim->asked++;
    t->switches += sim->holder >= 0;
}

static void
begin_call(Sim *sim, SimThread *t)
{
    const Call *call = &sim->calls[sim->turn++ % RECORDING];
    const uint64_t computes = call->computes * MICROSECOND;
    t->waiting = call->waits * MICROSECOND;
    t->computing = t->waiting ? computes / 2 : computes;
    t->then = computes - t->computing;
    t->measured = schedule_runs(&sim->schedule, &t->meter);
    t->began = sim->now;
    t->cpu_before = t->cpu;
    t->switches_before = t->switches;
    t->sequence++;
    want_gil(sim, t);
}

static int
parked(const Sim *sim)
{
    for (int i = 0; i < sim->thread_count; i++) {
        if (sim->threads[i].doing == PARKED) {
            return i;
        }
    }
    return -1;
}

/* As in threads.c: the next request, or poll for one, or be parked. */
static void
take(Sim *sim, int index)
{
    if (sim->ready == 0 && sim->leader < 0) {
        sim->ready = sim->arriving;
        sim->arriving = 0;
        if (sim->ready == 0) {
            sim->leader = index;
            sim->threads[index].doing = POLLING;
            return;
        }
    }
    if (sim->ready == 0) {
        sim->threads[index].doing = PARKED;
        return;
    }
    sim->ready--;
    begin_call(sim, &sim->threads[index]);
    if (parked(sim) >= 0 && (sim->ready || sim->leader < 0) &&
        schedule_wakes(&sim->schedule)) {
        sim->wakeups++;
        take(sim, parked(sim));
    }
}

static void
arrive(Sim *sim, uint32_t requests)
{
    const int leader = sim->leader;
    sim->arriving += requests;
    if (leader >= 0) {
        sim->leader = -1;
        take(sim, leader);
    }
}

static void
end_call(Sim *sim, int index)
{
    SimThread *t = &sim->threads[index];
    schedule_ran(&sim->schedule, &t->meter, sim->now - t->began, t->measured,
                 t->cpu - t->cpu_before, t->switches - t->switches_before);
    sim->done++;
    t->doing = POLLING; /* on its way: neither busy nor to be woken */
    arrive(sim, 1);
    take(sim, index);
}

static void
tick(Sim *sim)
{
    ScheduleView view = {.polled = sim->leader >= 0, .asleep = true};
    for (int i = 0; i < sim->thread_count; i++) {
        SimThread *t = &sim->threads[i];
        view.cpu += t->cpu;
        view.parked += t->doing == PARKED;
        if (t->doing == PARKED || t->doing == POLLING) {
            continue;
        }
        view.busy++;
        view.asleep = view.asleep && t->doing != COMPUTING;
        if (t->sequence == t->sequence_seen) {
            view.stuck++;
            if (sim->now - t->began > view.longest) {
                view.longest = sim->now - t->began;
            }
        }
        t->sequence_seen = t->sequence;
    }
    switch (schedule_tick(&sim->schedule, &view, sim->now)) {
    case TICK_WAKE:
        sim->tick_wakeups++;
        take(sim, parked(sim));
        break;
    case TICK_NOTHING:
        break;
    }
    sim->tick_at += LADDER_TICK;
}

static void
grant_gil(Sim *sim)
{
    for (int i = 0; i < sim->thread_count; i++) {
        const SimThread *t = &sim->threads[i];
        if (t->doing == WANTS_GIL &&
            (sim->holder < 0 || t->asked < sim->threads[sim->holder].asked)) {
            sim->holder = i;
        }
    }
    if (sim->holder >= 0) {
        sim->threads[sim->holder].doing = COMPUTING;
        sim->granted = sim->now;
    }
}

static bool
gil_is_wanted(const Sim *sim)
{
    for (int i = 0; i < sim->thread_count; i++) {
        if (sim->threads[i].doing == WANTS_GIL) {
            return true;
        }
    }
    return false;
}

static void
earlier(uint64_t *next, uint64_t at)
{
    if (at < *next) {
        *next = at;
    }
}

/* On to the next thing that happens. */
static void
step(Sim *sim)
{
    uint64_t next = sim->tick_at;
    SimThread *holder;
    holder = sim->holder < 0 ? NULL : &sim->threads[sim->holder];
    if (holder) {
        earlier(&next, sim->now + holder->computing);
        if (gil_is_wanted(sim) && sim->granted + SWITCH_INTERVAL > sim->now) {
            earlier(&next, sim->granted + SWITCH_INTERVAL);
        }
    }
    for (int i = 0; i < sim->thread_count; i++) {
        if (sim->threads[i].doing == WAITING) {
            earlier(&next, sim->threads[i].until);
        }
    }
    if (holder) {
        holder->computing -= next - sim->now;
        holder->cpu += next - sim->now;
    }
    sim->now = next;
    for (int i = 0; i < sim->thread_count; i++) {
        SimThread *t = &sim->threads[i];
        if (t->doing == WAITING && t->until <= next) {
            t->computing = t->then;
            want_gil(sim, t);
        }
    }
    if (holder && holder->computing == 0) {
        const int index = sim->holder;
        sim->holder = -1;
        if (holder->waiting) {
            holder->doing = WAITING;
            holder->until = next + holder->waiting;
            holder->waiting = 0;
            holder->switches++;
        } else {
            end_call(sim, index);
        }
    } else if (holder && gil_is_wanted(sim) &&
               next - sim->granted >= SWITCH_INTERVAL) {
        sim->holder = -1;
        want_gil(sim, holder);
        holder->switches++;
    }
    if (sim->holder < 0) {
        grant_gil(sim);
    }
    if (sim->tick_at == next) {
        tick(sim);
    }
}

static Sim
new_sim(int threads, uint32_t clients, const Call *calls)
{
    Sim sim = {.thread_count = threads,
               .leader = -1,
               .holder = -1,
               .tick_at = LADDER_TICK,
               .calls = calls};
    schedule_init(&sim.schedule, threads, 1);
    take(&sim, 0); /* the first polls, the others are parked */
    arrive(&sim, clients);
    grant_gil(&sim);
    return sim;
}

/* Serve such calls for so long; how many were done. */
static uint64_t
serve(Sim *sim, const Call *calls, uint64_t duration)
{
    const uint64_t end = sim->now + duration, before = sim->done;
    sim->calls = calls;
    while (sim->now < end) {
        step(sim);
    }
    return sim->done - before;
}

/* How many are done if all threads are awake from the start. */
static uint64_t
ideal(const Call *calls, int threads, uint64_t duration)
{
    Sim sim = new_sim(threads, 64, calls);
    schedule_init(&sim.schedule, threads, threads);
    return serve(&sim, calls, duration);
}

static void
reaches(uint64_t done, uint64_t wanted, uint64_t percent, const char *what)
{
    if (done * 100 < wanted * percent) {
        fprintf(stderr, "%s: %" PRIu64 " of %" PRIu64 "\n", what, done, wanted);
        abort();
    }
}

static void
test_who_computes_stays_alone(void)
{
    static const Call *const recordings[] = {hello, page, compute};
    for (size_t i = 0; i < sizeof recordings / sizeof recordings[0]; i++) {
        Sim alone = new_sim(1, 64, recordings[i]);
        Sim sim = new_sim(16, 64, recordings[i]);
        CHECK(serve(&sim, recordings[i], SECOND / 4) ==
              serve(&alone, recordings[i], SECOND / 4));
        CHECK(sim.wakeups == 0 && sim.tick_wakeups == 0);
    }
}

static void
test_who_blocks_gets_all_the_threads(void)
{
    static const struct {
        const char *name;
        const Call *calls;
        int threads;
    } cases[] = {
        {"naps", nap, 16},       {"naps", nap, 4},
        {"queries", query, 4},   {"queries", query, 8},
        {"queries", query, 16},  {"inserts", insert, 4},
        {"inserts", insert, 16}, {"hellos and naps", mixed, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Sim sim = new_sim(cases[i].threads, 64, cases[i].calls);
        const uint64_t done = serve(&sim, cases[i].calls, 5 * SECOND);
        reaches(done, ideal(cases[i].calls, cases[i].threads, 5 * SECOND), 97,
                cases[i].name);
    }
}

/* A lease is a second, and begins anew only while the process idles: soon after
 * it has changed, threads that compute wake nobody. */
static void
test_it_follows_an_application_that_changes(void)
{
    Sim sim = new_sim(16, 64, hello);
    for (int i = 0; i < 3; i++) {
        uint64_t wakeups = sim.wakeups;
        serve(&sim, hello, SECOND / 10);
        CHECK(sim.wakeups == wakeups);

        serve(&sim, nap, SECOND / 10);
        reaches(serve(&sim, nap, 2 * SECOND), ideal(nap, 16, 2 * SECOND), 97,
                "naps after hellos");

        serve(&sim, compute, 2 * SECOND);
        wakeups = sim.wakeups;
        serve(&sim, compute, SECOND);
        CHECK(sim.wakeups == wakeups);
    }
}

/* A call that computes for a tenth of a second: what comes behind it shares
 * the GIL with it, and does not wait for its end. */
static void
test_nobody_waits_behind_one_that_computes_for_long(void)
{
    static const Call long_one[RECORDING] = {
        {100000, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}, {1, 0}};
    Sim sim = new_sim(4, 2, long_one);
    uint64_t before;
    while (sim.turn == 0) {
        step(&sim);
    }
    sim.calls = hello;
    before = sim.done;
    while (sim.now < 50 * MILLISECOND) {
        step(&sim);
    }
    CHECK(sim.done > before);
    CHECK(sim.tick_wakeups > 0);
}

int
main(void)
{
    test_calls_are_measured_while_they_are_long();
    test_what_counts_as_blocked();
    test_the_longer_it_blocks_the_sooner_it_shows();
    test_only_a_call_that_was_alone_tells();
    test_without_a_gil_all_may_be_awake();
    test_many_is_a_lease_that_an_idle_process_renews();
    test_how_much_a_worker_may_be_given();
    test_what_makes_no_call_longer();
    test_the_tick();
    test_what_is_served_beside_those_that_hang();
    test_who_computes_stays_alone();
    test_who_blocks_gets_all_the_threads();
    test_it_follows_an_application_that_changes();
    test_nobody_waits_behind_one_that_computes_for_long();
    return 0;
}
