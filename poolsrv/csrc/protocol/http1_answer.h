/* HTTP/1 answers: the one writer, for the application's and for the server's
 * own. It decides the framing and whether the connection stays open.
 *
 * Pure C: knows no Python, no sockets and no clock.
 *
 * An answer is written in this order: http1_answer_start, a http1_answer_field
 * for each field, http1_answer_head once the first piece of the body (or its
 * end) is known, then pieces, then http1_answer_end. What is to be sent is
 * appended to the caller's buffer.
 */
#ifndef POOLSRV_HTTP1_ANSWER_H
#define POOLSRV_HTTP1_ANSWER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "common/buffer.h"

/* What has been made wrong. X(name, words) */
#define HTTP1_ANSWER_RESULTS(X)                                              \
    X(ANSWER_DONE, "done")                                                   \
    X(ANSWER_NO_MEMORY, "there is no memory")                                \
    X(ANSWER_BAD_STATUS, "the status must read like '200 OK' (200 to 999)")  \
    X(ANSWER_BAD_NAME, "the name of a response header must be a token")      \
    X(ANSWER_BAD_VALUE, "a response header must hold no control characters") \
    X(ANSWER_BAD_LENGTH, "Content-Length must be a number")                  \
    X(ANSWER_TWO_LENGTHS, "there are two different Content-Lengths")

typedef enum {
#define X(name, words) name,
    HTTP1_ANSWER_RESULTS(X)
#undef X
} Http1AnswerResult;

/* How the client learns where the body ends (RFC 9112 section 6.3). */
typedef enum {
    FRAMING_UNDECIDED, /* the head has not been written */
    FRAMING_FORGONE,   /* nobody gets the answer: see http1_answer_forgo */
    FRAMING_NONE,      /* there is no body: HEAD, 204, 205, 304 */
    FRAMING_LENGTH,
    FRAMING_CHUNKED,
    FRAMING_CLOSE, /* the end of the connection is the end of the body */
} Http1Framing;

/* A body that takes the place of the line of text in the server's own answers
 * with this status. */
typedef struct {
    const char *type; /* of Content-Type */
    const char *body;
    size_t size;
    uint16_t status;
} Http1Page;

typedef struct {
    const Http1Page *items;
    uint32_t count;
} Http1Pages;

/* What a send of a head and of such a body surely takes at once: the kernel's
 * first buffer of a connection has 46 KB, some of it for its own use. */
#define HTTP1_PAGE_LONGEST 16384

/* Whom the answer is for. */
typedef struct {
    uint8_t minor;    /* of the request: HTTP/1.minor */
    bool is_head;     /* it asked by HEAD */
    bool may_keep;    /* the server would keep the connection */
    bool server;      /* send `Server:` */
    const char *date; /* an Http1Date's text; NULL: send no `Date:` */
    /* A field that tells the request's id, unless the application sends one of
     * that name; NULL: none. */
    const char *id_field;
    size_t id_field_size;
    const char *id;
    const Http1Pages *pages; /* NULL: none */
} Http1Asker;

typedef struct {
    Buffer head;            /* status line and fields, without what is ours */
    int64_t content_length; /* of the body; -1: not known */
    int64_t sent;           /* bytes of the body so far */
    uint16_t status;
    Http1Framing framing;
    bool keep;                 /* decided with the head */
    bool closes;               /* a field asked for the connection's end */
    bool has_date, has_server; /* fields that we need not add */
    bool takes_file; /* X-Sendfile is for us; the field does not go further */
    Buffer file;     /* and what it says, as a C string; empty: nothing */
} Http1Answer;

/* A line for a second: "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n". */
typedef struct {
    char text[40];
} Http1Date;

void http1_date_write(Http1Date *date, time_t now);

/* The words of a result. */
const char *http1_answer_words(Http1AnswerResult result);

/* Does one of the eight bytes end a line or a text? That is what control
 * characters do, but for the tab. Bit 7 of each byte of a term answers for that
 * byte, and no sum carries into the next. */
static inline bool
http1_holds_control(uint64_t bytes)
{
    const uint64_t each = UINT64_C(0x0101010101010101);
    const uint64_t low = bytes & (0x7f * each);
    const uint64_t tab = bytes ^ ('\t' * each);
    const uint64_t printed = (low + 0x60 * each) | bytes;
    const uint64_t no_tab = ((tab & (0x7f * each)) + 0x7f * each) | tab;
    const uint64_t no_delete = (low ^ (0x7f * each)) + 0x7f * each;
    return ((~printed & no_tab) | ~(no_delete | bytes)) & (0x80 * each);
}

/* Does the text hold a control character, which could end a line or a text?
 * Eight bytes at a time, the last of them twice: most texts are so short that a
 * loop over bytes, or the compiler's preparations for sixteen, took 1 % of a
 * hello. */
static inline bool
http1_has_control(const char *text, size_t size)
{
    uint64_t bytes = UINT64_C(0x2020202020202020);
    if (size < sizeof bytes) {
        for (size_t i = 0; i < size; i++) {
            bytes = bytes << 8 | (unsigned char)text[i];
        }
        return http1_holds_control(bytes);
    }
    for (size_t i = 0; i + sizeof bytes < size; i += sizeof bytes) {
        memcpy(&bytes, text + i, sizeof bytes);
        if (http1_holds_control(bytes)) {
            return true;
        }
    }
    memcpy(&bytes, text + size - sizeof bytes, sizeof bytes);
    return http1_holds_control(bytes);
}

/* Begin anew: `status` reads like "200 OK". */
Http1AnswerResult http1_answer_start(Http1Answer *a, const char *status,
                                     size_t size);

/* One more field. What is hop by hop is the server's business and left out. */
Http1AnswerResult http1_answer_field(Http1Answer *a, const char *name,
                                     size_t name_size, const char *value,
                                     size_t value_size);

/* Decide the framing and write the head to `out`. `length` is the body's if it
 * is known before it is sent, else -1. */
Http1AnswerResult http1_answer_head(Http1Answer *a, const Http1Asker *asker,
                                    int64_t length, Buffer *out);

/* Instead of http1_answer_head: whatever the answer is, none of it is sent. The
 * connection must end. */
void http1_answer_forgo(Http1Answer *a);

/* How many of `size` more bytes belong to the body: none if it has none, and
 * none beyond its announced length. */
size_t http1_answer_allows(const Http1Answer *a, size_t size);

/* What stands before and behind a piece of `size` bytes, which is not empty.
 * With HTTP1_FRAME bytes of room reserved they cannot fail. */
#define HTTP1_FRAME 24
Http1AnswerResult http1_answer_open(Http1Answer *a, size_t size, Buffer *out);
Http1AnswerResult http1_answer_close(const Http1Answer *a, Buffer *out);

/* The end of the body. */
Http1AnswerResult http1_answer_end(const Http1Answer *a, Buffer *out);

/* Have fewer bytes been sent than were announced? Then the connection must
 * end, so that the client sees it. */
bool http1_answer_is_short(const Http1Answer *a);

/* What has become of an answer of the server's own. */
typedef struct {
    bool keep; /* the connection stays open: not if there was no memory, and
                * then nothing was written */
    int64_t body_size;
} Http1Own;

/* An answer of the server's own: `fields` (complete lines), and the page for
 * the status or a line of plain text. */
Http1Own http1_answer_own(Buffer *out, const Http1Asker *asker, int status,
                          const char *fields, const char *text);

#endif
