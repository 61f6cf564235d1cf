/* Lists in fields, from the right: see field_list.h. */
#include "protocol/field_list.h"

#include "protocol/lex.h"

FieldList
field_list_open(const Http1Head *head, const char *base, Http1FieldId id)
{
    return (FieldList){
        .head = head,
        .base = base,
        .id = id,
        .field = (head->seen & HTTP1_BIT(id)) != 0 ? head->count : 0,
    };
}

/* Where the quoted string that ends at `close` begins, or `start` if nowhere.
 * A quote inside has an odd number of backslashes before it. */
static uint32_t
opening_quote(const char *base, uint32_t start, uint32_t close)
{
    uint32_t i = close;
    while (i > start) {
        uint32_t first;
        if (base[--i] != '"') {
            continue;
        }
        for (first = i; first > start && base[first - 1] == '\\'; first--)
            ;
        if ((i - first) % 2 == 0) {
            return i;
        }
        i = first;
    }
    return start;
}

/* Read forwards, a quote that the client left open would swallow what the
 * proxy wrote behind it. Read backwards, it is never reached. */
static Http1Span
cut_last(Http1Span *left, const char *base)
{
    const uint32_t start = left->at;
    uint32_t end = start + left->len;
    uint32_t at = end;

    while (at > start && base[at - 1] != ',') {
        at--;
        if (base[at] == '"') {
            at = opening_quote(base, start, at);
        }
    }
    left->len = at > start ? at - 1 - start : 0;
    while (at < end && is_space(base[at])) {
        at++;
    }
    while (end > at && is_space(base[end - 1])) {
        end--;
    }
    return (Http1Span){.at = at, .len = end - at};
}

bool
field_list_previous(FieldList *list, Http1Span *member)
{
    for (;;) {
        if (list->left.len == 0) {
            const Http1Field *field;
            if (list->field == 0) {
                return false;
            }
            field = &list->head->fields[--list->field];
            if (field->id == list->id) {
                list->left = field->value;
            }
            continue;
        }
        *member = cut_last(&list->left, list->base);
        if (member->len > 0) {
            return true;
        }
    }
}
