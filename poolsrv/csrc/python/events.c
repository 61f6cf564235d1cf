/* Binding: what the dispatcher has to say to the supervisor's policy. */
#include "python/events.h"

/* As _core.pyi's Event: the kind first, then what there is to say of it. */
static PyObject *
event_object(const DispatchEvent *event)
{
    const int kind = (int)event->kind;
    switch (event->kind) {
    case DISPATCH_READABLE:
        return Py_BuildValue("(iI)", kind, event->token);
    case DISPATCH_DRAINED:
        return Py_BuildValue("(i)", kind);
    case DISPATCH_REFUSED:
        return Py_BuildValue("(iIs)", kind, event->group, event->text);
    case DISPATCH_WANTED:
        return Py_BuildValue("(iI)", kind, event->group);
    case DISPATCH_NEWS:
        break;
    }
    return Py_BuildValue(
        "(iIIiN)", kind, event->group, event->slot, (int)event->news,
        PyUnicode_DecodeUTF8(event->text, (Py_ssize_t)strlen(event->text),
                             "backslashreplace"));
}

PyObject *
events_list(const DispatchEvent *events, int count)
{
    PyObject *list = PyList_New(count);
    int i;
    for (i = 0; list && i < count; i++) {
        PyObject *item = event_object(&events[i]);
        if (item == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, i, item);
        }
    }
    return list;
}

int
core_add_events(PyObject *module)
{
    static const struct {
        const char *name;
        int value;
    } constants[] = {
        {"NEWS_READY", CHANNEL_READY},
        {"NEWS_FAILED", CHANNEL_FAILED},
        {"NEWS_REPLACE", CHANNEL_REPLACE},
        {"NEWS_HUNG", CHANNEL_HUNG},
        {"EVENT_READABLE", DISPATCH_READABLE},
        {"EVENT_NEWS", DISPATCH_NEWS},
        {"EVENT_DRAINED", DISPATCH_DRAINED},
        {"EVENT_REFUSED", DISPATCH_REFUSED},
        {"EVENT_WANTED", DISPATCH_WANTED},
    };
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        if (PyModule_AddIntConstant(module, constants[i].name,
                                    constants[i].value) < 0) {
            return -1;
        }
    }
    return 0;
}
