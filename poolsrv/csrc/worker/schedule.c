/* How many threads of a worker should be awake. Pure C; see schedule.h. */
#include "worker/schedule.h"

/* After a long call, so many are measured. */
#define MEASURED_CALLS 64
/* While they do not block, one of so many: to measure a Flask page of 170 us
 * cost 1 to 2 % of it. */
#define MEASURED_EACH 8
/* Requests sent ahead, at most: as many as one message carries. */
#define AHEAD_MOST 64

/* In `calls`. */
#define ONE_BEGUN (UINT64_C(1) << 32)

static uint32_t
load32(const _Atomic uint32_t *word)
{
    return atomic_load_explicit((_Atomic uint32_t *)word, memory_order_relaxed);
}

/* Threads may overwrite each other's sample; a mean survives that. */
static uint32_t
mean_add(_Atomic uint32_t *mean, uint64_t sample)
{
    int64_t old = load32(mean);
    int64_t new = sample > UINT32_MAX ? UINT32_MAX : (int64_t)sample;
    new = old + (new - old) / 16;
    atomic_store_explicit(mean, (uint32_t)new, memory_order_relaxed);
    return (uint32_t)new;
}

static void
set_mode(Schedule *s, ScheduleMode mode)
{
    atomic_store_explicit(&s->mode, mode, memory_order_relaxed);
}

void
schedule_init(Schedule *s, int32_t threads, int32_t locks)
{
    const bool parallel = locks > 1 && locks >= threads;
    *s = (Schedule){.parallel = parallel, .threads = threads, .locks = locks};
    set_mode(s, parallel ? SCHEDULE_MANY : SCHEDULE_FEW);
}

bool
schedule_runs(Schedule *s, ScheduleMeter *meter)
{
    const uint64_t before = atomic_fetch_add_explicit(
        &s->calls[meter->lock], ONE_BEGUN + 1, memory_order_relaxed);
    meter->call = (uint32_t)((before + ONE_BEGUN) >> 32);
    meter->alone = (uint32_t)before == 0;
    if (!meter->alone || meter->measure == 0 ||
        (meter->skipped++ % MEASURED_EACH != 0 &&
         load32(&s->blocked) < LADDER_BLOCKED_LITTLE)) {
        return false;
    }
    return true;
}

void
schedule_ran(Schedule *s, ScheduleMeter *meter, uint64_t wall, bool measured,
             uint64_t cpu, long switches)
{
    const uint64_t before = atomic_fetch_sub_explicit(&s->calls[meter->lock], 1,
                                                      memory_order_relaxed);
    /* The only one at its end, as at its beginning, and none began between. */
    const bool alone = meter->alone && (uint32_t)before == 1 &&
                       (uint32_t)(before >> 32) == meter->call;
    /* Others had its processor: that makes a call no longer. */
    const bool preempted = measured && switches == 0 && cpu < wall;
    uint64_t blocked = 0;

    /* Beside another it may have waited for the GIL; but those that block are
     * never alone, and what they wait for is their length. */
    if (schedule_wakes(s) || (alone && (measured || wall <= LADDER_MEASURED))) {
        mean_add(&s->mean, preempted ? cpu : wall);
    }
    if (wall > LADDER_MEASURED) {
        if (meter->measure == 0) {
            meter->skipped = 0;
        }
        meter->measure = MEASURED_CALLS;
    } else if (meter->measure) {
        meter->measure--;
    }
    if (measured && !alone) {
        return; /* it may have waited for the GIL */
    }
    if (measured && switches > 0 && wall > cpu) {
        blocked = wall - cpu;
    }
    if (!measured && (wall > LADDER_MEASURED || load32(&s->blocked) == 0)) {
        return; /* it tells nothing, or nothing new */
    }
    if (mean_add(&s->blocked, blocked) > LADDER_BLOCKED) {
        set_mode(s, SCHEDULE_MANY);
    }
}

void
schedule_left(Schedule *s, const ScheduleMeter *meter)
{
    atomic_fetch_sub_explicit(&s->calls[meter->lock], 1, memory_order_relaxed);
}

bool
schedule_wakes(const Schedule *s)
{
    return load32(&s->mode) == SCHEDULE_MANY;
}

/* MANY ends unless the process idles: see schedule.h. */
static void
renew(Schedule *s, const ScheduleView *view, uint64_t now)
{
    const bool idle = s->lease && (view->cpu - s->cpu) <
                                      LADDER_LEASE / 3 * (uint64_t)s->locks;
    if (s->lease > now ||
        view->cpu == 0) { /* the mode is newer than the view */
        return;
    }
    if (s->lease && !idle) {
        atomic_store_explicit(&s->blocked, 0, memory_order_relaxed);
        set_mode(s, SCHEDULE_FEW);
        s->lease = 0;
        return;
    }
    s->lease = now + LADDER_LEASE;
    s->cpu = view->cpu;
}

int32_t
schedule_width(const Schedule *s, int32_t stuck)
{
    /* Calls that compute are served one at a time, whatever their number. What
     * hangs takes its place with it. */
    if (s->parallel || schedule_wakes(s) || load32(&s->mean) == 0 ||
        stuck >= s->threads) {
        return s->threads;
    }
    return stuck + s->locks < s->threads ? stuck + s->locks : s->threads;
}

int32_t
schedule_limit(const Schedule *s, int32_t stuck)
{
    const uint32_t mean = load32(&s->mean);
    uint64_t ahead = 0;
    if (mean && stuck < s->threads) {
        ahead = LADDER_TICK / mean;
    }
    return schedule_width(s, stuck) +
           (int32_t)(ahead < AHEAD_MOST ? ahead : AHEAD_MOST);
}

TickDecision
schedule_tick(Schedule *s, const ScheduleView *view, uint64_t now)
{
    if (!s->parallel && load32(&s->mode) == SCHEDULE_MANY) {
        renew(s, view, now);
    }
    if (view->polled || view->stuck == 0 || view->stuck < view->busy) {
        return TICK_NOTHING; /* somebody looks, or soon will */
    }
    if (view->asleep) {
        set_mode(s, SCHEDULE_MANY);
    }
    if (!view->parked) {
        return TICK_NOTHING;
    }
    if (view->asleep || s->parallel) {
        return TICK_WAKE;
    }
    /* A rival would have others wait for the GIL, who have a thread elsewhere.
     */
    return view->longest >= LADDER_COMPUTING && !view->served ? TICK_WAKE
                                                              : TICK_NOTHING;
}

int32_t
schedule_beside(const Schedule *s, const ScheduleView *view,
                TickDecision decision)
{
    const int32_t stuck = view->stuck + view->held;
    const int32_t awake =
        s->threads - view->parked + (decision == TICK_WAKE ? 1 : 0);
    if (schedule_wakes(s) || stuck >= s->threads || stuck + s->locks <= awake) {
        return stuck;
    }
    return awake > s->locks ? awake - s->locks : 0;
}
