/* Conditional requests: see conditions.h. */
#include "protocol/conditions.h"

#include <string.h>

#include "protocol/http_date.h"
#include "protocol/lex.h"

#define CONDITIONAL                                               \
    (HTTP1_BIT(HTTP1_IF_MATCH) | HTTP1_BIT(HTTP1_IF_NONE_MATCH) | \
     HTTP1_BIT(HTTP1_IF_MODIFIED_SINCE) |                         \
     HTTP1_BIT(HTTP1_IF_UNMODIFIED_SINCE))

static bool
is_etagc(char c)
{
    const unsigned char u = (unsigned char)c;
    return u >= 0x21 && u != '"' && u != 0x7f;
}

/* An entity tag at the start of the text: its size, or 0. */
static size_t
tag_size(const char *text, size_t size)
{
    const size_t quote = size > 2 && text[0] == 'W' && text[1] == '/' ? 2 : 0;
    if (size <= quote || text[quote] != '"') {
        return 0;
    }
    size_t i = quote + 1;
    while (i < size && is_etagc(text[i])) {
        i++;
    }
    return i < size && text[i] == '"' ? i + 1 : 0;
}

/* Section 8.8.3.2: strongly, neither of the two may be weak. */
static bool
same_tag(const char *text, size_t size, const Validator *is, bool strongly)
{
    const bool weak = text[0] == 'W';
    const size_t skipped = weak ? 2 : 0;
    return !(strongly && (weak || is->weak)) &&
           size - skipped == is->tag_size &&
           memcmp(text + skipped, is->tag, is->tag_size) == 0;
}

/* Whether a list of entity tags has the validator's. What is malformed matches
 * nothing, and hides what stands behind it. */
static bool
list_matches(const char *text, size_t size, const Validator *is, bool strongly)
{
    size_t i = 0;
    while (i < size) {
        if (is_space(text[i]) || text[i] == ',') {
            i++;
            continue;
        }
        const size_t tag = tag_size(text + i, size - i);
        if (tag == 0) {
            return false;
        }
        if (same_tag(text + i, tag, is, strongly)) {
            return true;
        }
        i += tag;
        while (i < size && is_space(text[i])) {
            i++;
        }
        if (i < size && text[i] != ',') {
            return false;
        }
    }
    return false;
}

/* If-Match or If-None-Match, which may stand on several lines. "*" is any
 * version of what exists. */
static bool
field_matches(const Http1Head *head, const char *base, Http1FieldId id,
              const Validator *is, bool strongly)
{
    for (uint32_t i = 0; i < head->count; i++) {
        const Http1Field *field = &head->fields[i];
        const char *text = base + field->value.at;
        if (field->id == id &&
            ((field->value.len == 1 && *text == '*') ||
             list_matches(text, field->value.len, is, strongly))) {
            return true;
        }
    }
    return false;
}

/* The date in a field. One that is malformed, or stands twice, is ignored
 * (sections 13.1.3 and 13.1.4). */
static bool
field_date(const Http1Head *head, const char *base, Http1FieldId id,
           int64_t now, int64_t *seconds)
{
    const Http1Field *field = http1_only(head, id);
    return field && http_date_read(base + field->value.at, field->value.len,
                                   now, seconds);
}

/* Section 13.2.2, in its order. */
ConditionsResult
conditions_judge(const Http1Head *head, const char *base, const Validator *is,
                 int64_t now)
{
    int64_t date;
    if ((head->seen & CONDITIONAL) == 0) {
        return CONDITIONS_SERVE;
    }
    if (head->seen & HTTP1_BIT(HTTP1_IF_MATCH)) {
        if (!field_matches(head, base, HTTP1_IF_MATCH, is, true)) {
            return CONDITIONS_FAILED;
        }
    } else if (field_date(head, base, HTTP1_IF_UNMODIFIED_SINCE, now, &date) &&
               is->modified > date) {
        return CONDITIONS_FAILED;
    }
    if (head->seen & HTTP1_BIT(HTTP1_IF_NONE_MATCH)) {
        return field_matches(head, base, HTTP1_IF_NONE_MATCH, is, false)
                   ? CONDITIONS_NOT_MODIFIED
                   : CONDITIONS_SERVE;
    }
    return field_date(head, base, HTTP1_IF_MODIFIED_SINCE, now, &date) &&
                   is->modified <= date
               ? CONDITIONS_NOT_MODIFIED
               : CONDITIONS_SERVE;
}

/* Section 13.1.5: a tag must be the same strongly, a date exactly, and neither
 * may be of a file that can change unseen. */
bool
conditions_allow_range(const Http1Head *head, const char *base,
                       const Validator *is, int64_t now)
{
    int64_t date;
    if ((head->seen & HTTP1_BIT(HTTP1_IF_RANGE)) == 0) {
        return true;
    }
    const Http1Field *field = http1_only(head, HTTP1_IF_RANGE);
    if (field == NULL || is->weak) {
        return false;
    }
    const char *text = base + field->value.at;
    const size_t size = field->value.len;
    const size_t tag = tag_size(text, size);
    if (tag > 0) {
        return tag == size && same_tag(text, size, is, true);
    }
    return http_date_read(text, size, now, &date) && date == is->modified;
}
