/* What every binding asks of the module: see core.h. */
#include "python/core.h"

int
core_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **place)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL) {
        return -1;
    }
    *place = (PyTypeObject *)type;
    return PyModule_AddType(module, *place);
}

CoreState *
core_state_of(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &core_module);
    return module ? PyModule_GetState(module) : NULL;
}
