/* The scoreboard's tables: every number that is counted, and every value of
 * its labels, stands here once.
 *
 * From a list of values derive the enum that C counts by, the words of the
 * field, the label's text in metrics and pages, and what tests name. From a
 * table of fields derive the row's struct, Python's view of it
 * (`_core.FIELDS`), the metrics and METRICS.md.
 */
#ifndef POOLSRV_SCOREBOARD_FIELDS_H
#define POOLSRV_SCOREBOARD_FIELDS_H

#include "common/histogram.h"
#include "common/status.h"

/* ------------------------------------------------------------------------
 * Values of labels: X(name, text) */

/* Why the supervisor closed a connection. */
#define CLOSED_REASONS(X)                      \
    X(CLOSED_CLIENT, "client")                 \
    X(CLOSED_KEEP_ALIVE, "keep_alive_timeout") \
    X(CLOSED_HEADER, "header_timeout")         \
    X(CLOSED_QUEUE_TIMEOUT, "queue_timeout")   \
    X(CLOSED_QUEUE_FULL, "queue_full")         \
    X(CLOSED_EVICTED, "evicted")               \
    X(CLOSED_STOPPING, "stopping")             \
    X(CLOSED_WORKER, "worker_ended")

/* Why a worker ended; `pool.Reason` of the supervisor has these numbers. */
#define RESTART_REASONS(X)        \
    X(RESTART_EXIT, "exit")       \
    X(RESTART_SIGNAL, "signal")   \
    X(RESTART_OOM, "oom")         \
    X(RESTART_STARTUP, "startup") \
    X(RESTART_HANG, "hang")       \
    X(RESTART_RECYCLE, "recycle")

#define RELOAD_OUTCOMES(X) \
    X(RELOAD_DONE, "done") \
    X(RELOAD_FAILED, "failed")

#define UPGRADE_OUTCOMES(X) \
    X(UPGRADE_DONE, "done") \
    X(UPGRADE_FAILED, "failed")

/* The first digit of a status is the number of its class. */
#define STATUS_CLASSES(X) \
    X(STATUS_1XX, "1xx")  \
    X(STATUS_2XX, "2xx")  \
    X(STATUS_3XX, "3xx")  \
    X(STATUS_4XX, "4xx")  \
    X(STATUS_5XX, "5xx")

/* Which limit made a worker close a connection. */
#define LIMITS(X)                     \
    X(LIMIT_HEADER, "header_timeout") \
    X(LIMIT_BODY, "body_timeout")     \
    X(LIMIT_SEND, "send_timeout")     \
    X(LIMIT_REQUESTS, "keep_alive_requests")

/* How a request ended whose application gave no sign of life. */
#define TIMED_OUT_OUTCOMES(X)               \
    X(TIMED_OUT_INTERRUPTED, "interrupted") \
    X(TIMED_OUT_LOST, "lost")

/* Why a connection that must begin with a PROXY header was closed. */
#define UNPROXIED_REASONS(X)            \
    X(UNPROXIED_UNTRUSTED, "untrusted") \
    X(UNPROXIED_MALFORMED, "malformed")

/* Of which log lines were lost. */
#define LOGS(X)               \
    X(LINES_SERVER, "server") \
    X(LINES_ACCESS, "access")

/* In which state a connection in a worker is seen. */
#define SEEN_STATES(X)         \
    X(SEEN_IDLE, "idle")       \
    X(SEEN_READING, "reading") \
    X(SEEN_RUNNING, "running") \
    X(SEEN_WRITING, "writing") \
    X(SEEN_UPGRADED, "upgraded")

#define SCOREBOARD_ENUM(name, text) name,
/* "|a|b": behind the name of the label. */
#define SCOREBOARD_TEXT(name, text) "|" text

typedef enum { CLOSED_REASONS(SCOREBOARD_ENUM) CLOSED_COUNT } Closed;
typedef enum { RESTART_REASONS(SCOREBOARD_ENUM) RESTART_COUNT } Restart;
typedef enum {
    RELOAD_OUTCOMES(SCOREBOARD_ENUM) RELOAD_OUTCOME_COUNT
} ReloadOutcome;
typedef enum {
    UPGRADE_OUTCOMES(SCOREBOARD_ENUM) UPGRADE_OUTCOME_COUNT
} UpgradeOutcome;
typedef enum { STATUS_CLASSES(SCOREBOARD_ENUM) STATUS_CLASS_COUNT } StatusClass;

/* Requests that the server answers itself, by status: REFUSED_400 and so on. */
#define REFUSED_ENUM(status, phrase) REFUSED_##status,
#define REFUSED_TEXT(status, phrase) "|" #status

typedef enum { STATUS_PHRASES(REFUSED_ENUM) REFUSED_COUNT } Refused;

typedef enum { LIMITS(SCOREBOARD_ENUM) LIMIT_COUNT } Limit;
typedef enum { TIMED_OUT_OUTCOMES(SCOREBOARD_ENUM) TIMED_OUT_COUNT } TimedOut;
typedef enum { UNPROXIED_REASONS(SCOREBOARD_ENUM) UNPROXIED_COUNT } Unproxied;
typedef enum { LOGS(SCOREBOARD_ENUM) LOG_COUNT } Log;
typedef enum { SEEN_STATES(SCOREBOARD_ENUM) SEEN_COUNT } ConnSeen;

#undef SCOREBOARD_ENUM
#undef REFUSED_ENUM

/* ------------------------------------------------------------------------
 * Fields: F(field, kind, words, unit, metric, label, help)
 *
 * kind    COUNTER only grows; GAUGE may fall (a thread's gauges are signed
 *         shares: only their sum means something); HISTOGRAM.
 * unit    "" | "seconds" (stored as nanoseconds) | "bytes"
 * metric  the name without the prefix poolsrv_ and without _total; "" if the
 *         field is not exported under a name of its own.
 * label   "name|a|b|c" for a field of several words: one value a word. */

/* The supervisor refuses those that wait in vain, threads those that they
 * cannot read. Fields of one metric are one metric. */
#define REFUSED_HELP                                                       \
    "Requests that the server answered itself, by status: those that the " \
    "application never saw, or whose body could not be read"

/* Nobody waits for a log: what its reader does not take at once is dropped. */
#define LINES_LOST_HELP                                                  \
    "Lines that could not be written: nobody read them fast enough, or " \
    "the disk was full"

#define SCOREBOARD_SUPERVISOR_FIELDS(F)                                        \
    F(accepted, COUNTER, 1, "", "connections_accepted", "",                    \
      "Connections accepted from the listeners")                               \
    F(dispatched, COUNTER, 1, "", "connections_dispatched", "",                \
      "Connections passed to a worker")                                        \
    F(handed_back, COUNTER, 1, "", "connections_handed_back", "",              \
      "Connections that a worker gave back to the supervisor")                 \
    F(switched, COUNTER, 1, "", "group_switches", "",                          \
      "Connections that a worker gave back because their next request was "    \
      "for another group")                                                     \
    F(reclaimed, COUNTER, 1, "", "connections_reclaimed", "",                  \
      "Connections taken back from a worker that ended before it had them")    \
    F(closed, COUNTER, CLOSED_COUNT, "", "connections_closed",                 \
      "reason" CLOSED_REASONS(SCOREBOARD_TEXT),                                \
      "Connections that the supervisor closed, by reason; worker_ended: the "  \
      "worker had begun their request, or had no keeper")                      \
    F(refused, COUNTER, REFUSED_COUNT, "", "requests_refused",                 \
      "status" STATUS_PHRASES(REFUSED_TEXT), REFUSED_HELP)                     \
    F(accept_errors, COUNTER, 1, "", "accept_errors", "",                      \
      "Times accepting failed for want of descriptors or memory")              \
    F(parked, GAUGE, 1, "", "", "", "Idle connections held by the supervisor") \
    F(queue_length, GAUGE, 1, "", "", "",                                      \
      "Connections with a request that wait in it for a thread")               \
    F(overtook, COUNTER, 1, "", "queue_overtakings", "",                       \
      "Requests that left the queue before one that had waited longer")        \
    F(queue_since, GAUGE, 1, "seconds", "", "",                                \
      "Monotonic time since which the first of the queue waits, 0 if none")    \
    F(loop_busy, COUNTER, 1, "seconds", "supervisor_loop_busy_seconds", "",    \
      "Time the supervisor's loop worked rather than waited")                  \
    F(loop_lag, HISTOGRAM, HISTOGRAM_WORDS, "seconds",                         \
      "supervisor_loop_lag_seconds", "",                                       \
      "Time from one wait of the supervisor's loop to the next")               \
    F(state, GAUGE, 1, "", "", "",                                             \
      "lifecycle.ServerState of the server: starting, serving, draining")      \
    F(generation, GAUGE, 1, "", "generation", "",                              \
      "Number of the newest generation that serves")                           \
    F(maintenance, GAUGE, 1, "", "maintenance", "",                            \
      "1 while the file of maintenance-file is there, else 0")                 \
    F(wanted, GAUGE, 1, "", "workers_configured", "",                          \
      "Workers that are wanted")                                               \
    F(reloads, COUNTER, RELOAD_OUTCOME_COUNT, "", "reloads",                   \
      "outcome" RELOAD_OUTCOMES(SCOREBOARD_TEXT),                              \
      "Reloads that ended, by outcome; of those that failed the log says why") \
    F(lines_lost, COUNTER, LOG_COUNT, "", "log_lines_lost",                    \
      "log" LOGS(SCOREBOARD_TEXT), LINES_LOST_HELP)                            \
    F(upgrades, COUNTER, UPGRADE_OUTCOME_COUNT, "", "upgrades",                \
      "outcome" UPGRADE_OUTCOMES(SCOREBOARD_TEXT),                             \
      "Upgrades of the server itself that ended, by outcome; of those that "   \
      "failed the log says why")                                               \
    F(inherited, COUNTER, 1, "", "connections_inherited", "",                  \
      "Connections taken over from the supervisor before this one")            \
    F(faults, COUNTER, 1, "", "supervisor_faults", "",                         \
      "Events that the supervisor could not deal with; the log says why")      \
    F(started_at, GAUGE, 1, "seconds", "", "",                                 \
      "Monotonic time of the supervisor's start")

#define SCOREBOARD_SLOT_FIELDS(F)                                  \
    F(state, GAUGE, 1, "", "", "", "lifecycle.State of the slot")  \
    F(pid, GAUGE, 1, "", "", "", "Process in the slot, 0 if none") \
    F(slot_generation, GAUGE, 1, "", "worker_generation", "",      \
      "Generation of the worker in the slot")                      \
    F(spawned_at, GAUGE, 1, "seconds", "", "",                     \
      "Monotonic time the process in the slot was started")        \
    F(ready_at, GAUGE, 1, "seconds", "", "",                       \
      "Monotonic time it became ready, 0 if it is not")            \
    F(restarts, COUNTER, RESTART_COUNT, "", "worker_restarts",     \
      "reason" RESTART_REASONS(SCOREBOARD_TEXT),                   \
      "Workers that ended and were replaced, by reason")

#define SCOREBOARD_WORKER_FIELDS(F)                                            \
    F(threads, GAUGE, 1, "", "threads", "", "Request threads of the worker")   \
    F(keeper, GAUGE, 1, "", "", "",                                            \
      "Process that gives its unread connections back when it is dead, 0 if "  \
      "there is none")                                                         \
    F(ticks, COUNTER, 1, "", "worker_watch_ticks", "",                         \
      "Times the main thread looked after busy threads")                       \
    F(stood_in, COUNTER, 1, "", "worker_stand_ins", "",                        \
      "Times the main thread polled because all threads were busy")            \
    F(gathered, COUNTER, 1, "", "answers_gathered", "",                        \
      "Answers that went out together with others, since requests waited")     \
    F(waiting, GAUGE, 1, "", "", "",                                           \
      "Connections with an unread request that wait in it for a thread")       \
    F(leaving, GAUGE, 1, "", "", "",                                           \
      "Of those that waited, how many it is giving back")                      \
    F(waiting_since, GAUGE, 1, "seconds", "", "",                              \
      "Monotonic time since which the first of those waits, 0 if none")        \
    F(waiting_rank, GAUGE, 1, "seconds", "", "",                               \
      "Lowest rank of those on kept connections (choice.h), 0 if none")        \
    F(waiting_slow_rank, GAUGE, 1, "seconds", "", "",                          \
      "The same of those that are slow")                                       \
    F(lines_lost, COUNTER, LOG_COUNT, "", "log_lines_lost",                    \
      "log" LOGS(SCOREBOARD_TEXT), LINES_LOST_HELP)                            \
    F(buffered, GAUGE, 1, "bytes", "worker_buffered_bytes", "",                \
      "Memory that requests and responses of clients take: see worker-buffer") \
    F(spooled, GAUGE, 1, "bytes", "worker_spooled_bytes", "",                  \
      "Request bodies in temporary files: see worker-spool")

#define SCOREBOARD_THREAD_FIELDS(F)                                           \
    F(requests, COUNTER, STATUS_CLASS_COUNT, "", "requests",                  \
      "status_class" STATUS_CLASSES(SCOREBOARD_TEXT),                         \
      "Requests that the application answered, or failed to, by class of "    \
      "status")                                                               \
    F(duration, HISTOGRAM, HISTOGRAM_WORDS, "seconds",                        \
      "request_duration_seconds", "",                                         \
      "From the first byte of a request to the last byte of its answer")      \
    F(queue, HISTOGRAM, HISTOGRAM_WORDS, "seconds", "request_queue_seconds",  \
      "", "From a complete request to the thread that took it")               \
    F(read_time, COUNTER, 1, "seconds", "request_read_seconds", "",           \
      "Time between the first and the last byte of requests")                 \
    F(application_time, COUNTER, 1, "seconds", "request_application_seconds", \
      "", "Time spent in the application")                                    \
    F(write_time, COUNTER, 1, "seconds", "request_write_seconds", "",         \
      "Time threads spent writing answers once the application had ended")    \
    F(busy_time, COUNTER, 1, "seconds", "thread_busy_seconds", "",            \
      "Time threads spent on requests; its rate over poolsrv_threads is the " \
      "utilization")                                                          \
    F(bytes_in, COUNTER, 1, "bytes", "received_bytes", "",                    \
      "Bytes read from clients")                                              \
    F(bytes_out, COUNTER, 1, "bytes", "sent_bytes", "",                       \
      "Bytes written to clients")                                             \
    F(files, COUNTER, STATUS_CLASS_COUNT, "", "file_requests",                \
      "status_class" STATUS_CLASSES(SCOREBOARD_TEXT),                         \
      "Requests that mounts of files answered, by class of status; they are " \
      "among poolsrv_requests_total, too")                                    \
    F(refused, COUNTER, REFUSED_COUNT, "", "requests_refused",                \
      "status" STATUS_PHRASES(REFUSED_TEXT), REFUSED_HELP)                    \
    F(failed, COUNTER, 1, "", "application_errors", "",                       \
      "Requests in which the application raised an exception")                \
    F(disconnected, COUNTER, 1, "", "client_disconnects", "",                 \
      "Requests whose client went away before it had the whole answer")       \
    F(limited, COUNTER, LIMIT_COUNT, "", "connections_limited",               \
      "limit" LIMITS(SCOREBOARD_TEXT),                                        \
      "Connections closed by a worker because a limit was reached")           \
    F(timed_out, COUNTER, TIMED_OUT_COUNT, "", "requests_timed_out",          \
      "outcome" TIMED_OUT_OUTCOMES(SCOREBOARD_TEXT),                          \
      "Requests whose application gave no sign of life: an exception ended "  \
      "it (interrupted), or its thread is lost")                              \
    F(upgraded, COUNTER, 1, "", "connections_upgraded", "",                   \
      "Connections that the application took over, for WebSockets for "       \
      "example")                                                              \
    F(unproxied, COUNTER, UNPROXIED_COUNT, "", "proxy_protocol_refusals",     \
      "reason" UNPROXIED_REASONS(SCOREBOARD_TEXT),                            \
      "Connections closed because no trusted peer began them with a PROXY "   \
      "header")                                                               \
    F(connections, GAUGE, SEEN_COUNT, "", "",                                 \
      "state" SEEN_STATES(SCOREBOARD_TEXT),                                   \
      "Connections held by the worker, by state")                             \
    F(wakeups, COUNTER, 1, "", "thread_wakeups", "",                          \
      "Times a thread woke another to help")

#endif
