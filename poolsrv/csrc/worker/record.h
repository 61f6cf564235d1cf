/* What is known of the request that a thread serves, beside its bytes: for the
 * answer, for logs, and for those who look. */
#ifndef POOLSRV_RECORD_H
#define POOLSRV_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/address.h"
#include "common/scoreboard.h"
#include "protocol/http1_answer.h"
#include "worker/worker.h"

#define RECORD_ID_SIZE 24
/* The longest that is taken from a proxy: more than a UUID, nginx's 32 digits
 * or what the large clouds send. */
#define RECORD_GIVEN_MOST 128

typedef struct {
    const char *id; /* by which people know it: `given`, or `own` */
    char own[RECORD_ID_SIZE + 1]; /* unique among all workers' requests */
    char given[RECORD_GIVEN_MOST + 1];
    bool answers_id; /* its client is a trusted proxy: the answer tells `id` */
    Address client;  /* who sent it: the connection, or a trusted proxy, says */
    const char
        *reason;       /* why the server answers by itself; NULL: it does not */
    int64_t body_size; /* of the answer, in bytes */
    bool line_lost;    /* the last line of the access log was not written */
    uint64_t sequence;
    Http1Date date;
    uint64_t date_second;
} Record;

/* A request begins that came on `c`, or as much of it as can be read. */
void record_begin(Thread *t, const Conn *c, const Request *r);

/* Show what runs here now to those who look; `complete` is when all of the
 * request was here. */
void record_show(Current *now, const Request *r, uint64_t complete);
/* Learn what requests like it take. */
void record_learn(const Worker *w, const Conn *c, const Request *r,
                  uint64_t took);
/* It is answered: count it, and how long it took. */
void record_end(Thread *t, const Conn *c, uint64_t now);

/* Whom an answer is for, and what the server adds to it. While another thread
 * reads the body nobody knows how much of it is left: then it is not settled,
 * and the connection is not kept. */
Http1Asker record_asker(Thread *t, const Conn *c, const Request *r,
                        bool body_is_settled);

#endif
