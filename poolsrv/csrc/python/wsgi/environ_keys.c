/* Binding: the keys of environ, made once for each application. */
#include "python/wsgi/wsgi.h"

#include <string.h>

/* HTTP_NAME of a field, NUL-terminated, in `key`, which has room for it. */
static void
write_key(char *key, const char *name, size_t size)
{
    memcpy(key, "HTTP_", 5);
    for (size_t i = 0; i < size; i++) {
        const char c = name[i];
        key[5 + i] = c == '-' ? '_' : c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
    }
    key[5 + size] = '\0';
}

int
environ_keys_name_id(EnvironKeys *keys, const OptionName *field)
{
    char key[5 + OPTION_NAME_MOST + 1];
    write_key(key, field->text, field->size);
    keys->given_id = PyUnicode_InternFromString(key);
    return keys->given_id ? 0 : -1;
}

int
environ_keys_init(EnvironKeys *keys)
{
    static const char *const names[HTTP1_KNOWN_COUNT] = {
#define X(id, name) [id] = name,
        HTTP1_KNOWN_FIELDS(X)
#undef X
    };
    size_t i;

#define X(member, key)                              \
    keys->member = PyUnicode_InternFromString(key); \
    if (keys->member == NULL)                       \
        return -1;
    ENVIRON_KEYS(X)
#undef X
    for (i = HTTP1_OTHER + 1; i < HTTP1_KNOWN_COUNT; i++) {
        char key[80];
        if (names[i] == NULL) { /* a synonym: never reaches the application */
            continue;
        }
        write_key(key, names[i], strlen(names[i]));
        keys->fields[i] = PyUnicode_InternFromString(key);
        if (keys->fields[i] == NULL) {
            return -1;
        }
    }
    /* CGI's two exceptions (RFC 3875 section 4.1). */
    Py_SETREF(keys->fields[HTTP1_CONTENT_TYPE], Py_NewRef(keys->content_type));
    Py_SETREF(keys->fields[HTTP1_CONTENT_LENGTH],
              Py_NewRef(keys->content_length));
    keys->cookie_join = PyUnicode_FromString("; ");
    keys->field_join = PyUnicode_FromString(", ");
    keys->exc_info = PyUnicode_InternFromString("exc_info");
    return keys->cookie_join && keys->field_join && keys->exc_info ? 0 : -1;
}

void
environ_keys_clear(EnvironKeys *keys)
{
    size_t i;
#define X(member, key) Py_CLEAR(keys->member);
    ENVIRON_KEYS(X)
#undef X
    for (i = 0; i < HTTP1_KNOWN_COUNT; i++) {
        Py_CLEAR(keys->fields[i]);
    }
    Py_CLEAR(keys->cookie_join);
    Py_CLEAR(keys->field_join);
    Py_CLEAR(keys->exc_info);
    Py_CLEAR(keys->given_id);
}
