/* Binding: environ, from a template and what the request says.
 *
 * Measured on hello-world: most of a small request's time in the interpreter
 * is building this dict. So what is equal for all requests of a listener comes
 * with a copy of a template (one memcpy for CPython), keys are made once, and
 * values that clients repeat (Host, User-Agent, Accept, their address) are
 * compared with the last one and shared (text.h).
 */
#include "python/wsgi/wsgi.h"

#include <string.h>

#include "protocol/tls_names.h"
#include "python/wsgi/text.h"

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
        value = text_cached(&x->values[field->id], data, field->value.len);
    } else {
        key = text_field_key(x, base + field->name.at, field->name.len);
        value = text_latin1(data, field->value.len);
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

/* Where the application is: the prefix that a proxy serves us under, and the
 * path of the mount. */
static int
set_script_name(Context *x, PyObject *environ, const Route *route,
                const char *base)
{
    PyObject *key = x->app->keys.script_name, *name = NULL;
    if (route->mount && route->mount->path.size > route->mount->inner) {
        name = PyTuple_GET_ITEM(x->app->script_names,
                                (Py_ssize_t)route->mount->number);
    }
    if (!route->forwarded || route->said.prefix.len == 0) {
        return name ? PyDict_SetItem(environ, key, name) : 0;
    }
    PyObject *prefix =
        text_latin1(base + route->said.prefix.at, route->said.prefix.len);
    if (prefix && name) {
        PyUnicode_Append(&prefix, name);
    }
    return set(environ, key, prefix);
}

/* The path, of which SCRIPT_NAME is the beginning and PATH_INFO the rest. */
static int
set_path(Context *x, PyObject *environ, const Route *route, const char *base,
         Http1Span path)
{
    path.at += route->cut;
    path.len -= route->cut;
    if ((path.len != 1 || base[path.at] != '/') &&
        set(environ, x->app->keys.path_info,
            text_path(base + path.at, path.len)) < 0) {
        return -1;
    }
    return route->found ? set_script_name(x, environ, route, base) : 0;
}

static int
set_host(Context *x, PyObject *environ, const char *host, const Forwarded *said)
{
    PyObject *name = text_latin1(host, said->name_len);
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
        set(environ, keys->server_port, text_port(x, said->port)) < 0) {
        return -1;
    }
    if (said->renamed && (set(environ, keys->server_name,
                              text_latin1(host, said->name_len)) < 0 ||
                          set(environ, keys->fields[HTTP1_HOST],
                              text_latin1(host, said->host.len)) < 0)) {
        return -1;
    }
    if (said->port_missing && set_host(x, environ, host, said) < 0) {
        return -1;
    }
    return 0;
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
               : set(environ, x->app->keys.server_port, text_port(x, port));
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
    const Route *route = &r->route;
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
    if (route->forwarded) {
        hidden &= ~x->app->common->believed;
    }
    if (set(environ, keys->request_id, text_request_id(x)) < 0 ||
        set(environ, keys->remote_addr,
            text_address(x, &x->thread->record.client)) < 0 ||
        set(environ, keys->remote_port,
            text_port(x, x->thread->record.client.port)) < 0 ||
        set(environ, keys->request_uri,
            text_cached(&x->target, base + head->target.at, head->target.len)) <
            0 ||
        PyDict_SetItem(environ, keys->wsgi_input, x->input) < 0) {
        goto failed;
    }
    /* The template says GET, "/", no query and HTTP/1.1. */
    if ((head->method.len != 3 || memcmp(base + head->method.at, "GET", 3)) &&
        set(environ, keys->request_method,
            text_latin1(base + head->method.at, head->method.len)) < 0) {
        goto failed;
    }
    if ((route->found || head->path.len != 1 || base[head->path.at] != '/') &&
        set_path(x, environ, route, base, head->path) < 0) {
        goto failed;
    }
    if (head->query.len &&
        set(environ, keys->query_string,
            text_latin1(base + head->query.at, head->query.len))) {
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
    if (x->thread->record.answers_id &&
        set(environ, keys->given_id, text_request_id(x)) < 0) {
        goto failed;
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
    if (route->forwarded && set_forwarded(x, environ, &route->said, base) < 0) {
        goto failed;
    }
    if (http1_upgrade_seen(head) && takeover_offer(x, environ) < 0) {
        goto failed;
    }
    return environ;
failed:
    Py_DECREF(environ);
    return NULL;
}
