/* Binding: what a thread that serves keeps from request to request. */
#include "python/wsgi/wsgi.h"

#include <unistd.h>

void
context_free(Context *x)
{
    Py_ssize_t i;
    for (i = 0; x->templates && i < x->template_count; i++) {
        Py_XDECREF(x->templates[i]);
    }
    PyMem_Free(x->templates);
    Py_XDECREF(x->start_response);
    Py_XDECREF(x->variables);
    Py_XDECREF(x->errors);
    gate_release(x->reading);
    gate_release(x->writing);
    set_timeout_end(x->set_timeout);
    text_clear(x);
    PyMem_Free(x);
}

Context *
context_new(App *app, uint32_t thread)
{
    Context *x = PyMem_Calloc(1, sizeof *x);
    Py_ssize_t i;
    if (x == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    x->app = app;
    x->errors = PyObject_CallFunction(app->errors, "OI", app, thread);
    if (x->errors == NULL) {
        goto failed;
    }
    x->reading = gate_new();
    x->writing = gate_new();
    if (x->reading == NULL || x->writing == NULL) {
        goto failed;
    }
    x->template_count = PyTuple_GET_SIZE(app->templates);
    x->templates =
        PyMem_Calloc((size_t)x->template_count + 1, sizeof *x->templates);
    if (x->templates == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    x->set_timeout = set_timeout_new(x);
    if (x->set_timeout == NULL) {
        goto failed;
    }
    for (i = 0; i < x->template_count; i++) {
        x->templates[i] = PyDict_Copy(PyTuple_GET_ITEM(app->templates, i));
        if (x->templates[i] == NULL ||
            environ_template_init(&app->keys, x->templates[i]) < 0 ||
            PyDict_SetItemString(x->templates[i], "wsgi.errors", x->errors) <
                0 ||
            PyDict_SetItemString(x->templates[i], "poolsrv.set_timeout",
                                 x->set_timeout) < 0) {
            goto failed;
        }
    }
    return x;
failed:
    context_free(x);
    return NULL;
}

/* The process that has arrived here was forked by the application: it answers
 * nobody, and ends as if it were its own program that had come to its end. */
void
context_end_process(const App *app)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback && value) {
        PyException_SetTraceback(value, traceback);
    }
    PyObject_CallOneArg(app->on_left, value ? value : Py_None);
    _exit(1); /* it does not return: this is for one that raises */
}
