/* A worker's lines in the access log. Pure C. */
#include "worker/access_log.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "protocol/access_line.h"
#include "worker/worker_internal.h"

static AccessText
text_of(const Request *r, Http1Span span)
{
    return (AccessText){r->buffer + r->start + span.at, span.len};
}

static AccessText
field_of(const Request *r, Http1FieldId id)
{
    for (uint32_t i = 0; i < r->head.count; i++) {
        if (r->head.fields[i].id == id) {
            return text_of(r, r->head.fields[i].value);
        }
    }
    return (AccessText){NULL, 0};
}

static void
write_line(Thread *t, const char *line, size_t size)
{
    Worker *w = t->worker;
    Record *record = &t->record;
    const bool lost = !log_file_put(&w->o.access_log, line, size);
    if (lost) {
        word_add_shared(
            &w->o.board->workers[w->o.slot].lines_lost[LINES_ACCESS], 1);
    }
    /* Said once, until it works again: a full disk must not fill the log. */
    if (lost && !record->line_lost) {
        notes_add(w, NOTE_ACCESS_LOG,
                  "the access log cannot be written: %s; lines are lost until "
                  "it can",
                  strerror(errno));
    }
    record->line_lost = lost;
}

void
access_log_write(Thread *t, const Conn *c, const Request *r, uint64_t took)
{
    const WorkerOptions *options = &t->worker->o;
    const Record *record = &t->record;
    char line[ACCESS_LINE];

    if (options->access_log.fd < 0) {
        return;
    }
    const AccessFacts facts = {
        .now = time(NULL),
        .client = record->client,
        .method = text_of(r, r->head.method),
        .target = text_of(r, r->head.target),
        .referer = field_of(r, HTTP1_REFERER),
        .agent = field_of(r, HTTP1_USER_AGENT),
        .minor = r->head.minor,
        .status = c->status,
        .body_size = record->body_size,
        .took = took,
        .id = record->id,
        .reason = record->reason,
    };
    write_line(t, line,
               access_line_write(line, &facts,
                                 options->limits.log_format == LOG_JSON));
}
