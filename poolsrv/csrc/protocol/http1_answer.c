/* HTTP/1 answers: see http1_answer.h. */
#include "protocol/http1_answer.h"

#include <stdio.h>

#include "protocol/http_date.h"
#include "protocol/lex.h"
#include "common/status.h"

void
http1_date_write(Http1Date *date, time_t now)
{
    memcpy(date->text, "Date: ", 6);
    http_date_write(date->text + 6, now);
    memcpy(date->text + 6 + HTTP_DATE_SIZE, "\r\n", 3);
}

const char *
http1_answer_words(Http1AnswerResult result)
{
    static const char *const words[] = {
#define X(name, text) [name] = text,
        HTTP1_ANSWER_RESULTS(X)
#undef X
    };
    return words[result];
}

/* ------------------------------------------------------------------------
 * Status line and fields */

Http1AnswerResult
http1_answer_start(Http1Answer *a, const char *status, size_t size)
{
    unsigned number = 0;
    size_t digits = 0;
    while (digits < 3 && digits < size && is_digit(status[digits])) {
        number = number * 10 + (unsigned)(status[digits++] - '0');
    }
    if (digits != 3 || number < 200 || (size > 3 && status[3] != ' ') ||
        http1_has_control(status, size)) {
        return ANSWER_BAD_STATUS;
    }
    a->head.size = 0;
    a->content_length = -1;
    a->sent = 0;
    a->status = (uint16_t)number;
    a->framing = FRAMING_UNDECIDED;
    a->keep = a->closes = a->has_date = a->has_server = false;
    a->file.size = 0;
    if (buffer_reserve(&a->head, size + 16) < 0) {
        return ANSWER_NO_MEMORY;
    }
    BUFFER_ADD_LITERAL(&a->head, "HTTP/1.1 ");
    buffer_add(&a->head, status, size);
    /* The space stands even before an empty phrase (RFC 9112 section 4). */
    if (size == 3) {
        BUFFER_ADD_LITERAL(&a->head, " ");
    }
    BUFFER_ADD_LITERAL(&a->head, "\r\n");
    return ANSWER_DONE;
}

static bool
is_token(const char *text, size_t size)
{
    bool good = size > 0;
    for (size_t i = 0; i < size; i++) {
        good &= is(text[i], TCHAR);
    }
    return good;
}

/* Hop by hop too, and no field of requests. */
static bool
is_for_proxies(const char *name, size_t size)
{
    return lower(name[0]) == 'p' &&
           (http1_is_word(name, size, "proxy-authenticate") ||
            http1_is_word(name, size, "proxy-authorization"));
}

/* The last one counts. */
static Http1AnswerResult
set_file(Http1Answer *a, const char *value, size_t size)
{
    a->file.size = 0;
    return buffer_add(&a->file, value, size) < 0 ||
                   buffer_add(&a->file, "", 1) < 0
               ? ANSWER_NO_MEMORY
               : ANSWER_DONE;
}

static Http1AnswerResult
set_length(Http1Answer *a, const char *value, size_t size)
{
    const int64_t number = http1_decimal(value, size);
    if (number < 0) {
        return ANSWER_BAD_LENGTH;
    }
    if (a->content_length >= 0 && a->content_length != number) {
        return ANSWER_TWO_LENGTHS;
    }
    a->content_length = number;
    return ANSWER_DONE;
}

Http1AnswerResult
http1_answer_field(Http1Answer *a, const char *name, size_t name_size,
                   const char *value, size_t value_size)
{
    if (!is_token(name, name_size)) {
        return ANSWER_BAD_NAME;
    }
    if (http1_has_control(value, value_size)) {
        return ANSWER_BAD_VALUE;
    }
    switch (http1_field_id(name, name_size)) {
    case HTTP1_CONTENT_LENGTH:
        /* Kept as a number: http1_answer_head writes it where it belongs. */
        return set_length(a, value, value_size);
    case HTTP1_CONNECTION:
        a->closes |= http1_has_member(value, value_size, "close");
        return ANSWER_DONE;
    case HTTP1_KEEP_ALIVE: /* hop by hop (PEP 3333, RFC 9110 section 7.6.1) */
    case HTTP1_TE:
    case HTTP1_TRAILER:
    case HTTP1_TRANSFER_ENCODING:
        return ANSWER_DONE;
    case HTTP1_UPGRADE:
        if (a->status != 426) {
            return ANSWER_DONE;
        }
        /* This status has to name the protocol (RFC 9110 section 15.5.22), and
         * the field has to be named as one for the next hop (section 7.8). */
        if (BUFFER_ADD_LITERAL(&a->head, "Connection: upgrade\r\n") < 0) {
            return ANSWER_NO_MEMORY;
        }
        break;
    case HTTP1_DATE:
        a->has_date = true;
        break;
    case HTTP1_OTHER:
        if (is_for_proxies(name, name_size)) {
            return ANSWER_DONE;
        }
        if (a->takes_file && http1_is_word(name, name_size, "x-sendfile")) {
            return set_file(a, value, value_size);
        }
        a->has_server |= http1_is_word(name, name_size, "server");
        break;
    default:
        break;
    }
    if (buffer_reserve(&a->head, name_size + value_size + 4) < 0) {
        return ANSWER_NO_MEMORY;
    }
    char *to = a->head.data + a->head.size;
    memcpy(to, name, name_size);
    to += name_size;
    *to++ = ':';
    *to++ = ' ';
    memcpy(to, value, value_size);
    to += value_size;
    *to++ = '\r';
    *to++ = '\n';
    a->head.size = (size_t)(to - a->head.data);
    return ANSWER_DONE;
}

/* ------------------------------------------------------------------------
 * Framing */

/* What has no body whatever the application sends (RFC 9110 sections 15.3.5,
 * 15.3.6 and 15.4.5). */
static bool
is_bodiless(const Http1Answer *a)
{
    return a->status == 204 || a->status == 205 || a->status == 304;
}

static Http1Framing
decide_framing(Http1Answer *a, const Http1Asker *asker, int64_t length)
{
    if (a->status == 205) {
        a->content_length = 0;
        return FRAMING_NONE;
    }
    if (is_bodiless(a)) {
        if (a->status == 204) {
            a->content_length = -1;
        }
        return FRAMING_NONE;
    }
    /* A HEAD that is answered without a body tells nothing of GET's: many
     * frameworks leave it away, and a wrong length must not be sent (RFC 9110
     * section 8.6). */
    if (a->content_length < 0 && !(asker->is_head && length == 0)) {
        a->content_length = length;
    }
    if (asker->is_head) {
        return FRAMING_NONE;
    }
    if (a->content_length >= 0) {
        return FRAMING_LENGTH;
    }
    return asker->minor == 0 ? FRAMING_CLOSE : FRAMING_CHUNKED;
}

/* Does the head have a field of that name? */
static bool
has_field(const Http1Answer *a, const char *name, size_t size)
{
    const char *at = a->head.data, *end = at + a->head.size;
    while ((at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        at++;
        if ((size_t)(end - at) > size && at[size] == ':' &&
            http1_same_text(at, size, name, size)) {
            return true;
        }
    }
    return false;
}

static int
add_id(const Http1Answer *a, const Http1Asker *asker, Buffer *out)
{
    if (has_field(a, asker->id_field, asker->id_field_size)) {
        return 0;
    }
    return buffer_add(out, asker->id_field, asker->id_field_size) < 0 ||
                   BUFFER_ADD_LITERAL(out, ": ") < 0 ||
                   buffer_add_text(out, asker->id) < 0 ||
                   BUFFER_ADD_LITERAL(out, "\r\n") < 0
               ? -1
               : 0;
}

/* What the head is longer than status line and fields, at most, and without the
 * request's id. */
#define OWN_FIELDS 256

Http1AnswerResult
http1_answer_head(Http1Answer *a, const Http1Asker *asker, int64_t length,
                  Buffer *out)
{
    if (buffer_reserve(out, a->head.size + OWN_FIELDS) < 0) {
        return ANSWER_NO_MEMORY;
    }
    a->framing = decide_framing(a, asker, length);
    a->keep = asker->may_keep && !a->closes && a->framing != FRAMING_CLOSE;
    buffer_add(out, a->head.data, a->head.size);
    if (asker->id_field && add_id(a, asker, out) < 0) {
        return ANSWER_NO_MEMORY;
    }
    if (asker->date && !a->has_date) {
        buffer_add_text(out, asker->date);
    }
    if (asker->server && !a->has_server) {
        BUFFER_ADD_LITERAL(out, "Server: poolsrv\r\n");
    }
    if (a->content_length >= 0) {
        BUFFER_ADD_LITERAL(out, "Content-Length: ");
        buffer_add_number(out, (uint64_t)a->content_length);
        BUFFER_ADD_LITERAL(out, "\r\n");
    } else if (a->framing == FRAMING_CHUNKED) {
        BUFFER_ADD_LITERAL(out, "Transfer-Encoding: chunked\r\n");
    }
    if (!a->keep) {
        BUFFER_ADD_LITERAL(out, "Connection: close\r\n");
    } else if (asker->minor == 0) {
        BUFFER_ADD_LITERAL(out, "Connection: keep-alive\r\n");
    }
    BUFFER_ADD_LITERAL(out, "\r\n");
    return ANSWER_DONE;
}

void
http1_answer_forgo(Http1Answer *a)
{
    a->framing = FRAMING_FORGONE;
    a->keep = false;
}

size_t
http1_answer_allows(const Http1Answer *a, size_t size)
{
    if (a->framing <= FRAMING_NONE) { /* it is not undecided by now */
        return 0;
    }
    if (a->framing == FRAMING_LENGTH &&
        size > (uint64_t)(a->content_length - a->sent)) {
        return (size_t)(a->content_length - a->sent);
    }
    return size;
}

Http1AnswerResult
http1_answer_open(Http1Answer *a, size_t size, Buffer *out)
{
    a->sent += (int64_t)size;
    if (a->framing != FRAMING_CHUNKED) {
        return ANSWER_DONE;
    }
    char line[20];
    const int n = snprintf(line, sizeof line, "%zx\r\n", size);
    return buffer_add(out, line, (size_t)n) < 0 ? ANSWER_NO_MEMORY
                                                : ANSWER_DONE;
}

Http1AnswerResult
http1_answer_close(const Http1Answer *a, Buffer *out)
{
    return a->framing == FRAMING_CHUNKED && BUFFER_ADD_LITERAL(out, "\r\n") < 0
               ? ANSWER_NO_MEMORY
               : ANSWER_DONE;
}

Http1AnswerResult
http1_answer_end(const Http1Answer *a, Buffer *out)
{
    return a->framing == FRAMING_CHUNKED &&
                   BUFFER_ADD_LITERAL(out, "0\r\n\r\n") < 0
               ? ANSWER_NO_MEMORY
               : ANSWER_DONE;
}

bool
http1_answer_is_short(const Http1Answer *a)
{
    return a->framing == FRAMING_LENGTH && a->sent < a->content_length;
}

/* ------------------------------------------------------------------------
 * The server's own answers */

static const Http1Page *
page_for(const Http1Pages *pages, int status)
{
    for (uint32_t i = 0; pages && i < pages->count; i++) {
        if (pages->items[i].status == status) {
            return &pages->items[i];
        }
    }
    return NULL;
}

Http1Own
http1_answer_own(Buffer *out, const Http1Asker *asker, int status,
                 const char *fields, const char *text)
{
    Http1Answer a = {.content_length = -1};
    char line[64];
    const size_t before = out->size;
    const Http1Page *page = page_for(asker->pages, status);
    const char *end = page ? "" : "\n";
    const char *body = page ? page->body : text;
    const size_t size = page ? page->size : strlen(text);
    const size_t whole = size + strlen(end);
    const int n =
        snprintf(line, sizeof line, "%d %s", status, status_phrase(status));
    Http1Own own = {.keep = false};
    if (http1_answer_start(&a, line, (size_t)n) == ANSWER_DONE &&
        buffer_add_text(&a.head, fields) == 0 &&
        BUFFER_ADD_LITERAL(&a.head, "Content-Type: ") == 0 &&
        buffer_add_text(&a.head, page ? page->type : "text/plain") == 0 &&
        BUFFER_ADD_LITERAL(&a.head, "\r\n") == 0 &&
        http1_answer_head(&a, asker, (int64_t)whole, out) == ANSWER_DONE) {
        if (asker->is_head) {
            own.keep = a.keep;
        } else if (buffer_add(out, body, size) == 0 &&
                   buffer_add_text(out, end) == 0) {
            own = (Http1Own){.keep = a.keep, .body_size = (int64_t)whole};
        } else {
            out->size = before;
        }
    }
    buffer_clear(&a.head);
    return own;
}
