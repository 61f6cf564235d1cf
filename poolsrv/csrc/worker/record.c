/* What is known of a request: see record.h. Pure C. */
#include "worker/record.h"

#include <string.h>

#include "worker/exchange.h"
#include "worker/worker_internal.h"

/* A random part for the process, then a count; 24 characters because it is read
 * by people too. */
static void
make_id(const Worker *w, Thread *t)
{
    static const char hexadecimal[] = "0123456789abcdef";
    Record *record = &t->record;
    uint64_t prefix = w->o.id_prefix;
    uint64_t number = (uint64_t)t->index << 36 | record->sequence++;
    for (int i = 11; i >= 0; i--, prefix >>= 4) {
        record->id[i] = hexadecimal[prefix & 15];
    }
    for (int i = 23; i >= 12; i--, number >>= 4) {
        record->id[i] = hexadecimal[number & 15];
    }
    memcpy(t->row->current.request_id, record->id, sizeof record->id);
}

void
record_begin(Thread *t, const Conn *c, const Request *r)
{
    Record *record = &t->record;
    make_id(t->worker, t);
    record->client = r->route.forwarded ? r->route.said.client : c->item.client;
    record->reason = NULL;
    record->body_size = 0;
}

/* For those who look: what runs here now. */
void
record_show(Current *now, const Request *r, uint64_t complete)
{
    const char *base = r->buffer + r->start;
    size_t n = r->head.method.len;
    if (!SCOREBOARD_OBSERVED) {
        return;
    }
    if (n >= sizeof now->method) {
        n = sizeof now->method - 1;
    }
    /* Every head has so many bytes from its method on, and to copy them all is
     * quicker than to copy a few. */
    memcpy(now->method, base + r->head.method.at, sizeof now->method);
    now->method[n] = '\0';
    n = r->head.path.len;
    if (n >= sizeof now->path) {
        n = sizeof now->path - 1;
    }
    memcpy(now->path, base + r->head.path.at, n);
    now->path[n] = '\0';
    word_set(&now->ready, complete);
    atomic_store_explicit(&now->state, THREAD_APPLICATION,
                          memory_order_relaxed);
}

/* What requests like it take, for those that will have to wait. Of these only
 * the first bytes are looked at, not parsed: so what counts as the path is the
 * target as it was sent, up to its query. */
void
record_learn(const Worker *w, const Conn *c, const Request *r, uint64_t took)
{
    PathTimes *times = w->o.board->path_times;
    const char *base = r->buffer + r->start;
    const Http1Head *head = &r->head;
    const char *path = base + head->target.at;
    const char *query;

    if (conn_is_upgraded(c) || !path_times_learns(times, took)) {
        return;
    }
    query = memchr(path, '?', head->target.len);
    path_times_learn(times, base + head->method.at, head->method.len, path,
                     query ? (size_t)(query - path) : head->target.len, took);
}

void
record_end(Thread *t, const Conn *c, uint64_t now)
{
    const unsigned class = c->status / 100u;
    if (class >= 1 && class <= STATUS_CLASS_COUNT) {
        word_add(&t->row->requests[class - 1], 1);
    }
    if (!conn_is_upgraded(c)) { /* hours, and no answer */
        histogram_add(t->row->duration, now - c->began);
    }
}

Http1Asker
record_asker(Thread *t, const Conn *c, const Request *r)
{
    const Worker *w = t->worker;
    Record *record = &t->record;
    const uint64_t second = t->now / CLOCK_SECOND;
    if (second != record->date_second) {
        http1_date_write(&record->date, time(NULL));
        record->date_second = second;
    }
    return (Http1Asker){
        .minor = r->head.minor,
        .is_head = r->head.is_head,
        .may_keep = exchange_may_keep(w, c, r),
        .server = w->o.limits.server_header,
        .date = w->o.limits.date_header ? record->date.text : NULL,
    };
}
