/* Binding: environ, from a template and what the request says.
 *
 * Measured on hello-world: most of a small request's time in the interpreter
 * is building this dict. So what is equal for all requests of a listener comes
 * with a copy of a template (one memcpy for CPython), keys are made once, and
 * values that clients repeat (Host, User-Agent, Accept, their address) are
 * compared with the last one and shared.
 *
 * Long, because every key of environ is made here.
 */
#include "python/wsgi/wsgi.h"

#include "protocol/tls_names.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

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
        char key[80] = "HTTP_";
        size_t at = 5, j;
        if (names[i] == NULL) { /* a synonym: never reaches the application */
            continue;
        }
        for (j = 0; names[i][j]; j++) {
            key[at++] = names[i][j] == '-' ? '_'
                        : names[i][j] >= 'a' && names[i][j] <= 'z'
                            ? (char)(names[i][j] - 32)
                            : names[i][j];
        }
        key[at] = '\0';
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

int
environ_template_init(const EnvironKeys *keys, PyObject *template)
{
    PyObject *const always[] = {keys->request_id, keys->remote_addr,
                                keys->remote_port, keys->request_uri,
                                keys->wsgi_input};
    size_t i;
    for (i = 0; i < sizeof always / sizeof always[0]; i++) {
        if (PyDict_SetItem(template, always[i], Py_None) < 0) {
            return -1;
        }
    }
    return 0;
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
}

void
environ_context_clear(Context *x)
{
    size_t i;
    for (i = 0; i < HTTP1_KNOWN_COUNT; i++) {
        Py_CLEAR(x->values[i]);
    }
    Py_CLEAR(x->target);
    for (i = 0; i < NAME_CACHE; i++) {
        Py_CLEAR(x->names[i].key);
    }
    for (i = 0; i < ADDRESS_CACHE; i++) {
        Py_CLEAR(x->addresses[i].text);
    }
    for (i = 0; i < PORT_CACHE; i++) {
        Py_CLEAR(x->ports[i].text);
    }
}

static PyObject *
latin1(const char *text, size_t size)
{
    return PyUnicode_DecodeLatin1(text, (Py_ssize_t)size, NULL);
}

static bool
same_text(PyObject *text, const char *data, size_t size)
{
    return text && (size_t)PyUnicode_GET_LENGTH(text) == size &&
           memcmp(PyUnicode_1BYTE_DATA(text), data, size) == 0;
}

/* A str for these bytes: the one in *place if it is equal. New reference. */
static PyObject *
cached(PyObject **place, const char *data, size_t size)
{
    PyObject *text;
    if (same_text(*place, data, size)) {
        return Py_NewRef(*place);
    }
    text = latin1(data, size);
    if (text && size <= VALUE_CACHE) {
        Py_XSETREF(*place, Py_NewRef(text));
    }
    return text;
}

/* environ[key] = value, and the reference to value is given away. */
static int
set(PyObject *environ, PyObject *key, PyObject *value)
{
    int result;
    if (value == NULL) {
        return -1;
    }
    result = PyDict_SetItem(environ, key, value);
    Py_DECREF(value);
    return result;
}

/* HTTP_NAME of a field that http1.h does not list. New reference. */
static PyObject *
field_key(Context *x, const char *name, size_t size)
{
    char key[5 + 256];
    char *text = key;
    uint32_t hash = 5381;
    size_t i, slot;
    PyObject *result;

    if (size + 5 > sizeof key) {
        text = PyMem_Malloc(size + 5);
        if (text == NULL) {
            return PyErr_NoMemory();
        }
    }
    memcpy(text, "HTTP_", 5);
    for (i = 0; i < size; i++) {
        const char c = name[i];
        text[5 + i] = c == '-'               ? '_'
                      : c >= 'a' && c <= 'z' ? (char)(c - 32)
                                             : c;
        hash = hash * 33 + (unsigned char)text[5 + i];
    }
    slot = hash % NAME_CACHE;
    if (x->names[slot].key && x->names[slot].size == size &&
        memcmp(x->names[slot].name, text + 5, size) == 0) {
        result = Py_NewRef(x->names[slot].key);
    } else {
        result = latin1(text, size + 5);
        if (result && size <= sizeof x->names[slot].name) {
            Py_XSETREF(x->names[slot].key, Py_NewRef(result));
            x->names[slot].size = (uint32_t)size;
            memcpy(x->names[slot].name, text + 5, size);
        }
    }
    if (text != key) {
        PyMem_Free(text);
    }
    return result;
}

/* A field that came before: its values become one list (RFC 9110 5.3). */
static int
join(Context *x, PyObject *environ, PyObject *key, PyObject *old,
     PyObject *value, Http1FieldId id)
{
    PyObject *pair = PyTuple_Pack(2, old, value), *joined = NULL;
    int result = -1;
    if (pair) {
        joined = PyUnicode_Join(id == HTTP1_COOKIE ? x->app->keys.cookie_join
                                                   : x->app->keys.field_join,
                                pair);
    }
    if (joined) {
        result = PyDict_SetItem(environ, key, joined);
    }
    Py_XDECREF(joined);
    Py_XDECREF(pair);
    return result;
}

static int
add_field(Context *x, PyObject *environ, const char *base,
          const Http1Field *field)
{
    const char *data = base + field->value.at;
    const Py_ssize_t before = PyDict_Size(environ);
    PyObject *key, *value, *old;
    int result;

    if (field->id != HTTP1_OTHER) {
        key = Py_NewRef(x->app->keys.fields[field->id]);
        value = cached(&x->values[field->id], data, field->value.len);
    } else {
        key = field_key(x, base + field->name.at, field->name.len);
        value = latin1(data, field->value.len);
    }
    if (key == NULL || value == NULL) {
        Py_XDECREF(key);
        Py_XDECREF(value);
        return -1;
    }
    old = PyDict_SetDefault(environ, key, value);
    if (old == NULL) {
        result = -1;
    } else if (PyDict_Size(environ) > before) {
        result = 0;
    } else {
        result = join(x, environ, key, old, value, field->id);
    }
    Py_DECREF(key);
    Py_DECREF(value);
    return result;
}

static PyObject *
address_text(Context *x, const Address *address)
{
    const size_t size = address_size(address->family);
    uint32_t hash = address->family;
    char text[INET6_ADDRSTRLEN];
    size_t i;

    if (size == 0) { /* a Unix socket's peer, or not known */
        return PyUnicode_FromStringAndSize(NULL, 0);
    }
    for (i = 0; i < size; i++) {
        hash = hash * 31 + address->bytes[i];
    }
    hash %= ADDRESS_CACHE;
    if (x->addresses[hash].text &&
        x->addresses[hash].address.family == address->family &&
        memcmp(x->addresses[hash].address.bytes, address->bytes, size) == 0) {
        return Py_NewRef(x->addresses[hash].text);
    }
    if (inet_ntop(address->family, address->bytes, text, sizeof text) == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_XSETREF(x->addresses[hash].text, PyUnicode_FromString(text));
    x->addresses[hash].address = *address;
    return Py_XNewRef(x->addresses[hash].text);
}

static PyObject *
port_text(Context *x, uint16_t port)
{
    const size_t slot = port % PORT_CACHE;
    char text[8];
    if (port == 0) { /* not known */
        return PyUnicode_FromStringAndSize(NULL, 0);
    }
    if (x->ports[slot].text && x->ports[slot].port == port) {
        return Py_NewRef(x->ports[slot].text);
    }
    snprintf(text, sizeof text, "%u", port);
    Py_XSETREF(x->ports[slot].text, PyUnicode_FromString(text));
    x->ports[slot].port = port;
    return Py_XNewRef(x->ports[slot].text);
}

static PyObject *
path_text(const char *path, size_t size)
{
    char small[512];
    char *plain = small;
    ptrdiff_t length;
    PyObject *text;
    if (memchr(path, '%', size) == NULL) {
        return latin1(path, size);
    }
    if (size > sizeof small) {
        plain = PyMem_Malloc(size);
        if (plain == NULL) {
            return PyErr_NoMemory();
        }
    }
    length = http1_unescape(plain, path, size);
    if (length < 0) {
        PyErr_SetString(PyExc_ValueError, "malformed escape in the path");
        text = NULL;
    } else {
        text = latin1(plain, (size_t)length);
    }
    if (plain != small) {
        PyMem_Free(plain);
    }
    return text;
}

static PyObject *
id_text(const Context *x)
{
    PyObject *text = PyUnicode_New(RECORD_ID_SIZE, 127);
    if (text) {
        memcpy(PyUnicode_1BYTE_DATA(text), x->thread->record.id,
               RECORD_ID_SIZE);
    }
    return text;
}

/* SCRIPT_NAME is the prefix that a proxy serves us under. Some proxies cut it
 * off the path, some do not: PATH_INFO never has it. */
static int
set_prefix(Context *x, PyObject *environ, const char *prefix, size_t size)
{
    const EnvironKeys *keys = &x->app->keys;
    PyObject *path = PyObject_GetItem(environ, keys->path_info);
    const char *text;
    Py_ssize_t rest;
    int result = 0;

    if (path == NULL) {
        return -1;
    }
    text = (const char *)PyUnicode_1BYTE_DATA(path);
    rest = PyUnicode_GET_LENGTH(path) - (Py_ssize_t)size;
    if (rest >= 0 && memcmp(text, prefix, size) == 0 &&
        (rest == 0 || text[size] == '/')) {
        result =
            set(environ, keys->path_info, latin1(text + size, (size_t)rest));
    }
    Py_DECREF(path);
    return result < 0 ? -1
                      : set(environ, keys->script_name, latin1(prefix, size));
}

static int
set_host(Context *x, PyObject *environ, const char *host, const Forwarded *said)
{
    PyObject *name = latin1(host, said->name_len);
    int result;
    if (name == NULL) {
        return -1;
    }
    result = set(environ, x->app->keys.fields[HTTP1_HOST],
                 PyUnicode_FromFormat("%U:%u", name, said->port));
    Py_DECREF(name);
    return result;
}

/* What trusted proxies said takes the place of what the template, the head
 * and the connection say. */
static int
set_forwarded(Context *x, PyObject *environ, const Forwarded *said,
              const char *base)
{
    const EnvironKeys *keys = &x->app->keys;
    const char *host = base + said->host.at;

    if (said->scheme && set(environ, keys->url_scheme,
                            PyUnicode_FromString(said->scheme)) < 0) {
        return -1;
    }
    if (said->port &&
        set(environ, keys->server_port, port_text(x, said->port)) < 0) {
        return -1;
    }
    if (said->renamed &&
        (set(environ, keys->server_name, latin1(host, said->name_len)) < 0 ||
         set(environ, keys->fields[HTTP1_HOST], latin1(host, said->host.len)) <
             0)) {
        return -1;
    }
    if (said->port_missing && set_host(x, environ, host, said) < 0) {
        return -1;
    }
    return said->prefix.len == 0
               ? 0
               : set_prefix(x, environ, base + said->prefix.at,
                            said->prefix.len);
}

/* The client speaks TLS with a proxy that has told us: under the names that
 * mod_ssl gave them. */
static int
set_tls(Context *x, PyObject *environ, const TlsNote *tls)
{
    const EnvironKeys *keys = &x->app->keys;
    const char *version = tls_version_name(tls->version);
    const char *cipher = tls_cipher_name(tls->cipher);
    const char *verified = tls->verified == TLS_NO_CERTIFICATE     ? "NONE"
                           : tls->verified == TLS_GOOD_CERTIFICATE ? "SUCCESS"
                                                                   : "FAILED";
    if (set(environ, keys->ssl_verify, PyUnicode_FromString(verified)) < 0 ||
        set(environ, keys->https, PyUnicode_FromString("on")) < 0 ||
        set(environ, keys->url_scheme, PyUnicode_FromString("https")) < 0 ||
        (version &&
         set(environ, keys->ssl_protocol, PyUnicode_FromString(version)) < 0)) {
        return -1;
    }
    return cipher ? set(environ, keys->ssl_cipher, PyUnicode_FromString(cipher))
                  : 0;
}

/* The port that the client asked is the proxy's, not our listener's. */
static int
set_port(Context *x, PyObject *environ, const ChannelItem *item)
{
    const uint16_t port = item->port                      ? item->port
                          : item->tls.version != TLS_NONE ? 443
                                                          : 0;
    return port == 0
               ? 0
               : set(environ, x->app->keys.server_port, port_text(x, port));
}

PyObject *
environ_new(Context *x)
{
    const EnvironKeys *keys = &x->app->keys;
    const Request *r = x->request;
    const Http1Head *head = &r->head;
    const char *base = r->buffer + r->start;
    const ChannelItem *item = &x->conn->item;
    /* The body is decoded and its length known (RFC 9112 section 7.1.3),
     * which is what frameworks ask for; and what speaks for a client is worth
     * nothing unless a trusted proxy said it. */
    uint64_t hidden = HTTP1_BIT(HTTP1_TRANSFER_ENCODING) | FORWARDED_ANY;
    Forwarded said;
    bool forwarded;
    PyObject *environ;
    uint32_t i;

    if (item->listener >= x->template_count) {
        PyErr_SetString(PyExc_SystemError, "a connection of no listener");
        return NULL;
    }
    environ = PyDict_Copy(x->templates[item->listener]);
    if (environ == NULL) {
        return NULL;
    }
    forwarded = (head->seen & x->app->believed) != 0 &&
                item->preface != PREFACE_UNNAMED &&
                address_within(&item->client, &x->app->trusted);
    if (forwarded) {
        forwarded_read(&said, x->app->forwarded, x->app->forwarded_parts, head,
                       base, &x->app->trusted, &item->client);
        x->thread->record.client = said.client;
        hidden &= ~x->app->believed;
    }
    if (set(environ, keys->request_id, id_text(x)) < 0 ||
        set(environ, keys->remote_addr,
            address_text(x, &x->thread->record.client)) < 0 ||
        set(environ, keys->remote_port,
            port_text(x, x->thread->record.client.port)) < 0 ||
        set(environ, keys->request_uri,
            cached(&x->target, base + head->target.at, head->target.len)) < 0 ||
        PyDict_SetItem(environ, keys->wsgi_input, x->input) < 0) {
        goto failed;
    }
    /* The template says GET, "/", no query and HTTP/1.1. */
    if ((head->method.len != 3 || memcmp(base + head->method.at, "GET", 3)) &&
        set(environ, keys->request_method,
            latin1(base + head->method.at, head->method.len)) < 0) {
        goto failed;
    }
    if ((head->path.len != 1 || base[head->path.at] != '/') &&
        set(environ, keys->path_info,
            path_text(base + head->path.at, head->path.len)) < 0) {
        goto failed;
    }
    if (head->query.len &&
        set(environ, keys->query_string,
            latin1(base + head->query.at, head->query.len))) {
        goto failed;
    }
    if (head->minor == 0 && set(environ, keys->server_protocol,
                                PyUnicode_FromString("HTTP/1.0")) < 0) {
        goto failed;
    }
    for (i = 0; i < head->count; i++) {
        if (HTTP1_BIT(head->fields[i].id) & hidden) {
            continue;
        }
        if (add_field(x, environ, base, &head->fields[i]) < 0) {
            goto failed;
        }
    }
    if (head->chunked &&
        set(environ, keys->content_length,
            PyUnicode_FromFormat("%llu", (unsigned long long)r->body_size)) <
            0) {
        goto failed;
    }
    if (item->preface != PREFACE_NONE && set_port(x, environ, item) < 0) {
        goto failed;
    }
    if (item->tls.version != TLS_NONE && set_tls(x, environ, &item->tls) < 0) {
        goto failed;
    }
    if (forwarded && set_forwarded(x, environ, &said, base) < 0) {
        goto failed;
    }
    return environ;
failed:
    Py_DECREF(environ);
    return NULL;
}
