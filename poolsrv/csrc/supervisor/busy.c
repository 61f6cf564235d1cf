/* The supervisor's own answer, and its line in the access log. Nothing is
 * received of the request: its first bytes are looked at where they lie. Pure
 * C; see dispatch.h. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/socket.h>

#include "protocol/access_line.h"
#include "protocol/http1_answer.h"
#include "supervisor/dispatch_internal.h"

/* Bytes of a request line that are looked at. */
#define LOOK 1024

/* What is answered, and why. */
typedef struct {
    int status;
    const char *fields, *words, *reason;
} Busy;

static Busy
busy_because(Closed why)
{
    static const char soon[] = "Retry-After: 1\r\n",
                      busy[] = "All threads are busy. Please try again soon.";
    switch (why) {
    case CLOSED_HEADER:
        return (Busy){408, "", "The request did not arrive in time.",
                      "the request did not arrive in time"};
    case CLOSED_QUEUE_FULL:
        return (Busy){503, soon, busy, "the queue is full"};
    case CLOSED_QUEUE_TIMEOUT:
        return (Busy){503, soon, busy, "no thread came free in time"};
    default:
        return (Busy){503, soon, busy, "the server stops"};
    }
}

/* As the request line says; empty where it does not. */
typedef struct {
    AccessText method, target;
    unsigned minor;
} Asked;

static const char *
find(const char *from, const char *end, char wanted)
{
    return memchr(from, wanted, (size_t)(end - from));
}

/* One that is longer than our look has a target that is cut. What is no request
 * line, such as a PROXY header, says nothing. */
static Asked
read_line(const char *bytes, size_t size)
{
    static const char version[] = "HTTP/1.";
    const Asked nothing = {.minor = 1};
    const char *all = bytes + size;
    const char *lf = find(bytes, all, '\n');
    const char *end = lf && lf > bytes && lf[-1] == '\r' ? lf - 1 : all;
    const char *target = find(bytes, end, ' ');
    if (target == NULL || (lf && end == all)) {
        return nothing;
    }
    const char *rest = find(++target, end, ' ');
    if (lf && (rest == NULL || end - rest != sizeof version + 1 ||
               memcmp(rest + 1, version, sizeof version - 1) != 0)) {
        return nothing;
    }
    if (rest == NULL) {
        rest = end;
    }
    return (Asked){
        .method = {bytes, (size_t)(target - 1 - bytes)},
        .target = {target, (size_t)(rest - target)},
        .minor = lf && end[-1] == '0' ? 0 : 1,
    };
}

void
busy_forget(Dispatch *d)
{
    for (size_t i = 0; i < 2; i++) {
        d->busy_answers[i][0].size = d->busy_answers[i][1].size = 0;
    }
}

/* HTTP/1.1 and its fields are understood by all. */
static const Buffer *
answer_for(Dispatch *d, const Busy *busy, bool is_head)
{
    const DispatchLimits *limits = &d->limits;
    const time_t second = time(NULL);
    Buffer *answer = &d->busy_answers[busy->status == 408][is_head];
    if (second != d->busy_second) {
        busy_forget(d);
        d->busy_second = second;
    }
    if (answer->size == 0) {
        Http1Date date;
        http1_date_write(&date, second);
        http1_answer_own(answer,
                         &(Http1Asker){
                             .minor = 1,
                             .is_head = is_head,
                             .pages = &d->pages,
                             .server = limits->server_header,
                             .date = limits->date_header ? date.text : NULL,
                         },
                         busy->status, busy->fields, busy->words);
    }
    return answer;
}

static void
write_line(Dispatch *d, const Held *h, const Asked *asked, const Busy *busy,
           bool is_head)
{
    const uint64_t now = clock_now();
    char line[ACCESS_LINE];
    const AccessFacts facts = {
        .now = time(NULL),
        .client = h->item.client,
        .method = asked->method,
        .target = asked->target,
        .minor = asked->minor,
        .status = (unsigned)busy->status,
        .body_size = is_head ? 0 : (int64_t)strlen(busy->words) + 1,
        .took = now > h->item.since ? now - h->item.since : 0,
        .reason = busy->reason,
    };
    const size_t size =
        access_line_write(line, &facts, d->limits.log_format == LOG_JSON);
    if (!log_file_put(&d->access_log, line, size)) {
        word_add(&d->board->supervisor->lines_lost[LINES_ACCESS], 1);
    }
}

bool
busy_answer(Dispatch *d, const Held *h, Closed why)
{
    const Busy busy = busy_because(why);
    char look[LOOK];
    const ssize_t n = recv(h->fd, look, sizeof look, MSG_DONTWAIT | MSG_PEEK);
    const Asked asked = read_line(look, n > 0 ? (size_t)n : 0);
    const bool is_head =
        asked.method.size == 4 && memcmp(asked.method.bytes, "HEAD", 4) == 0;
    const Buffer *answer = answer_for(d, &busy, is_head);
    if (send(h->fd, answer->data, answer->size, MSG_DONTWAIT | MSG_NOSIGNAL) <
        0) {
        return false;
    }
    word_add(&d->board->supervisor->refused[scoreboard_refused(busy.status)],
             1);
    refusals_add(&d->refusals, busy.status, busy.reason);
    if (d->access_log.fd >= 0) {
        write_line(d, h, &asked, &busy, is_head);
    }
    return true;
}
