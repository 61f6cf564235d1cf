/* Refusing requests, and what happens when a time limit passes. Pure C. */
#define _GNU_SOURCE
#include "worker/refuse.h"

#include <stdio.h>

#include "common/status.h"
#include "worker/ending.h"
#include "worker/output.h"
#include "worker/worker_internal.h"

Step
refuse_request(Worker *w, Thread *t, Conn *c, int status, const char *words)
{
    char answer[512];
    char body[160];
    const int body_size = snprintf(body, sizeof body, "%d %s: %s\n", status,
                                   status_phrase(status), words);
    const int size = snprintf(answer, sizeof answer,
                              "HTTP/1.1 %d %s\r\n"
                              "Content-Type: text/plain\r\n"
                              "Content-Length: %d\r\n"
                              "Connection: close\r\n"
                              "\r\n"
                              "%s",
                              status, status_phrase(status), body_size, body);
    word_add(&t->row->refused[scoreboard_refused(status)], 1);
    notes_add(w, NOTE_DEBUG, "refused a request: %d, %s", status, words);
    if (output_send(t, c, answer, (size_t)size, NULL, 0, NULL, NULL,
                    STREAM_MORE) < 0 ||
        c->out)
        return exchange_hang_up(w, t, c);
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
    case CONN_PREFACE:
    case CONN_HEAD:
    case CONN_BODY:
        /* The rest may be here and unseen, because this process was stopped or
         * had no thread to look: one receives first, and judges then. */
        if (stream_has_bytes(c) || refuse_late(w, t, c) == STEP_AGAIN) {
            threads_call(w, c);
        }
        return;
    case CONN_WRITING:
        if (output_taken(c)) {
            output_await_reader(w, c, now);
            if (!conn_release(w, c))
                threads_call(w, c);
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
