/* Files that mounts serve: see files.h. Pure C. */
#define _GNU_SOURCE
#include "worker/files.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "protocol/lex.h"
#include "worker/file_answer.h"
#include "worker/found.h"
#include "worker/worker_internal.h"

#define METHODS "Allow: GET, HEAD, OPTIONS\r\n"

void
files_tell(const Files *files, Worker *w)
{
    for (uint32_t i = 0; i < files->count; i++) {
        const Folder *folder = &files->folders[i];
        if (!folder->is_file && folder->links == LINKS_INSIDE &&
            !folder->has_beneath) {
            notes_add(w, NOTE_NO_OPENAT2,
                      "this kernel, or its seccomp filter, has no openat2: "
                      "symbolic links below folders are not followed");
            return;
        }
    }
}

static FileAnswerFields
fields_of(const Folder *folder)
{
    return (FileAnswerFields){
        .lines = folder->fields,
        .size = strlen(folder->fields),
        .always = true,
    };
}

static void
refuse(const Folder *folder, Thread *t, Conn *c, Request *r, const char *status,
       const char *fields, const char *reason)
{
    const FileAnswerFields more = fields_of(folder);
    file_answer_refuse(t, c, r, status, fields, &more, reason);
}

/* Behind the path of a folder there must be a slash, or what is named in its
 * index would be looked for beside it. The address is relative: whatever a
 * proxy has cut off in front is kept, and it cannot lead to another host. */
static void
redirect(const Folder *folder, Thread *t, Conn *c, Request *r)
{
    const char *base = r->buffer + r->start;
    const Http1Span path = r->head.path, query = r->head.query;
    const char *end = base + path.at + path.len;
    const char *slash = memrchr(base + path.at, '/', path.len);
    const char *last = slash ? slash + 1 : base + path.at;
    Buffer field = {0};
    if (BUFFER_ADD_LITERAL(&field, "Location: ./") == 0 &&
        buffer_add(&field, last, (size_t)(end - last)) == 0 &&
        BUFFER_ADD_LITERAL(&field, "/") == 0 &&
        (query.len == 0 ||
         (BUFFER_ADD_LITERAL(&field, "?") == 0 &&
          buffer_add(&field, base + query.at, query.len) == 0)) &&
        buffer_add(&field, "\r\n", 3) == 0) {
        refuse(folder, t, c, r, "301 Moved Permanently", field.data, NULL);
    } else {
        c->gone = true; /* no memory */
    }
    buffer_clear(&field);
}

static void
fail(const Folder *folder, Thread *t, Conn *c, Request *r, int error)
{
    notes_add(t->worker, NOTE_FILE_CLOSED,
              "request %s: a file cannot be opened: %s", t->record.id,
              strerror(error));
    if (error == EMFILE || error == ENFILE || error == ENOMEM) {
        refuse(folder, t, c, r, "503 Service Unavailable", "Retry-After: 1\r\n",
               "no descriptor is free");
    } else {
        refuse(folder, t, c, r, "500 Internal Server Error", "",
               "the file cannot be opened");
    }
}

static bool
is_method(const Request *r, const char *method)
{
    const Http1Span span = r->head.method;
    return span.len == strlen(method) &&
           memcmp(r->buffer + r->start + span.at, method, span.len) == 0;
}

/* False: it is the application's. */
static bool
answer(const Files *files, Thread *t, Conn *c, Request *r)
{
    const Mount *mount = r->route.mount;
    Folder *folder = &files->folders[mount->folder];
    const FileAnswerFields more = fields_of(folder);
    const bool is_last = mount->application == MOUNT_NONE;
    const char *base = r->buffer + r->start;
    /* `GET http://host` asks for its root (RFC 9110 section 4.2.3). */
    const bool is_bare = r->head.path.len == 0;
    const char *path = is_bare ? "/" : base + r->head.path.at + r->route.cut;
    const size_t size = is_bare ? 1 : r->head.path.len - r->route.cut;
    Found found;

    if (!r->head.is_head && !is_method(r, "GET")) {
        if (is_last && is_method(r, "OPTIONS")) {
            refuse(folder, t, c, r, "204 No Content", METHODS, NULL);
        } else if (is_last) {
            refuse(folder, t, c, r, "405 Method Not Allowed", METHODS,
                   "files have no such method");
        }
        return is_last;
    }
    folders_look(folder, t->now);
    const char *why = "no such file";
    switch (found_for(&found, folder, &r->head, base, path, size, time(NULL))) {
    case FOUND_FILE:
        file_answer_send(t, c, r, &found, &more);
        return true;
    case FOUND_FOLDER:
        redirect(folder, t, c, r);
        return true;
    case FOUND_FAILED:
        fail(folder, t, c, r, errno);
        return true;
    case FOUND_LINK:
        why = "a link that is not followed: see the option links of the mount";
        break;
    case FOUND_CLOSED:
        why = "the worker may not read the file";
        break;
    case FOUND_NOTHING:
        break;
    }
    if (is_last) {
        refuse(folder, t, c, r, "404 Not Found", "", why);
    }
    return is_last;
}

void
files_serve(void *argument, Thread *t, Conn *c, Request *r)
{
    _Atomic uint32_t *state = &t->row->current.state;
    const Handler *beyond = r->route.beyond;
    atomic_store_explicit(state, THREAD_FILE, memory_order_relaxed);
    if (answer(argument, t, c, r)) {
        const unsigned class = c->status / 100u;
        if (class >= 1 && class <= STATUS_CLASS_COUNT) {
            word_add(&t->row->files[class - 1], 1);
        }
        return;
    }
    atomic_store_explicit(state, THREAD_APPLICATION, memory_order_relaxed);
    beyond->serve(beyond->argument, t, c, r);
}
