/* What the bindings of one request share. Everything in this folder runs with
 * the GIL, on the thread that serves. */
#ifndef POOLSRV_WSGI_H
#define POOLSRV_WSGI_H

#include "python/core.h"
#include "python/folder_table.h"
#include "common/buffer.h"
#include "protocol/forwarded.h"
#include "protocol/http1_answer.h"
#include "python/mount_table.h"
#include "python/page_table.h"
#include "worker/conn.h"
#include "worker/deadline.h"
#include "worker/handler.h"
#include "worker/request.h"
#include "worker/threads.h"
#include "worker/worker.h"

/* Do threads run Python at the same time? A build may say so to test how they
 * are then scheduled. */
#ifndef WORKER_PARALLEL
#ifdef Py_GIL_DISABLED
#define WORKER_PARALLEL 1
#else
#define WORKER_PARALLEL 0
#endif
#endif

/* Longest value of a field that is kept for the next time. */
#define VALUE_CACHE 256
/* How many names that http1.h does not list. */
#define NAME_CACHE 64
#define ADDRESS_CACHE 64
#define PORT_CACHE 256

/* environ keys that every request sets, made once. X(member, key) */
#define ENVIRON_KEYS(X)                   \
    X(request_method, "REQUEST_METHOD")   \
    X(path_info, "PATH_INFO")             \
    X(query_string, "QUERY_STRING")       \
    X(request_uri, "REQUEST_URI")         \
    X(server_protocol, "SERVER_PROTOCOL") \
    X(script_name, "SCRIPT_NAME")         \
    X(server_name, "SERVER_NAME")         \
    X(server_port, "SERVER_PORT")         \
    X(url_scheme, "wsgi.url_scheme")      \
    X(remote_addr, "REMOTE_ADDR")         \
    X(remote_port, "REMOTE_PORT")         \
    X(https, "HTTPS")                     \
    X(ssl_protocol, "SSL_PROTOCOL")       \
    X(ssl_cipher, "SSL_CIPHER")           \
    X(ssl_verify, "SSL_CLIENT_VERIFY")    \
    X(content_type, "CONTENT_TYPE")       \
    X(content_length, "CONTENT_LENGTH")   \
    X(wsgi_input, "wsgi.input")           \
    X(request_id, "poolsrv.request_id")   \
    X(socket, "poolsrv.socket")           \
    X(werkzeug_socket, "werkzeug.socket")

typedef struct {
#define X(member, key) PyObject *member;
    ENVIRON_KEYS(X)
#undef X
    PyObject *fields[HTTP1_KNOWN_COUNT]; /* HTTP_..., by Http1FieldId */
    PyObject *given_id;                  /* HTTP_... of --request-id-header */
    PyObject *cookie_join, *field_join;  /* "; " and ", " */
    PyObject *exc_info;                  /* the name of that argument */
} EnvironKeys;

/* The types of files whose read() we know: io.FileIO, io.BufferedReader and
 * io.BufferedRandom. */
typedef struct {
    PyObject *raw, *reader, *random;
} FileTypes;

/* Part of a file; the descriptor is the application's. */
typedef struct {
    int fd;
    off_t at;
    int64_t size;
} FileSpan;

/* What a worker has whatever interpreter it calls. Objects in it are those of
 * the Worker's own. */
typedef struct {
    MountTable mounts; /* where the applications are */
    uint8_t *homes; /* [applications]: the interpreter that has it, from 1; 0:
                     * each has it */
    FolderTable folders;   /* of mounts */
    FolderTable sendfile;  /* of files that it may name as an answer */
    PageTable pages;       /* of the server's own answers */
    PyObject *maintenance; /* NULL, or the tuple that its texts are in */
    Networks bypass;       /* whom maintenance is not for; the items are ours */
    Networks trusted;      /* proxies; the items are ours */
    uint64_t believed;     /* fields of trusted peers, HTTP1_BIT each */
} Common;

/* The applications of a worker in one interpreter, shared by its threads. */
typedef struct App {
    PyObject_HEAD CoreState *state;
    const Common *common;      /* of its Worker; NULL: it has none yet */
    struct Context **contexts; /* [thread_count], of threads that serve */
    uint32_t thread_count;
    PyObject *callables;    /* tuple: the applications */
    PyObject *script_names; /* tuple: SCRIPT_NAME of each mount, by number */
    PyObject *templates; /* tuple of dicts, a listener's each; no wsgi.errors */
    PyObject *errors;   /* called with this and a thread's index: wsgi.errors */
    PyObject *on_error; /* called with the exception and (id, method, path) */
    PyObject *on_left;  /* called with the exception or None: never returns */
    PyObject *offer;    /* makes a socket of a takeover */
    PyObject *timeout;  /* the exception that is raised in a request */
    EnvironKeys keys;
    FileTypes files;
} App;

/* One thread at a time reads a request's body, and one writes its answer:
 * beside the one that serves, an application may do both on threads of its own,
 * even when the request is over. The context that they ask for is then gone;
 * and the end of a request waits for whoever is inside. */
typedef struct Gate {
    pthread_mutex_t lock;
    _Atomic unsigned long inside; /* the thread that is; 0: none */
    _Atomic uint32_t references;
} Gate;

typedef enum {
    GATE_FAILED = -1, /* and an exception */
    GATE_OVER,        /* the request is */
    GATE_ENTERED,
} GateResult;

/* What start_response was told, and how far the answer has come. */
typedef struct {
    PyObject_HEAD vectorcallfunc vectorcall;
    struct Context *context; /* NULL: its request is over */
    Gate *gate;
    Http1Answer answer;
    bool called; /* and what it was told is good */
} StartResponse;

/* One serving thread's own things in an interpreter. No lock: nobody else
 * touches them. */
typedef struct Context {
    App *app;
    Thread *thread;
    Conn *conn;
    Request *request;
    PyThreadState *tstate;
    unsigned long ident;    /* of the thread, for Python */
    PyObject *interruption; /* what was raised in this request, or NULL */
    Gate *reading, *writing;
    PyObject *variables;  /* a contextvars.Context, for the next request too if
                           * this one leaves nothing in it */
    PyObject *errors;     /* wsgi.errors */
    bool line_open;       /* what was written there has no line end yet */
    PyObject **templates; /* [listeners] with these wsgi.errors */
    Py_ssize_t template_count;
    StartResponse *start_response; /* kept for the next request if it is free */
    PyObject *input;
    PyObject *set_timeout;
    PyObject *takeover;                  /* of this request, or NULL */
    PyObject *values[HTTP1_KNOWN_COUNT]; /* the last value of each field */
    PyObject *target;                    /* and of the request target */
    struct {
        char name[48];
        uint32_t size;
        PyObject *key;
    } names[NAME_CACHE];
    struct {
        Address address;
        PyObject *text;
    } addresses[ADDRESS_CACHE];
    struct {
        uint16_t port;
        PyObject *text;
    } ports[PORT_CACHE];
} Context;

/* The application lets us have the connection, to send or to receive, and gets
 * it back; both without the interpreter or with it. False: it has been taken
 * away (deadline.h). A thread that the application has made itself holds
 * nothing: nobody waits for it at the end of the request. */
static inline bool
context_is_own(const Context *x)
{
    return x->ident == PyThread_get_thread_ident();
}

static inline bool
context_hold(Context *x)
{
    Deadline *d = &x->thread->deadline;
    const bool held = context_is_own(x)
                          ? deadline_hold(d)
                          : atomic_load(&d->stage) != DEADLINE_LOST;
    if (!held) {
        x->conn->gone = true;
    }
    return held;
}

static inline void
context_let_go(Context *x)
{
    if (context_is_own(x)) {
        deadline_let_go(&x->thread->deadline);
    } else {
        deadline_alive(&x->thread->deadline);
    }
}

/* environ.c: a new dict for the context's request; NULL and exception. */
PyObject *environ_new(Context *x);
/* A listener's template with all keys that every request sets, so that a copy
 * has room for them and for some fields: growing it would cost as much again.
 */
int environ_template_init(const EnvironKeys *keys, PyObject *template);

/* environ_keys.c */
int environ_keys_init(EnvironKeys *keys);
/* The field in which proxies give a request's id. */
int environ_keys_name_id(EnvironKeys *keys, const OptionName *field);
void environ_keys_clear(EnvironKeys *keys);

/* text.c: what a thread keeps of strings. */
void text_clear(Context *x);

/* gate.c */
Gate *gate_new(void);
Gate *gate_hold(Gate *gate);
void gate_release(Gate *gate);
/* Come in as soon as nobody is inside. `place` is where an object of the
 * request keeps its context. */
GateResult gate_enter(Gate *gate, Context *const *place);
/* The same at once, or not at all. */
bool gate_try(Gate *gate);
void gate_leave(Gate *gate);

/* input.c: wsgi.input over the request's body. */
PyObject *input_new(Context *x);
/* The request is over: further reads raise ValueError. First nobody new comes
 * in; when nobody is inside any more, what is left is cleared. */
void input_shut(PyObject *input);
void input_clear(PyObject *input);

/* start_response.c */
/* 0, or -1 and an exception that shows what was wrong with `culprit`. */
int answer_result(Http1AnswerResult result, PyObject *culprit);
StartResponse *start_response_new(Context *x);

/* set_timeout.c: environ["poolsrv.set_timeout"] of a thread. */
PyObject *set_timeout_new(Context *x);
void set_timeout_end(PyObject *object);

/* takeover.c: what the application has in environ to take the connection over,
 * if the client asked for another protocol. */
/* Put it there. 0, or -1 and exception. */
int takeover_offer(Context *x, PyObject *environ);
/* The request is over. */
void takeover_end(PyObject *object);

/* file_wrapper.c */
int file_types_init(FileTypes *types);
void file_types_clear(FileTypes *types);
/* What is left to read of the wrapper's file, if the kernel can send it: then
 * it is the very bytes that read() would give. False: read it. */
bool file_wrapper_span(const FileTypes *types, PyObject *wrapper,
                       FileSpan *span);

/* response.c */
/* The write() that start_response returns. */
PyObject *response_write(PyObject *start_response, PyObject *data);

/* Send what the application returned; takes care of close(). 0; 1 and
 * exception if only close() failed; -1 and exception if the application did. */
int response_send(Context *x, StartResponse *sr, PyObject *result);
/* The application failed: 500 if nothing was sent yet, else cut the answer. */
void response_fail(Context *x, StartResponse *sr);

/* app.c */
/* Of an _core.Applications; NULL and exception if it is none, or another
 * worker's. */
App *app_of(CoreState *state, PyObject *object);
/* From now on it is that of a worker. 0, or -1 and exception. */
int app_attach(App *app, const Common *common, uint32_t thread_count);
void app_detach(App *app);

/* context.c */
Context *context_new(App *app, uint32_t thread);
void context_free(Context *x);
/* Of a child that the application has forked: never returns. */
void context_end_process(const App *app);

/* Whoever comes back from code of the application calls this. It returns only
 * in the worker: a child that was forked there ends here. */
static inline void
context_stay(const Context *x)
{
    if (worker_left(x->thread->worker)) {
        context_end_process(x->app);
    }
}

/* call.c: the handler that calls the application. The context of a thread is an
 * array of Context *, by the number of the interpreter. */
Handler call_handler(Common *common);

#endif
