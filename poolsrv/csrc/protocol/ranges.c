/* Range requests: see ranges.h. */
#include "protocol/ranges.h"

#include <string.h>

#include "protocol/lex.h"

/* Two parts that lie so near are sent as one: another head would be longer than
 * what lies between (section 15.3.7.2). */
#define NEAR 80

typedef struct {
    const char *at, *end;
} Reader;

static void
skip_spaces(Reader *r)
{
    while (r->at < r->end && is_space(*r->at)) {
        r->at++;
    }
}

static bool
take(Reader *r, char c)
{
    if (r->at == r->end || *r->at != c) {
        return false;
    }
    r->at++;
    return true;
}

/* 1*DIGIT; what does not fit is beyond the end of any file. */
static bool
take_number(Reader *r, uint64_t *number)
{
    const char *start = r->at;
    *number = 0;
    for (; r->at < r->end && is_digit(*r->at); r->at++) {
        *number = *number > UINT64_MAX / 10 - 1
                      ? UINT64_MAX / 10
                      : *number * 10 + (uint64_t)(*r->at - '0');
    }
    return r->at > start;
}

typedef enum { SPEC_BAD, SPEC_OUTSIDE, SPEC_FOUND } Spec;

/* `first "-" [ last ]` or `"-" suffix`. Spaces around the numbers are not in
 * the grammar, but Apache, nginx and Go take them. */
static Spec
take_spec(Reader *r, uint64_t length, Range *range)
{
    uint64_t first, last = UINT64_MAX;
    if (take(r, '-')) {
        skip_spaces(r);
        if (!take_number(r, &last)) {
            return SPEC_BAD;
        }
        range->size = last < length ? last : length;
        range->at = length - range->size;
        return range->size ? SPEC_FOUND : SPEC_OUTSIDE;
    }
    if (!take_number(r, &first)) {
        return SPEC_BAD;
    }
    skip_spaces(r);
    if (!take(r, '-')) {
        return SPEC_BAD;
    }
    skip_spaces(r);
    if (r->at < r->end && is_digit(*r->at) && take_number(r, &last) &&
        last < first) {
        return SPEC_BAD;
    }
    if (first >= length) {
        return SPEC_OUTSIDE;
    }
    range->at = first;
    range->size = (last < length ? last + 1 : length) - first;
    return SPEC_FOUND;
}

static bool
is_near(const Range *a, const Range *b)
{
    return a->at <= b->at + b->size + NEAR && b->at <= a->at + a->size + NEAR;
}

static void
join(Range *to, const Range *from)
{
    const uint64_t end = from->at + from->size;
    const uint64_t to_end = to->at + to->size;
    to->at = to->at < from->at ? to->at : from->at;
    to->size = (to_end > end ? to_end : end) - to->at;
}

/* The parts stand in the order in which they were asked for; one that was
 * joined stands where the first of it stood. No two of them are near each
 * other, so what is near their union is near the new one. False: they are too
 * many. */
static bool
add(Ranges *ranges, const Range *range)
{
    Range joined = *range;
    uint32_t kept = 0, place = RANGES_MOST;
    for (uint32_t i = 0; i < ranges->count; i++) {
        if (!is_near(&ranges->parts[i], range)) {
            ranges->parts[kept++] = ranges->parts[i];
            continue;
        }
        join(&joined, &ranges->parts[i]);
        if (place == RANGES_MOST) {
            place = kept++;
        }
    }
    if (place == RANGES_MOST) {
        if (kept == RANGES_MOST) {
            return false;
        }
        place = kept++;
    }
    ranges->parts[place] = joined;
    ranges->count = kept;
    return true;
}

RangesResult
ranges_read(const Http1Head *head, const char *base, uint64_t length,
            Ranges *ranges)
{
    const Http1Field *field = http1_only(head, HTTP1_RANGE);
    /* Of an empty file the whole is as good as any part, and some clients ask
     * for parts always. */
    if (field == NULL || length == 0 || field->value.len < 6 ||
        !http1_is_word(base + field->value.at, 6, "bytes=")) {
        return RANGES_IGNORED;
    }
    Reader r = {.at = base + field->value.at + 6,
                .end = base + field->value.at + field->value.len};
    bool any = false;
    ranges->count = 0;
    while (r.at < r.end) {
        Range range;
        if (is_space(*r.at) || *r.at == ',') {
            r.at++; /* members of a list may be empty */
            continue;
        }
        const Spec spec = take_spec(&r, length, &range);
        skip_spaces(&r);
        if (spec == SPEC_BAD || (r.at < r.end && *r.at != ',') ||
            (spec == SPEC_FOUND && !add(ranges, &range))) {
            return RANGES_IGNORED;
        }
        any = true;
    }
    return ranges->count ? RANGES_FOUND
           : any         ? RANGES_UNSATISFIABLE
                         : RANGES_IGNORED;
}

/* ------------------------------------------------------------------------
 * Answers */

int
ranges_add_part(Buffer *out, const Range *part, uint64_t length)
{
    return BUFFER_ADD_LITERAL(out, "bytes ") < 0 ||
                   buffer_add_number(out, part->at) < 0 ||
                   BUFFER_ADD_LITERAL(out, "-") < 0 ||
                   buffer_add_number(out, part->at + part->size - 1) < 0 ||
                   BUFFER_ADD_LITERAL(out, "/") < 0 ||
                   buffer_add_number(out, length) < 0
               ? -1
               : 0;
}

int
ranges_add_head(Buffer *out, const Ranges *ranges, uint32_t part,
                uint64_t length, const char *boundary, const char *type)
{
    return buffer_add_text(out, part ? "\r\n--" : "--") < 0 ||
                   buffer_add_text(out, boundary) < 0 ||
                   BUFFER_ADD_LITERAL(out, "\r\nContent-Type: ") < 0 ||
                   buffer_add_text(out, type) < 0 ||
                   BUFFER_ADD_LITERAL(out, "\r\nContent-Range: ") < 0 ||
                   ranges_add_part(out, &ranges->parts[part], length) < 0 ||
                   BUFFER_ADD_LITERAL(out, "\r\n\r\n") < 0
               ? -1
               : 0;
}

int
ranges_add_end(Buffer *out, const char *boundary)
{
    return BUFFER_ADD_LITERAL(out, "\r\n--") < 0 ||
                   buffer_add_text(out, boundary) < 0 ||
                   BUFFER_ADD_LITERAL(out, "--\r\n") < 0
               ? -1
               : 0;
}
