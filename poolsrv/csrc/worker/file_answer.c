/* Answers with a file: see file_answer.h. Pure C.
 *
 * Long, because all of them share the rules of the head. */
#define _GNU_SOURCE
#include "worker/file_answer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "protocol/http1_answer.h"
#include "protocol/http_date.h"
#include "protocol/ranges.h"
#include "worker/output.h"
#include "worker/worker_internal.h"

/* Up to so much is read and sent in one piece with its head: one system call
 * fewer, and the client wakes once. Beyond it is cheaper to let the kernel pass
 * on its pages: microseconds of CPU a request by pread and by sendfile, 4 KiB
 * 12.1 and 13.8, 8 KiB 12.4 and 13.3, 16 KiB 14.0 and 13.6, 64 KiB 24.5 and
 * 18.3. */
#define READ_MOST 8192

/* ------------------------------------------------------------------------
 * The body */

/* The file is shorter than its head has said: whatever comes next would be
 * taken for the rest of it. */
static void
cut_short(Thread *t, Conn *c, const char *why)
{
    notes_add(t->worker, NOTE_FILE_CUT,
              "request %s: the file %s while it was sent; the connection is "
              "cut",
              t->record.id, why);
    c->ending = ENDING_RESET;
}

/* Read part of the file behind what is in t->out. */
static bool
read_part(Thread *t, Conn *c, int fd, const Range *part)
{
    Buffer *out = &t->out;
    uint64_t done = 0;
    if (buffer_reserve(out, part->size) < 0) {
        cut_short(t, c, "found no memory");
        return false;
    }
    while (done < part->size) {
        const ssize_t n = pread(fd, out->data + out->size, part->size - done,
                                (off_t)(part->at + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            cut_short(t, c, n ? "could not be read" : "got shorter");
            return false;
        }
        out->size += (size_t)n;
        done += (uint64_t)n;
    }
    return true;
}

static int
send_out(Thread *t, Conn *c, StreamFollow follow)
{
    const int sent = output_send(t, c, t->out.data, t->out.size, NULL, 0, NULL,
                                 NULL, follow);
    t->out.size = 0;
    return sent;
}

/* What is in t->out, and the file behind it. */
static void
send_span(Thread *t, Conn *c, int fd, const Range *part)
{
    if (part->size <= READ_MOST) {
        read_part(t, c, fd, part);
        close(fd);
        send_out(t, c, output_last(c));
    } else if (send_out(t, c, STREAM_MORE) == 0) {
        output_send_file(t, c, fd, false, (off_t)part->at, part->size);
    } else {
        close(fd);
    }
}

/* Heads of the parts of a multipart answer, one behind the other; the last is
 * its end. */
typedef struct {
    Buffer text;
    size_t ends[RANGES_MOST + 1];
    uint64_t size; /* of the whole body */
} Heads;

static int
write_heads(Heads *heads, const Ranges *ranges, const Found *found,
            const char *boundary)
{
    for (uint32_t i = 0; i < ranges->count; i++) {
        if (ranges_add_head(&heads->text, ranges, i, found->size, boundary,
                            found->type) < 0) {
            return -1;
        }
        heads->ends[i] = heads->text.size;
        heads->size += ranges->parts[i].size;
    }
    if (ranges_add_end(&heads->text, boundary) < 0) {
        return -1;
    }
    heads->ends[ranges->count] = heads->text.size;
    heads->size += heads->text.size;
    return 0;
}

/* Parts that are too long to be read: the last one takes the descriptor with
 * it. False: the client is gone, and the descriptor still open. */
static bool
send_long_part(Thread *t, Conn *c, int fd, const Range *part, bool last)
{
    if (send_out(t, c, STREAM_MORE) < 0) {
        return false;
    }
    return output_send_file(t, c, fd, !last, (off_t)part->at, part->size) ==
               0 ||
           last;
}

static void
send_parts(Thread *t, Conn *c, int fd, const Ranges *ranges, const Heads *heads)
{
    const bool is_short = heads->size <= READ_MOST;
    size_t start = 0;
    bool open = true, good = true;
    for (uint32_t i = 0; good && i <= ranges->count; i++) {
        const bool last = i + 1 == ranges->count;
        if (buffer_add(&t->out, heads->text.data + start,
                       heads->ends[i] - start) < 0) {
            cut_short(t, c, "found no memory");
            break;
        }
        start = heads->ends[i];
        if (i < ranges->count) {
            good = is_short ? read_part(t, c, fd, &ranges->parts[i])
                            : send_long_part(t, c, fd, &ranges->parts[i], last);
            open = is_short || !good || !last;
        }
    }
    if (open) {
        close(fd);
    }
    send_out(t, c, output_last(c));
}

/* ------------------------------------------------------------------------
 * The head */

static int
add_date(Buffer *head, int64_t seconds)
{
    char text[HTTP_DATE_SIZE];
    http_date_write(text, seconds);
    return BUFFER_ADD_LITERAL(head, "Last-Modified: ") < 0 ||
                   buffer_add(head, text, sizeof text) < 0 ||
                   BUFFER_ADD_LITERAL(head, "\r\n") < 0
               ? -1
               : 0;
}

/* One field. */
static int
add(Buffer *head, const char *name, const char *value)
{
    return buffer_add_text(head, name) < 0 ||
                   BUFFER_ADD_LITERAL(head, ": ") < 0 ||
                   buffer_add_text(head, value) < 0 ||
                   BUFFER_ADD_LITERAL(head, "\r\n") < 0
               ? -1
               : 0;
}

/* What 200, 206 and 304 have (RFC 9110 section 15.4.5). */
static int
add_validators(Buffer *head, const Found *found)
{
    if (buffer_add_text(head, found->validator.weak ? "ETag: W/" : "ETag: ") <
            0 ||
        buffer_add(head, found->validator.tag, found->validator.tag_size) < 0 ||
        BUFFER_ADD_LITERAL(head, "\r\n") < 0 ||
        add_date(head, found->validator.modified) < 0) {
        return -1;
    }
    if (*found->cache_control &&
        add(head, "Cache-Control", found->cache_control) < 0) {
        return -1;
    }
    return found->varies ? add(head, "Vary", "Accept-Encoding") : 0;
}

/* What 200 and 206 have beside. Nobody may take a file for another type than
 * its name says: an image that somebody uploaded for a script, say. */
static int
add_representation(Buffer *head, const Found *found,
                   const FileAnswerFields *more, const char *type)
{
    if ((type || !more->has_type) &&
        add(head, "Content-Type", type ? type : found->type) < 0) {
        return -1;
    }
    if (found->coding && add(head, "Content-Encoding", found->coding) < 0) {
        return -1;
    }
    return BUFFER_ADD_LITERAL(head, "Accept-Ranges: bytes\r\n"
                                    "X-Content-Type-Options: nosniff\r\n");
}

static bool
start(Http1Answer *a, const char *status, const FileAnswerFields *more)
{
    if (http1_answer_start(a, status, strlen(status)) != ANSWER_DONE ||
        buffer_add(&a->head, more->lines, more->size) < 0) {
        return false;
    }
    a->has_date = more->has_date;
    a->has_server = more->has_server;
    a->closes = more->closes;
    return true;
}

/* Write the head to t->out. `size` is that of the body, -1: there is none. */
static bool
finish(Thread *t, Conn *c, const Request *r, Http1Answer *a, int64_t size)
{
    const Http1Asker asker = record_asker(t, c, r, !r->streaming);
    t->out.size = 0;
    a->content_length = size;
    if (http1_answer_head(a, &asker, 0, &t->out) != ANSWER_DONE) {
        return false;
    }
    c->status = a->status;
    c->ending = a->keep ? ENDING_KEEP : ENDING_CLOSE;
    t->record.body_size = a->framing == FRAMING_NONE ? 0 : size;
    return true;
}

/* ------------------------------------------------------------------------
 * Answers */

/* There is no memory for as much as a head: the client sees the end. */
static void
give_up(Thread *t, Conn *c)
{
    t->out.size = 0;
    c->gone = true;
}

/* 204, which has no body. */
static bool
write_empty(Thread *t, Conn *c, const Request *r, const char *status,
            const char *fields)
{
    static const FileAnswerFields none = {.lines = ""};
    Http1Answer a = {0};
    const bool good = start(&a, status, &none) &&
                      buffer_add_text(&a.head, fields) == 0 &&
                      finish(t, c, r, &a, -1);
    buffer_clear(&a.head);
    return good;
}

static bool
write_refusal(Thread *t, Conn *c, const Request *r, const char *status,
              const char *fields)
{
    const Http1Asker asker = record_asker(t, c, r, !r->streaming);
    t->out.size = 0;
    c->status = (uint16_t)atoi(status);
    const Http1Own own =
        http1_answer_own(&t->out, &asker, c->status, fields, status);
    c->ending = own.keep ? ENDING_KEEP : ENDING_CLOSE;
    t->record.body_size = own.body_size;
    return t->out.size > 0;
}

void
file_answer_refuse(Thread *t, Conn *c, Request *r, const char *status,
                   const char *fields, const FileAnswerFields *more,
                   const char *reason)
{
    Buffer lines = {0};
    bool good = (more == NULL || !more->always ||
                 buffer_add(&lines, more->lines, more->size) == 0) &&
                buffer_add(&lines, fields, strlen(fields) + 1) == 0;
    if (good && strncmp(status, "204", 3) == 0) {
        good = write_empty(t, c, r, status, lines.data);
    } else if (good) {
        good = write_refusal(t, c, r, status, lines.data);
    }
    buffer_clear(&lines);
    t->record.reason = reason;
    t->now = clock_now();
    if (good) {
        send_out(t, c, output_last(c));
    } else {
        give_up(t, c);
    }
}

void
file_answer_part(Thread *t, Conn *c, Request *r, Found *found,
                 const FileAnswerFields *more, const char *status, uint64_t at,
                 uint64_t size)
{
    const Range part = {at, size};
    Http1Answer a = {0};
    const bool good =
        start(&a, status, more) &&
        (more->has_type || add(&a.head, "Content-Type", found->type) == 0) &&
        finish(t, c, r, &a, (int64_t)size);
    buffer_clear(&a.head);
    t->now = clock_now();
    if (good && size && a.framing == FRAMING_LENGTH) {
        send_span(t, c, found->fd, &part);
        return;
    }
    close(found->fd);
    if (good) {
        send_out(t, c, output_last(c));
    } else {
        give_up(t, c);
    }
}

/* 200 or 206 with a single part. */
static void
send_one(Thread *t, Conn *c, Request *r, Found *found,
         const FileAnswerFields *more, const Range *part)
{
    const Range all = {0, found->size};
    Http1Answer a = {0};
    bool good = start(&a, part ? "206 Partial Content" : "200 OK", more) &&
                add_validators(&a.head, found) == 0 &&
                add_representation(&a.head, found, more, NULL) == 0;
    if (good && part) {
        good = BUFFER_ADD_LITERAL(&a.head, "Content-Range: ") == 0 &&
               ranges_add_part(&a.head, part, found->size) == 0 &&
               BUFFER_ADD_LITERAL(&a.head, "\r\n") == 0;
    }
    part = part ? part : &all;
    good = good && finish(t, c, r, &a, (int64_t)part->size);
    buffer_clear(&a.head);
    t->now = clock_now();
    if (good && a.framing == FRAMING_LENGTH) {
        send_span(t, c, found->fd, part);
        return;
    }
    close(found->fd);
    if (good) {
        send_out(t, c, output_last(c));
    } else {
        give_up(t, c);
    }
}

#define BOUNDARY 32

/* Random, so that nobody can have put it into a file. */
static void
make_boundary(char *to)
{
    uint8_t bytes[BOUNDARY / 2];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) {
        memset(bytes, 0, sizeof bytes); /* never, once the machine is up */
    }
    for (size_t i = 0; i < BOUNDARY; i++) {
        to[i] = "0123456789abcdef"[bytes[i / 2] >> (i % 2 ? 0 : 4) & 15];
    }
    to[BOUNDARY] = '\0';
}

/* 206 with several. */
static void
send_several(Thread *t, Conn *c, Request *r, Found *found,
             const FileAnswerFields *more, const Ranges *ranges)
{
    static const char multipart[] = "multipart/byteranges; boundary=";
    char type[sizeof multipart + BOUNDARY];
    char *boundary = type + sizeof multipart - 1;
    Heads heads = {0};
    Http1Answer a = {0};
    memcpy(type, multipart, sizeof multipart);
    make_boundary(boundary);
    const bool good = write_heads(&heads, ranges, found, boundary) == 0 &&
                      start(&a, "206 Partial Content", more) &&
                      add_validators(&a.head, found) == 0 &&
                      add_representation(&a.head, found, more, type) == 0 &&
                      finish(t, c, r, &a, (int64_t)heads.size);
    buffer_clear(&a.head);
    t->now = clock_now();
    if (good) {
        send_parts(t, c, found->fd, ranges, &heads);
    } else {
        close(found->fd);
        give_up(t, c);
    }
    buffer_clear(&heads.text);
}

static void
send_not_modified(Thread *t, Conn *c, Request *r, const Found *found,
                  const FileAnswerFields *more)
{
    Http1Answer a = {0};
    const bool good = start(&a, "304 Not Modified", more) &&
                      add_validators(&a.head, found) == 0 &&
                      finish(t, c, r, &a, -1);
    buffer_clear(&a.head);
    close(found->fd);
    t->now = clock_now();
    if (good) {
        send_out(t, c, output_last(c));
    } else {
        give_up(t, c);
    }
}

static void
refuse_range(Thread *t, Conn *c, Request *r, const Found *found,
             const FileAnswerFields *more)
{
    char field[64];
    snprintf(field, sizeof field, "Content-Range: bytes */%llu\r\n",
             (unsigned long long)found->size);
    close(found->fd);
    file_answer_refuse(t, c, r, "416 Range Not Satisfiable", field, more,
                       "no byte of the range is in the file");
}

void
file_answer_send(Thread *t, Conn *c, Request *r, Found *found,
                 const FileAnswerFields *more)
{
    const char *base = r->buffer + r->start;
    const int64_t now = time(NULL);
    Ranges ranges;

    switch (conditions_judge(&r->head, base, &found->validator, now)) {
    case CONDITIONS_NOT_MODIFIED:
        send_not_modified(t, c, r, found, more);
        return;
    case CONDITIONS_FAILED:
        close(found->fd);
        file_answer_refuse(t, c, r, "412 Precondition Failed", "", more,
                           "the file is another version");
        return;
    case CONDITIONS_SERVE:
        break;
    }
    /* Ranges are for GET (RFC 9110 section 14.2). */
    if (r->head.is_head ||
        !conditions_allow_range(&r->head, base, &found->validator, now)) {
        send_one(t, c, r, found, more, NULL);
        return;
    }
    switch (ranges_read(&r->head, base, found->size, &ranges)) {
    case RANGES_IGNORED:
        send_one(t, c, r, found, more, NULL);
        return;
    case RANGES_UNSATISFIABLE:
        refuse_range(t, c, r, found, more);
        return;
    case RANGES_FOUND:
        break;
    }
    if (ranges.count == 1) {
        send_one(t, c, r, found, more, &ranges.parts[0]);
    } else {
        send_several(t, c, r, found, more, &ranges);
    }
}
