/* Refusing requests, and what happens when a time limit passes. Pure C. */
#define _GNU_SOURCE
#include "worker/refuse.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "common/status.h"
#include "worker/access_log.h"
#include "worker/ending.h"
#include "worker/output.h"
#include "worker/worker_internal.h"

/* The page of maintenance, as it is now: whoever makes the file may write it
 * at any time. False: there is none, or nothing in it. */
static bool
read_page(const Worker *w, Http1Page *page, char *body)
{
    const int fd = open(w->o.maintenance, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return false;
    }
    const ssize_t n = pread(fd, body, HTTP1_PAGE_LONGEST, 0);
    close(fd);
    page->type = w->o.maintenance_type;
    page->size = n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* Put the answer into t->out; does the connection stay open? */
static bool
write_refusal(Thread *t, Conn *c, const Request *r, bool may_keep, int status,
              const char *words)
{
    const bool maintenance = r->route.status == status && r->route.maintenance;
    char text[160], body[HTTP1_PAGE_LONGEST];
    Http1Page page = {.status = (uint16_t)status, .body = body};
    const Http1Pages pages = {.items = &page, .count = 1};
    Http1Asker asker = record_asker(t, c, r, true);

    snprintf(text, sizeof text, "%d %s: %s", status, status_phrase(status),
             words);
    asker.may_keep &= may_keep;
    if (maintenance && read_page(t->worker, &page, body)) {
        asker.pages = &pages;
    }
    t->record.reason = words;
    c->status = (uint16_t)status;
    t->out.size = 0;
    word_add(&t->row->refused[scoreboard_refused(status)], 1);
    const Http1Own own =
        http1_answer_own(&t->out, &asker, status,
                         maintenance ? "Retry-After: 60\r\n" : "", text);
    t->record.body_size = own.body_size;
    return own.keep;
}

/* A complete request that goes nowhere: what the settings say of it is no news,
 * so the log has no warning. */
static void
serve_refusal(void *argument, Thread *t, Conn *c, Request *r)
{
    (void)argument;
    c->refused = true;
    if (write_refusal(t, c, r, true, r->route.status, r->route.words)) {
        c->ending = ENDING_KEEP;
    }
    t->now = clock_now();
    output_send(t, c, t->out.data, t->out.size, NULL, 0, NULL, NULL,
                output_last(c));
    t->out.size = 0;
}

const Handler refuse_handler = {.serve = serve_refusal};

Step
refuse_request(Worker *w, Thread *t, Conn *c, int status, const char *words)
{
    const Request *r = c->request ? c->request : &t->request;
    record_begin(t, c, r);
    write_refusal(t, c, r, false, status, words);
    if (r->route.status != status) {
        notes_refused(w, status, words);
    }
    access_log_write(t, c, r, clock_now() - c->began);
    const int sent = output_send(t, c, t->out.data, t->out.size, NULL, 0, NULL,
                                 NULL, STREAM_MORE);
    t->out.size = 0;
    if (sent < 0 || c->out) {
        return exchange_hang_up(w, t, c);
    }
    return ending_start(w, t, c);
}

Step
refuse_late(Worker *w, Thread *t, Conn *c)
{
    const Limit limit = c->state == CONN_BODY ? LIMIT_BODY : LIMIT_HEADER;
    word_add(&t->row->limited[limit], 1);
    if (c->state == CONN_PREFACE) { /* it speaks no HTTP yet: no answer */
        return exchange_hang_up(w, t, c);
    }
    return refuse_request(w, t, c, 408, "the request did not arrive in time");
}

Step
refuse_if_late(Worker *w, Thread *t, Conn *c)
{
    const uint64_t deadline = word_get(&c->deadline);
    if (deadline != 0 && deadline <= t->now) {
        return refuse_late(w, t, c);
    }
    conn_uncount(w, c);
    return STEP_WAIT;
}

void
refuse_expire(Worker *w, Thread *t, Conn *c, uint64_t now)
{
    switch ((ConnState)c->state) {
    case CONN_IDLE:
        c->ready = 0;
        conn_hand_back(w, t, &c, 1, now - LADDER_IDLE);
        return;
    case CONN_PEEKED: /* the head must be looked at again */
        threads_call(w, c);
        return;
    case CONN_PREFACE:
    case CONN_HEAD:
    case CONN_BODY:
        /* The rest may have come unseen, because this process was stopped or
         * had no thread to look: so we receive first, and judge then. */
        if (stream_has_bytes(c) || refuse_late(w, t, c) == STEP_AGAIN) {
            threads_call(w, c);
        }
        return;
    case CONN_WRITING:
        if (output_await_reader(w, c, now)) {
            if (!conn_release(w, c)) {
                threads_call(w, c);
            }
            return;
        }
        word_add(&t->row->limited[LIMIT_SEND], 1);
        c->ending = ENDING_RESET;
        conn_close(w, t, c);
        return;
    default:
        conn_close(w, t, c);
    }
}
