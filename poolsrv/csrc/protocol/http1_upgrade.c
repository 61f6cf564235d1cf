/* Requests for another protocol on the same connection: see http1.h. */
#include <string.h>

#include "protocol/lex.h"

/* Does a field of this id have the member `word`? */
static bool
has_member(const Http1Head *head, const char *base, Http1FieldId id,
           const char *word)
{
    bool found = false;
    for (uint32_t i = 0; i < head->count; i++) {
        const Http1Field *field = &head->fields[i];
        found |= field->id == id && http1_has_member(base + field->value.at,
                                                     field->value.len, word);
    }
    return found;
}

bool
http1_upgrade_asked(const Http1Head *head, const char *base)
{
    return http1_upgrade_seen(head) && head->minor == 1 && !head->chunked &&
           head->content_length <= 0 && head->method.len == 3 &&
           memcmp(base + head->method.at, "GET", 3) == 0 &&
           has_member(head, base, HTTP1_CONNECTION, "upgrade");
}

bool
http1_upgrade_names(const Http1Head *head, const char *base,
                    const char *protocol)
{
    return has_member(head, base, HTTP1_UPGRADE, protocol);
}
