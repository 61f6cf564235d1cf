/* Binding: FIELDS, UPPERS, BOUNDS and the constants of the scoreboard. */
#include "python/fields.h"

#define FIELD(row_, type, field, kind_, words_, unit_, metric_, label_, help_) \
    {.row = (row_),                                                            \
     .name = #field,                                                           \
     .kind = #kind_,                                                           \
     .unit = (unit_),                                                          \
     .metric = (metric_),                                                      \
     .label = (label_),                                                        \
     .help = (help_),                                                          \
     .index = offsetof(type, field) / sizeof(Word),                            \
     .words = (words_)},
#define SUPERVISOR(...) FIELD(ROW_SUPERVISOR, SupervisorRow, __VA_ARGS__)
#define SLOT(...) FIELD(ROW_SLOT, SlotRow, __VA_ARGS__)
#define WORKER(...) FIELD(ROW_WORKER, WorkerRow, __VA_ARGS__)
#define THREAD(...) FIELD(ROW_THREAD, ThreadRow, __VA_ARGS__)

static const Field fields[] = {
    SCOREBOARD_SUPERVISOR_FIELDS(SUPERVISOR) //
    SCOREBOARD_SLOT_FIELDS(SLOT)             //
    SCOREBOARD_WORKER_FIELDS(WORKER)         //
    SCOREBOARD_THREAD_FIELDS(THREAD)         //
};

#undef FIELD
#undef SUPERVISOR
#undef SLOT
#undef WORKER
#undef THREAD

#define FIELD_COUNT (sizeof fields / sizeof fields[0])

static const char *const row_names[] = {"supervisor", "slot", "worker",
                                        "thread"};

const Field *
fields_at(size_t place)
{
    return place < FIELD_COUNT ? &fields[place] : NULL;
}

size_t
fields_row_words(Row row)
{
    size_t i, words = 0;
    for (i = 0; i < FIELD_COUNT; i++) {
        if (fields[i].row == row) {
            words = (size_t)fields[i].index + fields[i].words;
        }
    }
    return words;
}

static PyObject *
fields_tuple(void)
{
    size_t i;
    PyObject *tuple = PyTuple_New(FIELD_COUNT);
    if (tuple == NULL) {
        return NULL;
    }
    for (i = 0; i < FIELD_COUNT; i++) {
        const Field *f = &fields[i];
        PyObject *item = Py_BuildValue("sssiissss", row_names[f->row], f->name,
                                       f->kind, (int)f->index, (int)f->words,
                                       f->unit, f->metric, f->label, f->help);
        if (item == NULL) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, item);
    }
    return tuple;
}

static PyObject *
numbers_tuple(const uint64_t *numbers, size_t count)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; tuple && i < count; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(numbers[i]);
        if (value == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, value);
        }
    }
    return tuple;
}

/* The longest time in each bucket of a histogram but the last. */
static PyObject *
uppers_tuple(void)
{
    uint64_t uppers[HISTOGRAM_BUCKETS - 1];
    for (uint64_t i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
        uppers[i] = histogram_upper(i);
    }
    return numbers_tuple(uppers, HISTOGRAM_BUCKETS - 1);
}

static PyObject *
bounds_tuple(void)
{
#define BOUND(x, bound) bound,
    static const uint64_t bounds[] = {HISTOGRAM_BOUNDS(BOUND, 0)};
#undef BOUND
    return numbers_tuple(bounds, HISTOGRAM_BOUND_COUNT);
}

/* Add and give away; `value` may be NULL with an exception set. */
static int
add_constant(PyObject *module, const char *name, PyObject *value)
{
    int result = value ? PyModule_AddObjectRef(module, name, value) : -1;
    Py_XDECREF(value);
    return result;
}

static PyObject *
statuses_tuple(void)
{
#define STATUS(number, phrase) number,
    static const uint64_t statuses[] = {STATUS_PHRASES(STATUS)};
#undef STATUS
    return numbers_tuple(statuses, sizeof statuses / sizeof statuses[0]);
}

int
core_add_fields(PyObject *module)
{
#define CONSTANT(name) {#name, name},
#define LABELLED(name, text) CONSTANT(name)
    static const struct {
        const char *name;
        long value;
    } constants[] = {
        CONSTANT(THREAD_IDLE)        //
        CONSTANT(THREAD_APPLICATION) //
        CONSTANT(THREAD_READING)     //
        CONSTANT(THREAD_WRITING)     //
        CONSTANT(THREAD_UPGRADED)    //
        CONSTANT(THREAD_FILE)        //
        RESTART_REASONS(LABELLED)    //
    };
#undef CONSTANT
#undef LABELLED
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        if (PyModule_AddIntConstant(module, constants[i].name,
                                    constants[i].value) < 0) {
            return -1;
        }
    }
    if (add_constant(module, "FIELDS", fields_tuple()) < 0 ||
        add_constant(module, "UPPERS", uppers_tuple()) < 0 ||
        add_constant(module, "BOUNDS", bounds_tuple()) < 0 ||
        add_constant(module, "STATUSES", statuses_tuple()) < 0) {
        return -1;
    }
    return 0;
}
