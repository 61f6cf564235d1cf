/* Reading a PROXY header. Pure C. */
#define _GNU_SOURCE
#include "worker/preface.h"

#include "protocol/proxy_header.h"
#include "worker/refuse.h"
#include "worker/worker_internal.h"

static Step
close_unproxied(Worker *w, Thread *t, Conn *c, Unproxied why)
{
    word_add(&t->row->unproxied[why], 1);
    notes_add(w, NOTE_UNPROXIED, "closed a connection: %s",
              why == UNPROXIED_UNTRUSTED
                  ? "its peer is none that trust-proxy names"
                  : "it does not begin with a PROXY header");
    return exchange_hang_up(w, t, c);
}

/* The header is looked at where the kernel keeps it, and taken out once it is
 * complete: until then the connection needs no memory, and at no time has a
 * byte of its request been read, so it may still go to another worker. */
Step
preface_read(Worker *w, Thread *t, Conn *c)
{
    ProxyHeader header = {.client = c->item.client};
    ProxyResult result = PROXY_PARTIAL;
    char *buffer = t->request.buffer;
    size_t length;
    ssize_t n;
    /* Looked at before the bytes, so that these are all that came before. */
    const bool ends = atomic_load(&c->word) & CONN_ENDS;

    if (c->state == CONN_PREFACE) {
        t->now = c->ready = clock_now();
    }
    if (!address_within(&header.client, &w->o.trusted)) {
        return close_unproxied(w, t, c, UNPROXIED_UNTRUSTED);
    }
    n = stream_peek(c, buffer, PROXY_LONGEST);
    if (n == 0 || n == STREAM_LOST) {
        return exchange_hang_up(w, t, c);
    }
    if (n > 0) {
        result = proxy_header_parse(buffer, (size_t)n, &length, &header);
    }
    switch (result) {
    case PROXY_DONE:
        /* For a moment it can be given to nobody, and answered by nobody. */
        conn_progress(c, PROGRESS_ANSWERED);
        n = stream_receive(c, buffer, length);
        if (n != (ssize_t)length) {
            return exchange_hang_up(w, t, c);
        }
        word_add(t->row->bytes_in, length);
        if (header.client.family == AF_UNSPEC) {
            c->item.preface = PREFACE_UNNAMED;
        } else {
            c->item.preface = PREFACE_NAMED;
            c->item.client = header.client;
        }
        c->item.port = header.port;
        c->item.tls = header.tls;
        conn_set_state(w, t, c, CONN_IDLE);
        conn_progress(c, PROGRESS_UNREAD);
        return STEP_AGAIN;
    case PROXY_PARTIAL:
        if (ends) {
            return exchange_hang_up(w, t, c);
        }
        if (c->state != CONN_PREFACE) { /* its time began with its first byte */
            conn_set_state(w, t, c, CONN_PREFACE);
        }
        return refuse_if_late(w, t, c);
    case PROXY_BAD:
        break;
    }
    return close_unproxied(w, t, c, UNPROXIED_MALFORMED);
}
