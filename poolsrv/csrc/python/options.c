/* Binding: options by name, and _core.OPTIONS. */
#include "python/options.h"

#include <string.h>

#include "common/clock.h"

/* Some 300 years: far beyond what a setting may say, and the nanoseconds fit.
 */
#define MOST_SECONDS 1e10

static int
wrong_type(const Option *row, const char *wanted, PyObject *value)
{
    PyErr_Format(PyExc_TypeError, "the option %s must be %s, not %.100s",
                 row->name, wanted, Py_TYPE(value)->tp_name);
    return -1;
}

static int
read_seconds(const Option *row, PyObject *value, uint64_t *to)
{
    if (!PyFloat_Check(value) && !PyLong_Check(value)) {
        return wrong_type(row, "a number of seconds", value);
    }
    const double seconds = PyFloat_AsDouble(value);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (!(seconds >= 0 && seconds <= MOST_SECONDS)) {
        PyErr_Format(PyExc_ValueError,
                     "the option %s must be from 0 to 1e10 seconds", row->name);
        return -1;
    }
    *to = (uint64_t)(seconds * (double)CLOCK_SECOND);
    return 0;
}

static int
read_number(const Option *row, PyObject *value, uint64_t most, uint64_t *to)
{
    if (!PyLong_Check(value)) {
        return wrong_type(row, "an int", value);
    }
    const unsigned long long number = PyLong_AsUnsignedLongLong(value);
    if (number == (unsigned long long)-1 && PyErr_Occurred()) {
        return -1;
    }
    if (number > most) {
        PyErr_Format(PyExc_OverflowError, "the option %s is too large",
                     row->name);
        return -1;
    }
    *to = number;
    return 0;
}

static int
read_choice(const Option *row, PyObject *value, uint32_t *to)
{
    if (!PyUnicode_Check(value)) {
        return wrong_type(row, "a str", value);
    }
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL) {
        return -1;
    }
    uint32_t index = 0;
    for (const char *at = row->values; *at; index++) {
        const char *word = at + 1;
        const size_t length = strcspn(word, "|");
        if ((size_t)size == length && memcmp(word, text, length) == 0) {
            *to = index;
            return 0;
        }
        at = word + length;
    }
    PyErr_Format(PyExc_ValueError, "the option %s must be one of %s, not %R",
                 row->name, row->values + 1, value);
    return -1;
}

static int
read_choices(const Option *row, PyObject *value, uint32_t *to)
{
    if (!PyTuple_Check(value)) {
        return wrong_type(row, "a tuple", value);
    }
    *to = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); i++) {
        uint32_t which;
        if (read_choice(row, PyTuple_GET_ITEM(value, i), &which) < 0) {
            return -1;
        }
        *to |= 1u << which;
    }
    return 0;
}

static int
read_name(const Option *row, PyObject *value, OptionName *to)
{
    if (!PyUnicode_Check(value)) {
        return wrong_type(row, "a str", value);
    }
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL) {
        return -1;
    }
    if ((size_t)size > sizeof to->text) {
        PyErr_Format(PyExc_ValueError, "the option %s is too long", row->name);
        return -1;
    }
    to->size = (uint32_t)size;
    memcpy(to->text, text, (size_t)size);
    return 0;
}

static int
read_option(const Option *row, PyObject *value, char *place)
{
    uint64_t *const wide = (uint64_t *)(void *)place;
    uint64_t number;
    switch (row->kind) {
    case OPTION_SECONDS:
        return read_seconds(row, value, wide);
    case OPTION_BYTES:
        return read_number(row, value, UINT64_MAX, wide);
    case OPTION_BOUND:
        if (read_number(row, value, UINT64_MAX, &number) < 0) {
            return -1;
        }
        *wide = number ? number : UINT64_MAX;
        return 0;
    case OPTION_COUNT:
        if (read_number(row, value, UINT32_MAX, &number) < 0) {
            return -1;
        }
        *(uint32_t *)(void *)place = (uint32_t)number;
        return 0;
    case OPTION_SWITCH:
        if (!PyBool_Check(value)) {
            return wrong_type(row, "a bool", value);
        }
        *(bool *)(void *)place = value == Py_True;
        return 0;
    case OPTION_NAME:
        return read_name(row, value, (OptionName *)(void *)place);
    case OPTION_CHOICE:
        return read_choice(row, value, (uint32_t *)(void *)place);
    case OPTION_CHOICES:
        return read_choices(row, value, (uint32_t *)(void *)place);
    }
    Py_UNREACHABLE();
}

int
core_read_options(PyObject *given, const Option *rows, size_t count, void *to)
{
    for (size_t i = 0; i < count; i++) {
        PyObject *value = PyMapping_GetItemString(given, rows[i].name);
        if (value == NULL) {
            if (PyErr_ExceptionMatches(PyExc_KeyError)) {
                PyErr_Format(PyExc_TypeError, "the option %s is missing",
                             rows[i].name);
            }
            return -1;
        }
        const int result =
            read_option(&rows[i], value, (char *)to + rows[i].offset);
        Py_DECREF(value);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

int
core_add_options(PyObject *module)
{
#define NAME(kind, name, values) #name,
    static const char *const names[] = {
        SUPERVISOR_OPTIONS(NAME) //
        WORKER_OPTIONS(NAME)     //
    };
#undef NAME
    PyObject *all = PyFrozenSet_New(NULL);
    int result = all ? 0 : -1;
    for (size_t i = 0; !result && i < sizeof names / sizeof names[0]; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        result = name ? PySet_Add(all, name) : -1;
        Py_XDECREF(name);
    }
    if (!result) {
        result = PyModule_AddObjectRef(module, "OPTIONS", all);
    }
    Py_XDECREF(all);
    return result;
}
