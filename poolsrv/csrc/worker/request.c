/* Requests on their way in: memory for heads, and whose it is. Pure C. */
#define _GNU_SOURCE
#include "worker/request.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/worker_internal.h"

/* Seconds: more than anyone waits, and no sum with it overflows. */
#define LONGEST_BODY (UINT64_C(365) * 86400)

const char request_go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
const char request_too_much_kept[] = "too much is kept for slow clients";
const char request_too_large[] = "the body is larger than is allowed here";

int
request_init(Request *r, const Http1Limits *limits, uint32_t capacity)
{
    *r = (Request){.spool = -1, .capacity = capacity};
    r->fields = malloc(limits->fields * sizeof *r->fields);
    r->buffer = malloc(capacity);
    if (r->fields && r->buffer) {
        http1_head_init(&r->head, r->fields);
        return 0;
    }
    request_clear(r);
    return -1;
}

/* Forget the body; the buffer stays. */
void
request_drop_body(Request *r)
{
    free(r->memory);
    if (r->spool >= 0) {
        close(r->spool);
    }
    r->body = r->memory = NULL;
    r->body_size = r->body_capacity = 0;
    r->spool = -1;
    r->streaming = r->ended = r->wanted = false;
    atomic_store_explicit(&r->refusal, 0, memory_order_relaxed);
    atomic_store_explicit(&r->abandoned, false, memory_order_relaxed);
}

void
request_clear(Request *r)
{
    request_drop_body(r);
    free(r->fields);
    free(r->buffer);
    r->fields = NULL;
    r->buffer = NULL;
}

/* While a head is read, a buffer never grows beyond a thread's: no head may be
 * as large, and what comes behind it then fits there. */
uint32_t
request_larger(uint32_t size)
{
    return size < 512                  ? 1024
           : size > REQUEST_BUFFER / 2 ? REQUEST_BUFFER
                                       : size * 2;
}

/* Room for so many bytes in all. */
int
request_grow(Request *r, uint32_t capacity)
{
    char *buffer;
    if (capacity <= r->capacity) {
        return 0;
    }
    buffer = realloc(r->buffer, capacity);
    if (buffer == NULL) {
        return -1;
    }
    r->buffer = buffer;
    r->capacity = capacity;
    return 0;
}

/* Give the connection a Request of its own with the bytes of `r`. */
Request *
request_adopt(Worker *w, Conn *c, Request *r)
{
    const uint32_t size = r->size - r->start;
    /* The parser may be inside one more. */
    const uint32_t fields = r->head.count < w->head_limits.fields
                                ? r->head.count + 1
                                : r->head.count;
    Request *own;
    if (r == c->request) {
        return r;
    }
    own = malloc(sizeof *own);
    if (own == NULL) {
        return NULL;
    }
    if (request_init(own, &w->head_limits, request_larger(size))) {
        free(own);
        return NULL;
    }
    memcpy(own->buffer, r->buffer + r->start, size);
    memcpy(own->fields, r->fields, fields * sizeof *own->fields);
    own->head = r->head;
    own->head.fields = own->fields;
    own->route = r->route;
    own->size = size;
    c->request = own;
    return own;
}

/* A body may pause for so long, and has so long in all, plus the time that
 * what has come takes at the least rate. */
uint64_t
request_body_deadline(const Worker *w, const Request *r, uint64_t now)
{
    const WorkerLimits *limits = &w->o.limits;
    uint64_t all, earned;
    if (limits->body_min_rate == 0) {
        return now + limits->body_timeout;
    }
    earned = r->body_size / limits->body_min_rate;
    if (earned > LONGEST_BODY) {
        earned = LONGEST_BODY;
    }
    all = r->body_began + limits->body_timeout + earned * CLOCK_SECOND;
    return all < now + limits->body_timeout ? all : now + limits->body_timeout;
}
