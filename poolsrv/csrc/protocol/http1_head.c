/* The parser of heads: see http1.h.
 *
 * When a fault is found: a byte is judged when it is read, a field when its
 * line is complete, the fields together at the blank line. Each verdict thus
 * hangs on the bytes up to one place, and not on how they came.
 *
 * Measured on a machine of 2 cores: 40 bytes of wrk in 35 ns, 93 of curl in
 * 60 ns, 646 of a browser (16 fields) in 265 ns.
 *
 * Long, because it follows the grammar, from the first byte to the last.
 */
#include "protocol/lex.h"

#include <string.h>

/* The first byte that is no value byte, or `end`. Eight at a time: half of a
 * browser's head is Cookie, User-Agent and Accept. */
static inline uint32_t
value_end(const char *in, uint32_t i, uint32_t end)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    const uint64_t tops = ones * 0x80;
    for (; end - i >= 8; i += 8) {
        uint64_t word;
        memcpy(&word, in + i, sizeof(word));
        const uint64_t delete = word ^ (ones * 0x7f);
        /* The top bit of a byte is set in `stop` if the byte is below 0x20
         * or is 0x7f; a borrow may also set it above such a byte, never
         * without one. */
        const uint64_t stop =
            ((word - ones * 0x20) & ~word) | ((delete - ones) & ~delete);
        if ((stop & tops) != 0) {
            break;
        }
    }
    while (i < end && is_value_byte(in[i])) {
        i++;
    }
    return i;
}

typedef enum {
    EMPTY_LINE, /* one may come before the request line */
    EMPTY_LINE_LF,
    IN_METHOD,
    TARGET,
    IN_SCHEME,
    IN_AUTHORITY,
    IN_PATH,
    ESCAPE_HIGH,
    ESCAPE_LOW,
    IN_QUERY,
    TARGET_END,
    IN_VERSION,
    REQUEST_LINE_LF,
} LineState;

typedef enum {
    FIELD,
    IN_NAME,
    SPACE,
    IN_VALUE,
    FIELD_LF,
    BLANK_LINE_LF,
} FieldState;

void
http1_head_init(Http1Head *head, Http1Field *fields)
{
    *head = (Http1Head){.content_length = -1, .fields = fields};
}

/* Where reading the current line must stop: at the end of what is there, of
 * the room for the head, or of the room for the line and its CRLF. */
static inline uint32_t
line_end(const Http1Head *head, uint32_t line, uint32_t room, size_t size)
{
    const uint64_t end = (uint64_t)head->line + line + 2;
    const uint64_t least = end < room ? end : room;
    return (uint32_t)(least < size ? least : size);
}

/* Reading stopped before the line was over: what that means. */
static Http1Result
line_open(const Http1Head *head, uint32_t line, uint32_t room,
          Http1Result too_long)
{
    if (head->at == (uint64_t)head->line + line + 2) {
        return too_long;
    }
    return head->at == room ? HTTP1_LONG_HEAD : HTTP1_PARTIAL;
}

/* The first byte at or after `i` that is not of the class, or `end`. */
static inline uint32_t
skip(const char *in, uint32_t i, uint32_t end, int class)
{
    while (i < end && is(in[i], class)) {
        i++;
    }
    return i;
}

static inline bool
method_is(const Http1Head *head, const char *in, const char *method)
{
    return head->method.len == strlen(method) &&
           memcmp(in + head->method.at, method, strlen(method)) == 0;
}

/* method SP request-target SP HTTP-version CRLF, RFC 9112 section 3. */
static Http1Result
request_line(Http1Head *head, const Http1Limits *limits, const char *in,
             size_t size)
{
    static const char scheme[] = "http://";
    static const char version[] = "HTTP/#.#"; /* #: a digit */
    uint32_t end = line_end(head, limits->line, limits->head, size);
    uint32_t i = head->at;
    uint32_t start;
    LineState state = head->state;

    while (i < end) {
        switch (state) {
        case EMPTY_LINE: /* RFC 9112 section 2.2 */
            head->method.at = i;
            state = IN_METHOD;
            if (in[i] == '\r') {
                i++;
                state = EMPTY_LINE_LF;
            }
            break;
        case EMPTY_LINE_LF:
            if (in[i] != '\n') {
                return HTTP1_BAD_LINE_END;
            }
            i++;
            head->line = i;
            head->method.at = i;
            end = line_end(head, limits->line, limits->head, size);
            state = IN_METHOD;
            break;
        case IN_METHOD:
            i = skip(in, i, end, TCHAR);
            if (i == end) {
                break;
            }
            head->method.len = i - head->method.at;
            if (in[i] != ' ' || head->method.len == 0) {
                return bad_byte(in[i], HTTP1_BAD_METHOD);
            }
            if (method_is(head, in, "CONNECT")) {
                return HTTP1_CONNECT;
            }
            head->is_head = method_is(head, in, "HEAD");
            i++;
            head->target.at = i;
            state = TARGET;
            break;
        case TARGET: /* origin-, asterisk- or absolute-form */
            state = IN_SCHEME;
            if (in[i] == '/') {
                head->path.at = i;
                state = IN_PATH;
            } else if (in[i] == '*') {
                if (!method_is(head, in, "OPTIONS")) {
                    return HTTP1_BAD_TARGET;
                }
                i++;
                head->path.at = i;
                state = TARGET_END;
            }
            break;
        case IN_SCHEME:
            if (lower(in[i]) != scheme[i - head->target.at]) {
                return HTTP1_BAD_TARGET;
            }
            i++;
            if (i - head->target.at == strlen(scheme)) {
                head->host.at = i;
                state = IN_AUTHORITY;
            }
            break;
        case IN_AUTHORITY:
            i = skip(in, i, end, AUTHORITY);
            if (i == end) {
                break;
            }
            head->host.len = i - head->host.at;
            if (!http1_is_host(in + head->host.at, head->host.len)) {
                return HTTP1_BAD_TARGET;
            }
            head->path.at = i;
            if (in[i] == '/') {
                state = IN_PATH;
                break;
            }
            if (in[i] == '?' || !method_is(head, in, "OPTIONS")) {
                /* http://host means http://host/ (RFC 9110 section 4.2.3),
                 * except in OPTIONS, where it means `*`: borrow a slash. */
                head->path = (Http1Span){.at = head->host.at - 1, .len = 1};
            }
            state = TARGET_END;
            break;
        case IN_PATH:
            i = skip(in, i, end, PATH);
            if (i == end) {
                break;
            }
            if (in[i] == '%') {
                i++;
                state = ESCAPE_HIGH;
                break;
            }
            head->path.len = i - head->path.at;
            state = TARGET_END;
            break;
        case ESCAPE_HIGH:
        case ESCAPE_LOW:
            if (hex(in[i]) < 0) {
                return HTTP1_BAD_TARGET;
            }
            i++;
            state = state == ESCAPE_HIGH ? ESCAPE_LOW : IN_PATH;
            break;
        case IN_QUERY:
            i = skip(in, i, end, QUERY);
            if (i == end) {
                break;
            }
            head->query.len = i - head->query.at;
            state = TARGET_END;
            break;
        case TARGET_END:
            if (in[i] == '?' && head->path.len > 0) {
                i++;
                head->query.at = i;
                state = IN_QUERY;
                break;
            }
            if (in[i] == '\r') { /* as in HTTP/0.9, which had none */
                return HTTP1_BAD_VERSION;
            }
            if (in[i] != ' ') {
                return bad_byte(in[i], HTTP1_BAD_TARGET);
            }
            head->target.len = i - head->target.at;
            i++;
            state = IN_VERSION;
            break;
        case IN_VERSION:
            start = head->target.at + head->target.len + 1;
            if (i - start < strlen(version)) {
                const char wanted = version[i - start];
                if (wanted == '#' ? !is_digit(in[i]) : in[i] != wanted) {
                    return bad_byte(in[i], HTTP1_BAD_VERSION);
                }
                i++;
                break;
            }
            if (in[i] != '\r') {
                return bad_byte(in[i], HTTP1_BAD_VERSION);
            }
            if (in[i - 3] != '1' || in[i - 1] > '1') {
                return HTTP1_OTHER_VERSION;
            }
            head->minor = (uint8_t)(in[i - 1] - '0');
            i++;
            state = REQUEST_LINE_LF;
            break;
        case REQUEST_LINE_LF:
            if (in[i] != '\n') {
                return HTTP1_BAD_LINE_END;
            }
            i++;
            head->at = i;
            head->line = i;
            head->state = FIELD;
            head->in_fields = true;
            return HTTP1_DONE;
        }
    }
    head->at = i;
    head->state = (uint8_t)state;
    return line_open(head, limits->line, limits->head, HTTP1_LONG_LINE);
}

/* Fields that may stand once, or two readers may see two messages. */
static const uint64_t SINGLE =
    HTTP1_BIT(HTTP1_HOST) | HTTP1_BIT(HTTP1_CONTENT_LENGTH) |
    HTTP1_BIT(HTTP1_CONTENT_TYPE) | HTTP1_BIT(HTTP1_TRANSFER_ENCODING);

/* Learn what the parser itself must know from a field that is complete. */
static Http1Result
judge_field(Http1Head *head, const Http1Field *field, const char *in)
{
    const char *value = in + field->value.at;
    const size_t size = field->value.len;

    if ((head->seen & SINGLE & HTTP1_BIT(field->id)) != 0) {
        return HTTP1_REPEATED_FIELD;
    }
    head->seen |= HTTP1_BIT(field->id);
    switch (field->id) {
    case HTTP1_HOST: /* RFC 9112 section 3.2: it may be empty */
        if (size > 0 && !http1_is_host(value, size)) {
            return HTTP1_BAD_HOST;
        }
        if (head->host.len == 0) {
            head->host = field->value;
        } else if (!http1_same_text(in + head->host.at, head->host.len, value,
                                    size)) {
            return HTTP1_OTHER_HOST;
        }
        return HTTP1_DONE;
    case HTTP1_CONTENT_LENGTH:
        head->content_length = http1_decimal(value, size);
        return head->content_length < 0 ? HTTP1_BAD_LENGTH : HTTP1_DONE;
    case HTTP1_TRANSFER_ENCODING:
        /* RFC 9112 section 6.1 would have 501 for a coding that is only
         * unknown; but what is not exactly this is mostly an attack. In 1.0
         * the framing is faulty whatever it says. */
        head->chunked =
            head->minor == 1 && http1_is_word(value, size, "chunked");
        return head->chunked ? HTTP1_DONE : HTTP1_BAD_CODING;
    case HTTP1_CONNECTION:
        head->close |= http1_has_member(value, size, "close");
        head->keep_alive |= http1_has_member(value, size, "keep-alive");
        return HTTP1_DONE;
    case HTTP1_EXPECT: /* RFC 9110 section 10.1.1: 1.0 cannot expect */
        if (head->minor == 0) {
            return HTTP1_DONE;
        }
        head->expect_continue = http1_is_word(value, size, "100-continue");
        return head->expect_continue ? HTTP1_DONE : HTTP1_BAD_EXPECT;
    default:
        return HTTP1_DONE;
    }
}

/* Judge the fields together: RFC 9112 sections 3.2, 6.3 and 9.3. */
static Http1Result
judge_fields(Http1Head *head)
{
    if (head->minor == 1 && (head->seen & HTTP1_BIT(HTTP1_HOST)) == 0) {
        return HTTP1_NO_HOST;
    }
    if (head->chunked && head->content_length >= 0) {
        return HTTP1_TWO_LENGTHS;
    }
    head->keep_alive = !head->close && (head->minor == 1 || head->keep_alive);
    return HTTP1_DONE;
}

/* *( field-name ":" OWS field-value OWS CRLF ) CRLF, RFC 9112 section 5. */
static Http1Result
fields(Http1Head *head, const Http1Limits *limits, const char *in, size_t size)
{
    uint32_t end = line_end(head, limits->field_size, limits->head, size);
    uint32_t i = head->at;
    Http1Field *field = &head->fields[head->count];
    FieldState state = head->state;

    while (i < end) {
        switch (state) {
        case FIELD:
            if (in[i] == '\r') {
                i++;
                state = BLANK_LINE_LF;
                break;
            }
            if (is_space(in[i])) {
                return HTTP1_FOLDED_FIELD;
            }
            if (head->count + head->dropped == limits->fields) {
                return HTTP1_MANY_FIELDS;
            }
            head->drop = false;
            field->name.at = i;
            state = IN_NAME;
            break;
        case IN_NAME:
            i = skip(in, i, end, NAME);
            if (i == end) {
                break;
            }
            if (in[i] == '_') {
                head->drop = true;
                i++;
                break;
            }
            field->name.len = i - field->name.at;
            if (in[i] != ':' || field->name.len == 0) {
                return bad_byte(in[i], HTTP1_BAD_FIELD_NAME);
            }
            i++;
            state = SPACE;
            break;
        case SPACE:
            if (is_space(in[i])) {
                i++;
                break;
            }
            field->value.at = i;
            state = IN_VALUE;
            break;
        case IN_VALUE:
            i = value_end(in, i, end);
            if (i == end) {
                break;
            }
            if (in[i] != '\r') {
                return bad_byte(in[i], HTTP1_BAD_FIELD_VALUE);
            }
            field->value.len = i - field->value.at;
            while (field->value.len > 0 &&
                   is_space(in[field->value.at + field->value.len - 1])) {
                field->value.len--;
            }
            i++;
            state = FIELD_LF;
            break;
        case FIELD_LF:
            if (in[i] != '\n') {
                return HTTP1_BAD_LINE_END;
            }
            i++;
            if (head->drop) {
                head->dropped++;
            } else {
                field->id =
                    http1_field_id(in + field->name.at, field->name.len);
                const Http1Result result = judge_field(head, field, in);
                if (result != HTTP1_DONE) {
                    return result;
                }
                head->count++;
                field++;
            }
            head->line = i;
            end = line_end(head, limits->field_size, limits->head, size);
            state = FIELD;
            break;
        case BLANK_LINE_LF:
            if (in[i] != '\n') {
                return HTTP1_BAD_LINE_END;
            }
            head->length = i + 1;
            return judge_fields(head);
        }
    }
    head->at = i;
    head->state = (uint8_t)state;
    return line_open(head, limits->field_size, limits->head, HTTP1_LONG_FIELD);
}

Http1Result
http1_head_parse(Http1Head *head, const Http1Limits *limits, const char *buffer,
                 size_t size)
{
    if (!head->in_fields) {
        const Http1Result result = request_line(head, limits, buffer, size);
        if (result != HTTP1_DONE) {
            return result;
        }
    }
    return fields(head, limits, buffer, size);
}

ptrdiff_t
http1_unescape(char *out, const char *in, size_t size)
{
    size_t length = 0;
    for (size_t i = 0; i < size; i++) {
        char c = in[i];
        if (c == '%') {
            if (size - i < 3 || hex(in[i + 1]) < 0 || hex(in[i + 2]) < 0) {
                return -1;
            }
            c = (char)(hex(in[i + 1]) << 4 | hex(in[i + 2]));
            i += 2;
        }
        out[length++] = c;
    }
    return (ptrdiff_t)length;
}

int
http1_status(Http1Result result)
{
    switch (result) {
#define X(name, status, words) \
    case name:                 \
        return status;
        HTTP1_RESULTS(X)
#undef X
    }
    return 0;
}

const char *
http1_words(Http1Result result)
{
    switch (result) {
#define X(name, status, words) \
    case name:                 \
        return words;
        HTTP1_RESULTS(X)
#undef X
    }
    return "";
}
