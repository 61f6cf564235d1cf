/* Filling a struct of options from a mapping, by name. */
#ifndef POOLSRV_PYTHON_OPTIONS_H
#define POOLSRV_PYTHON_OPTIONS_H

#include "python/core.h"

#include <stddef.h>

#include "common/options.h"

typedef enum {
    OPTION_SECONDS,
    OPTION_BYTES,
    OPTION_BOUND,
    OPTION_COUNT,
    OPTION_SWITCH,
    OPTION_CHOICE,
    OPTION_CHOICES,
    OPTION_NAME,
} OptionKind;

/* A row of a table, and where it goes in the struct made of that table. */
typedef struct {
    const char *name;
    OptionKind kind;
    const char *values;
    size_t offset;
} Option;

/* For a macro O(kind, name, values) of the file that knows the struct. */
#define OPTION_ROW(type, kind_, name_, values_) \
    {.name = #name_,                            \
     .kind = OPTION_##kind_,                    \
     .values = (values_),                       \
     .offset = offsetof(type, name_)},

/* Every option of `rows` must be in the mapping; what else is there is not
 * looked at. 0, or -1 and exception: TypeError for one that is missing or of
 * the wrong type, OverflowError or ValueError for its value. */
int core_read_options(PyObject *given, const Option *rows, size_t count,
                      void *to);

/* The names of all options that the core knows, as a frozenset. */
int core_add_options(PyObject *module);

#endif
