/* The answer to a request that a worker had begun when it ended, and its line
 * in the access log: what the worker has not answered nobody else will. Pure C;
 * see dispatch.h. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/socket.h>

#include "protocol/access_line.h"
#include "protocol/http1_answer.h"
#include "supervisor/dispatch_internal.h"

static const char words[] = "The process that worked on this request has ended "
                            "before it had an answer.";

/* None of it is sent twice, so nothing of it is kept. False: the client is
 * gone. */
static bool
answer(const Dispatch *d, int fd, bool is_head, int64_t *body_size)
{
    Buffer out = {0};
    Http1Date date;
    http1_date_write(&date, time(NULL));
    const Http1Own own =
        http1_answer_own(&out,
                         &(Http1Asker){
                             .minor = 1,
                             .is_head = is_head,
                             .pages = &d->pages,
                             .server = d->limits.server_header,
                             .date = d->limits.date_header ? date.text : NULL,
                         },
                         502, "", words);
    const bool sent = out.size > 0 && send(fd, out.data, out.size,
                                           MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
    buffer_clear(&out);
    *body_size = own.body_size;
    return sent;
}

static void
write_line(Dispatch *d, const ChannelMessage *m, int64_t body_size)
{
    const LostNote *note = &m->note;
    const uint64_t now = clock_now();
    char line[ACCESS_LINE];
    const AccessFacts facts = {
        .now = time(NULL),
        .client = m->items[0].client,
        .method = {note->method, strlen(note->method)},
        .target = {note->path, strlen(note->path)},
        .minor = 1,
        .status = 502,
        .body_size = body_size,
        .took = note->since && now > note->since ? now - note->since : 0,
        .id = note->request_id[0] ? note->request_id : NULL,
        .reason = "its worker has ended",
    };
    const size_t size =
        access_line_write(line, &facts, d->limits.log_format == LOG_JSON);
    if (!log_file_put(&d->access_log, line, size)) {
        word_add(&d->board->supervisor->lines_lost[LINES_ACCESS], 1);
    }
}

void
lost_answer(Dispatch *d, const ChannelMessage *m)
{
    const bool is_head = strcmp(m->note.method, "HEAD") == 0;
    int64_t body_size;
    word_add(&d->board->supervisor->closed[CLOSED_WORKER], 1);
    if (answer(d, m->fds[0], is_head, &body_size)) {
        word_add(&d->board->supervisor->refused[REFUSED_502], 1);
        if (d->access_log.fd >= 0) {
            write_line(d, m, body_size);
        }
    }
    parked_linger(d, m->fds[0], &m->items[0]);
}
