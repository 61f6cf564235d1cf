/* Binding: an application and what the requests of all threads share. */
#include "python/wsgi/wsgi.h"

#include <string.h>

#include "python/options.h"

typedef struct {
    APPLICATION_OPTIONS(OPTION_MEMBER)
} ApplicationOptions;

#define APPLICATION_ROW(kind, name, values) \
    OPTION_ROW(ApplicationOptions, kind, name, values)

static const Option application_rows[] = {APPLICATION_OPTIONS(APPLICATION_ROW)};

#undef APPLICATION_ROW

static int
read_options(App *app, PyObject *given)
{
    ApplicationOptions options;
    if (core_read_options(given, application_rows,
                          sizeof application_rows / sizeof application_rows[0],
                          &options) < 0) {
        return -1;
    }
    app->forwarded = (ForwardedFamily)options.forwarded;
    app->forwarded_parts = options.forwarded_fields;
    app->believed = forwarded_fields(app->forwarded, app->forwarded_parts);
    return 0;
}

/* A tuple of (family, bits, bytes). */
static int
parse_networks(PyObject *tuple, Networks *networks)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    Network *items = PyMem_Calloc((size_t)count + 1, sizeof *items);
    Py_ssize_t i;

    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *networks = (Networks){.items = items};
    for (i = 0; i < count; i++) {
        const char *bytes;
        Py_ssize_t size;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(tuple, i), "bby#:trusted",
                              &items[i].family, &items[i].bits, &bytes,
                              &size)) {
            return -1;
        }
        if ((size_t)size != address_size(items[i].family) ||
            items[i].bits > size * 8) {
            PyErr_SetString(PyExc_ValueError, "not a network");
            return -1;
        }
        memcpy(items[i].bytes, bytes, (size_t)size);
        networks->count++;
    }
    return 0;
}

int
app_init(App *app, PyObject *options, PyObject *trusted)
{
    if (environ_keys_init(&app->keys) < 0 || file_types_init(&app->files) < 0 ||
        read_options(app, options) < 0) {
        return -1;
    }
    return parse_networks(trusted, &app->trusted);
}

int
app_traverse(const App *app, visitproc visit, void *arg)
{
    Py_VISIT(app->callable);
    Py_VISIT(app->templates);
    Py_VISIT(app->on_error);
    Py_VISIT(app->on_left);
    Py_VISIT(app->offer);
    return 0;
}

void
app_clear(App *app)
{
    Py_CLEAR(app->callable);
    Py_CLEAR(app->templates);
    Py_CLEAR(app->on_error);
    Py_CLEAR(app->on_left);
    Py_CLEAR(app->offer);
}

void
app_free(App *app)
{
    app_clear(app);
    environ_keys_clear(&app->keys);
    file_types_clear(&app->files);
    PyMem_Free((void *)app->trusted.items);
}
