/* Binding: _core.Scoreboard.
 *
 * Long, because each kind of row is converted by a few lines. */
#include "python/fields.h"

#include <string.h>

#include "common/clock.h"
#include "common/forks.h"

typedef struct {
    PyObject_HEAD Scoreboard board;
    ForkGuard guard;
} ScoreboardObject;

Scoreboard *
core_scoreboard(CoreState *state, PyObject *object)
{
    if (!PyObject_TypeCheck(object, state->scoreboard_type)) {
        PyErr_Format(PyExc_TypeError, "a Scoreboard is needed, not %.100s",
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    return &((ScoreboardObject *)object)->board;
}

static PyObject *
scoreboard_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", NULL};
    ScoreboardObject *self;
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i:Scoreboard", names,
                                     &fd)) {
        return NULL;
    }
    self = (ScoreboardObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    if (scoreboard_attach(&self->board, fd) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    forks_guard(&self->guard, scoreboard_leave, &self->board);
    return (PyObject *)self;
}

static void
scoreboard_dealloc(ScoreboardObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->guard.leave) {
        forks_unguard(&self->guard);
    }
    scoreboard_detach(&self->board);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *
words_tuple(const Word *words, size_t count)
{
    size_t i;
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    if (tuple == NULL) {
        return NULL;
    }
    for (i = 0; i < count; i++) {
        /* A thread's gauge is a signed share: keep its sign. */
        PyObject *value = PyLong_FromLongLong((long long)word_get(&words[i]));
        if (value == NULL) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, value);
    }
    return tuple;
}

static int
slot_index(ScoreboardObject *self, PyObject *value, uint32_t *slot)
{
    unsigned long number = PyLong_AsUnsignedLong(value);
    if (number == (unsigned long)-1 && PyErr_Occurred()) {
        return -1;
    }
    if (number >= self->board.slot_count) {
        PyErr_Format(PyExc_IndexError, "slot %lu of %u", number,
                     self->board.slot_count);
        return -1;
    }
    *slot = (uint32_t)number;
    return 0;
}

static PyObject *
scoreboard_supervisor(ScoreboardObject *self, PyObject *Py_UNUSED(none))
{
    return words_tuple((Word *)(void *)self->board.supervisor,
                       fields_row_words(ROW_SUPERVISOR));
}

static PyObject *
scoreboard_slot(ScoreboardObject *self, PyObject *value)
{
    uint32_t slot;
    if (slot_index(self, value, &slot) < 0) {
        return NULL;
    }
    return words_tuple((Word *)(void *)&self->board.slots[slot],
                       fields_row_words(ROW_SLOT));
}

static PyObject *
scoreboard_worker(ScoreboardObject *self, PyObject *value)
{
    uint32_t slot;
    if (slot_index(self, value, &slot) < 0) {
        return NULL;
    }
    return words_tuple((Word *)(void *)&self->board.workers[slot],
                       fields_row_words(ROW_WORKER));
}

/* What the row with this field, a place in FIELDS, had counted before this
 * scoreboard was made; NULL and exception. `words` is how many it has. */
static Word *
carried_row(ScoreboardObject *self, unsigned place, PyObject *slot_object,
            size_t *words)
{
    const Field *field = fields_at(place);
    uint32_t slot;
    if (slot_index(self, slot_object, &slot) < 0) {
        return NULL;
    }
    if (field == NULL) {
        PyErr_Format(PyExc_KeyError, "no field %u", place);
        return NULL;
    }
    *words = fields_row_words(field->row);
    switch (field->row) {
    case ROW_SUPERVISOR:
        return (Word *)(void *)self->board.carried_supervisor;
    case ROW_SLOT:
        return (Word *)(void *)&self->board.carried_slots[slot];
    case ROW_WORKER:
        return (Word *)(void *)&self->board.carried_workers[slot];
    case ROW_THREAD:
    default:
        return (Word *)(void *)&self->board.carried_threads[slot];
    }
}

static PyObject *
scoreboard_carried(ScoreboardObject *self, PyObject *args)
{
    unsigned place;
    PyObject *slot;
    size_t words;
    if (!PyArg_ParseTuple(args, "IO:carried", &place, &slot)) {
        return NULL;
    }
    Word *row = carried_row(self, place, slot, &words);
    return row == NULL ? NULL : words_tuple(row, words);
}

static PyObject *
scoreboard_carry(ScoreboardObject *self, PyObject *args)
{
    unsigned place;
    PyObject *slot, *given;
    size_t words;
    if (!PyArg_ParseTuple(args, "IOO!:carry", &place, &slot, &PyTuple_Type,
                          &given)) {
        return NULL;
    }
    Word *row = carried_row(self, place, slot, &words);
    if (row == NULL) {
        return NULL;
    }
    if ((size_t)PyTuple_GET_SIZE(given) != words) {
        PyErr_Format(PyExc_ValueError, "the row has %zu words", words);
        return NULL;
    }
    for (size_t i = 0; i < words; i++) {
        const unsigned long long value =
            PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(given, (Py_ssize_t)i));
        if (PyErr_Occurred()) {
            return NULL;
        }
        word_set(&row[i], value);
    }
    Py_RETURN_NONE;
}

static PyObject *
scoreboard_load(ScoreboardObject *self, PyObject *value)
{
    uint32_t slot;
    if (slot_index(self, value, &slot) < 0) {
        return NULL;
    }
    return Py_BuildValue("ii", (int)atomic_load(&self->board.loads[slot].load),
                         (int)atomic_load(&self->board.loads[slot].limit));
}

static PyObject *
scoreboard_totals(ScoreboardObject *self, PyObject *args)
{
    size_t words = fields_row_words(ROW_THREAD), i;
    size_t busy = offsetof(ThreadRow, busy_time) / sizeof(Word);
    Word sums[sizeof(ThreadRow) / sizeof(Word)];
    PyObject *value;
    unsigned long long now;
    uint32_t slot, thread;

    if (!PyArg_ParseTuple(args, "OK:totals", &value, &now) ||
        slot_index(self, value, &slot) < 0) {
        return NULL;
    }
    memset(sums, 0, sizeof sums);
    for (thread = 0; thread <= self->board.thread_count; thread++) {
        ThreadRow *row = scoreboard_thread(&self->board, slot, thread);
        uint64_t since;
        for (i = 0; i < words; i++) {
            word_add(&sums[i], word_get((Word *)(void *)row + i));
        }
        /* Last: a request that ends meanwhile is counted later, not twice. */
        since = word_get(&row->current.since);
        if (since && now > since) {
            word_add(&sums[busy], now - since);
        }
    }
    return words_tuple(sums, words);
}

static PyObject *
text(const char *field, size_t size)
{
    /* Another process may be writing: the copy ends inside the field. */
    return PyBytes_FromStringAndSize(field, (Py_ssize_t)strnlen(field, size));
}

static PyObject *
scoreboard_current(ScoreboardObject *self, PyObject *value)
{
    uint32_t slot, thread;
    PyObject *list;
    if (slot_index(self, value, &slot) < 0) {
        return NULL;
    }
    list = PyList_New(0);
    if (list == NULL) {
        return NULL;
    }
    for (thread = 0; thread < self->board.thread_count; thread++) {
        const Current *now =
            &scoreboard_thread(&self->board, slot, thread)->current;
        uint64_t since = word_get(&now->since);
        PyObject *item;
        int failed;
        if (since == 0) {
            continue;
        }
        item = Py_BuildValue("IIKKNNN", thread,
                             (unsigned)atomic_load(&((Current *)now)->state),
                             (unsigned long long)since,
                             (unsigned long long)word_get(&now->ready),
                             text(now->method, sizeof now->method),
                             text(now->path, sizeof now->path),
                             text(now->request_id, sizeof now->request_id));
        failed = item == NULL || PyList_Append(list, item) < 0;
        Py_XDECREF(item);
        if (failed) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

/* The word that (field, slot, word, thread) names; NULL and exception. */
static Word *
parse_word(ScoreboardObject *self, PyObject *args, PyObject *keywords,
           long long *value)
{
    static char *names[] = {"field", "slot", "value", "word", "thread", NULL};
    const Field *field;
    unsigned number, slot, word = 0, thread = 0;
    Word *first;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "IIL|II", names, &number,
                                     &slot, value, &word, &thread)) {
        return NULL;
    }
    field = fields_at(number);
    if (field == NULL || word >= field->words ||
        slot >= self->board.slot_count || thread >= self->board.thread_count) {
        PyErr_Format(PyExc_KeyError,
                     "no word %u of field %u in slot %u, "
                     "thread %u",
                     word, number, slot, thread);
        return NULL;
    }
    switch (field->row) {
    case ROW_SUPERVISOR:
        first = (Word *)(void *)self->board.supervisor;
        break;
    case ROW_SLOT:
        first = (Word *)(void *)&self->board.slots[slot];
        break;
    case ROW_WORKER:
        first = (Word *)(void *)&self->board.workers[slot];
        break;
    case ROW_THREAD:
    default:
        first = (Word *)(void *)scoreboard_thread(&self->board, slot, thread);
    }
    return first + field->index + word;
}

static PyObject *
scoreboard_set(ScoreboardObject *self, PyObject *args, PyObject *keywords)
{
    long long value;
    Word *word = parse_word(self, args, keywords, &value);
    if (word == NULL) {
        return NULL;
    }
    word_set(word, (uint64_t)value);
    Py_RETURN_NONE;
}

static PyObject *
scoreboard_add(ScoreboardObject *self, PyObject *args, PyObject *keywords)
{
    long long value;
    Word *word = parse_word(self, args, keywords, &value);
    if (word == NULL) {
        return NULL;
    }
    word_add_shared(word, (uint64_t)value);
    Py_RETURN_NONE;
}

static PyObject *
scoreboard_bury_method(ScoreboardObject *self, PyObject *value)
{
    uint32_t slot;
    if (slot_index(self, value, &slot) < 0) {
        return NULL;
    }
    scoreboard_bury(&self->board, slot, clock_now());
    Py_RETURN_NONE;
}

static PyObject *
scoreboard_slot_count(ScoreboardObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->board.slot_count);
}

static PyObject *
scoreboard_thread_count(ScoreboardObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->board.thread_count);
}

static PyGetSetDef scoreboard_getset[] = {
    {"slot_count", (getter)scoreboard_slot_count, NULL, "Slots.", NULL},
    {"thread_count", (getter)scoreboard_thread_count, NULL,
     "Request threads of each slot.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef scoreboard_methods[] = {
    {"supervisor", (PyCFunction)scoreboard_supervisor, METH_NOARGS,
     "The words of the supervisor's row, in the order of FIELDS."},
    {"slot", (PyCFunction)scoreboard_slot, METH_O,
     "The words of a slot's row."},
    {"worker", (PyCFunction)scoreboard_worker, METH_O,
     "The words of a worker's row."},
    {"load", (PyCFunction)scoreboard_load, METH_O,
     "(load, limit) of a slot: requests reserved or running, and the most."},
    {"totals", (PyCFunction)scoreboard_totals, METH_VARARGS,
     "totals(slot, now): the thread rows of a slot, added up; busy_time counts "
     "running requests up to `now` (monotonic nanoseconds)."},
    {"current", (PyCFunction)scoreboard_current, METH_O,
     "Running requests of a slot: (thread, state, since, ready, method, path, "
     "request_id); times in monotonic nanoseconds."},
    {"set", (PyCFunction)(void (*)(void))scoreboard_set,
     METH_VARARGS | METH_KEYWORDS,
     "set(field, slot, value, word=0, thread=0): `field` is a place in "
     "FIELDS."},
    {"add", (PyCFunction)(void (*)(void))scoreboard_add,
     METH_VARARGS | METH_KEYWORDS,
     "add(field, slot, value, word=0, thread=0): `field` is a place in "
     "FIELDS. Several processes may add to one word."},
    {"carried", (PyCFunction)scoreboard_carried, METH_VARARGS,
     "carried(field, slot): what the counters of the row with that field, a "
     "place "
     "in FIELDS, were before this scoreboard; "
     "readers add it."},
    {"carry", (PyCFunction)scoreboard_carry, METH_VARARGS,
     "carry(field, slot, words): set that. Its only writer is the supervisor."},
    {"bury", (PyCFunction)scoreboard_bury_method, METH_O,
     "Fold what ran in a slot whose process has ended; zero its gauges."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot scoreboard_slots[] = {
    {Py_tp_doc, "Scoreboard(fd): the shared table of counters, mapped.\n\n"
                "Raises OSError (EINVAL) if fd is no scoreboard."},
    {Py_tp_new, scoreboard_new},
    {Py_tp_dealloc, scoreboard_dealloc},
    {Py_tp_methods, scoreboard_methods},
    {Py_tp_getset, scoreboard_getset},
    {0, NULL},
};

static PyType_Spec scoreboard_spec = {
    .name = "poolsrv._core.Scoreboard",
    .basicsize = sizeof(ScoreboardObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scoreboard_slots,
};

int
core_add_scoreboard(PyObject *module, CoreState *state)
{
    return core_add_type(module, &scoreboard_spec, &state->scoreboard_type);
}
