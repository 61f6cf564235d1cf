/* Binding: the applications and what the requests of all threads share. */
#include "python/wsgi/wsgi.h"

#include "python/networks.h"

int
app_init(App *app, const WorkerLimits *limits, PyObject *trusted,
         PyObject *folders, PyObject *mounts)
{
    app->believed = forwarded_fields((ForwardedFamily)limits->forwarded,
                                     limits->forwarded_fields);
    if (environ_keys_init(&app->keys) < 0 ||
        environ_keys_name_id(&app->keys, &limits->request_id_header) < 0 ||
        file_types_init(&app->files) < 0 ||
        networks_read(trusted, &app->trusted) < 0 ||
        folder_table_read(folders, &app->folders) < 0) {
        return -1;
    }
    return mount_table_read(mounts, PyTuple_GET_SIZE(app->callables),
                            PyTuple_GET_SIZE(folders), &app->mounts);
}

int
app_traverse(const App *app, visitproc visit, void *arg)
{
    Py_VISIT(app->callables);
    Py_VISIT(app->templates);
    Py_VISIT(app->on_error);
    Py_VISIT(app->on_left);
    Py_VISIT(app->offer);
    return 0;
}

void
app_clear(App *app)
{
    Py_CLEAR(app->callables);
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
    networks_clear(&app->trusted);
    networks_clear(&app->bypass);
    page_table_clear(&app->pages);
    Py_CLEAR(app->maintenance);
    mount_table_clear(&app->mounts);
    folder_table_clear(&app->folders);
    folder_table_clear(&app->sendfile);
}
