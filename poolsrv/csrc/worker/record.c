/* What is known of a request: see record.h. Pure C. */
#define _DEFAULT_SOURCE
#include "worker/record.h"

#include <endian.h>
#include <string.h>

#include "protocol/lex.h"
#include "worker/exchange.h"
#include "worker/worker_internal.h"

/* Eight hexadecimal digits, the highest first: each goes to a byte of its own,
 * and all become characters at once. A loop took three times as long. */
static void
write_digits(char *to, uint32_t value)
{
    const uint64_t each = UINT64_C(0x0101010101010101);
    uint64_t x = value;
    x = (x << 16 | x) & UINT64_C(0x0000ffff0000ffff);
    x = (x << 8 | x) & UINT64_C(0x00ff00ff00ff00ff);
    x = (x << 4 | x) & 0xf * each;
    x += '0' * each + (((x + 6 * each) >> 4) & each) * ('a' - '9' - 1);
    x = htobe64(x);
    memcpy(to, &x, sizeof x);
}

/* Twelve digits, which overlap. */
static void
write_half(char *to, uint64_t value)
{
    write_digits(to, (uint32_t)(value >> 16));
    write_digits(to + 4, (uint32_t)value);
}

/* A random part for the process, then a count; 24 characters because it is read
 * by people too. */
static void
make_id(const Worker *w, Thread *t)
{
    Record *record = &t->record;
    if (record->sequence == 0) {
        write_half(record->own, w->o.id_prefix);
    }
    write_half(record->own + 12, (uint64_t)t->index << 36 | record->sequence++);
    memcpy(t->row->current.request_id, record->own, sizeof record->own);
    record->id = record->own;
}

/* An id goes to logs and back to clients: of printable characters, those that
 * mean nothing there. */
static bool
is_good_id(const char *text, size_t size)
{
    static const char others[] = "-._~:/@=+;,";
    bool good = size > 0 && size <= RECORD_GIVEN_MOST;
    for (size_t i = 0; good && i < size; i++) {
        const char c = text[i];
        good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
               (c >= 'A' && c <= 'Z') ||
               memchr(others, c, sizeof others - 1) != NULL;
    }
    return good;
}

/* The field of that name if it stands once, else NULL. */
static const Http1Field *
find_field(const Request *r, const OptionName *name)
{
    const char *base = r->buffer + r->start;
    const Http1Field *found = NULL;
    for (uint32_t i = 0; i < r->head.count; i++) {
        const Http1Field *field = &r->head.fields[i];
        if (!http1_same_text(base + field->name.at, field->name.len, name->text,
                             name->size)) {
            continue;
        }
        if (found) {
            return NULL;
        }
        found = field;
    }
    return found;
}

/* The id that a trusted proxy gives, if it gives one. */
static void
take_id(const Worker *w, Thread *t, const Request *r)
{
    Record *record = &t->record;
    char *shown = t->row->current.request_id;
    const Http1Field *field = find_field(r, &w->o.limits.request_id_header);
    const char *text = field ? r->buffer + r->start + field->value.at : NULL;
    if (field == NULL || !is_good_id(text, field->value.len)) {
        return;
    }
    memcpy(record->given, text, field->value.len);
    record->given[field->value.len] = '\0';
    record->id = record->given;
    const size_t room = sizeof t->row->current.request_id - 1;
    const size_t size = field->value.len < room ? field->value.len : room;
    memcpy(shown, text, size);
    shown[size] = '\0';
}

void
record_begin(Thread *t, const Conn *c, const Request *r)
{
    const Worker *w = t->worker;
    Record *record = &t->record;
    make_id(w, t);
    record->answers_id = w->o.limits.request_id_header.size != 0 &&
                         w->o.trusted.count != 0 &&
                         c->item.preface != PREFACE_UNNAMED &&
                         address_within(&c->item.client, &w->o.trusted);
    if (record->answers_id) {
        take_id(w, t, r);
    }
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

/* What requests like it take, for those that will have to wait. They are
 * looked up by their first bytes, which nobody parses: so the path is the
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
    if (!c->refused && class >= 1 && class <= STATUS_CLASS_COUNT) {
        word_add(&t->row->requests[class - 1], 1);
    }
    if (!conn_is_upgraded(c)) { /* hours, and no answer */
        histogram_add(t->row->duration, now - c->began);
    }
}

Http1Asker
record_asker(Thread *t, const Conn *c, const Request *r, bool body_is_settled)
{
    const Worker *w = t->worker;
    Record *record = &t->record;
    const uint64_t second = t->now / CLOCK_SECOND;
    if (second != record->date_second) {
        http1_date_write(&record->date, time(NULL));
        record->date_second = second;
    }
    return (Http1Asker){
        .id_field =
            record->answers_id ? w->o.limits.request_id_header.text : NULL,
        .id_field_size = w->o.limits.request_id_header.size,
        .id = record->id,
        .minor = r->head.minor,
        .is_head = r->head.is_head,
        .may_keep = body_is_settled && exchange_may_keep(w, c, r),
        .pages = &w->o.pages,
        .server = w->o.limits.server_header,
        .date = w->o.limits.date_header ? record->date.text : NULL,
    };
}
