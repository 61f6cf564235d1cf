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
record_begin(Thread *t, const Conn *c)
{
    Record *record = &t->record;
    make_id(t->worker, t);
    record->client = c->item.client;
    record->reason = NULL;
    record->body_size = 0;
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
