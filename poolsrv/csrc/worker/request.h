/* A request on its way in: its head, and what holds its body. */
#ifndef POOLSRV_REQUEST_H
#define POOLSRV_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/http1.h"
#include "worker/route.h"
#include "worker/worker.h"

/* Bytes that one recv asks for, and a thread's buffer for heads. */
#define REQUEST_BUFFER 65536

/* A request on its way in; complete when the application gets it. The head's
 * spans count from `buffer + start`. */
struct Request {
    Http1Head head;
    Route route; /* once the head is complete */
    Http1Field *fields;
    char *buffer;
    uint32_t start; /* of this request: pipelined ones came before */
    uint32_t size;  /* filled */
    uint32_t next;  /* where the following request begins, if size is beyond */
    uint32_t capacity;
    Http1Chunks chunks;
    /* Body: in `buffer` behind the head, in memory, or in a file. */
    const char *body;
    char *memory;       /* what must be freed, or NULL */
    uint64_t body_size; /* received so far */
    uint64_t body_capacity;
    uint64_t body_began; /* when its first part was asked for */
    int spool;           /* an unlinked file that holds the body, or -1 */
    /* A streamed body: what the application has not read is in `buffer` from
     * `next` on, or still with the client. */
    bool streaming;
    bool ended;  /* all of it has been read */
    bool wanted; /* 100 Continue has been answered, or was not asked for */
    _Atomic int refusal;    /* reading went wrong: the status to answer with */
    _Atomic bool abandoned; /* nobody will read the rest */
};

extern const char request_go_on[];
extern const char request_too_large[];
extern const char request_too_much_kept[];

int request_init(Request *r, const Http1Limits *limits, uint32_t capacity);
/* Forget the body; the buffer stays. */
void request_drop_body(Request *r);
void request_clear(Request *r);
/* Room for so many bytes in all. */
int request_grow(Request *r, uint32_t capacity);
/* The next size of a head's buffer. */
uint32_t request_larger(uint32_t size);
/* Give the connection a Request of its own with the bytes of `r`; NULL: no
 * memory. */
Request *request_adopt(Worker *w, Conn *c, Request *r);
/* Until when the next bytes of the body must have come. */
uint64_t request_body_deadline(const Worker *w, const Request *r, uint64_t now);

/* Its bytes, from `start` on, are those of another request. */
static inline void
request_begin(Request *r)
{
    http1_head_init(&r->head, r->fields);
    if (r->route.found) {
        r->route = (Route){.found = false};
    }
}

#endif
