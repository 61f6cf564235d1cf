/* The members of a list, from the last to the first.
 *
 * Several fields of a name are one list, RFC 9110 section 5.3. It is read
 * backwards because proxies append: what the nearest one wrote comes last. */
#ifndef POOLSRV_FIELD_LIST_H
#define POOLSRV_FIELD_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/http1.h"

typedef struct {
    const Http1Head *head;
    const char *base;
    Http1FieldId id;
    uint32_t field; /* the fields before it are unread */
    Http1Span left; /* of the value of that field, unread */
} FieldList;

FieldList field_list_open(const Http1Head *head, const char *base,
                          Http1FieldId id);

/* The member before; it is never empty. False: there are no more. */
bool field_list_previous(FieldList *list, Http1Span *member);

#endif
