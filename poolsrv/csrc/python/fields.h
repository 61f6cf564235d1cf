/* The table of the scoreboard's fields (scoreboard_fields.h), as bindings read
 * it: FIELDS of the module, and what Scoreboard finds by a place in it. */
#ifndef POOLSRV_FIELDS_H
#define POOLSRV_FIELDS_H

#include "python/core.h"

typedef enum { ROW_SUPERVISOR, ROW_SLOT, ROW_WORKER, ROW_THREAD } Row;

typedef struct {
    Row row;
    const char *name, *kind, *unit, *metric, *label, *help;
    uint16_t index, words;
} Field;

/* NULL if there are fewer. */
const Field *fields_at(size_t place);

/* Words of a row: where its last field ends. */
size_t fields_row_words(Row row);

#endif
