/* A file that the application names: see named_file.h. Pure C. */
#define _GNU_SOURCE
#include "worker/named_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "protocol/file_names.h"
#include "protocol/sendfile.h"
#include "worker/file_answer.h"
#include "worker/found.h"
#include "worker/worker_internal.h"

/* Why there is none; NULL: it is open. */
static const char *
open_named(Found *found, const char *path, const Files *files, uint64_t now)
{
    for (uint32_t i = 0; i < files->count; i++) {
        Folder *folder = &files->folders[i];
        const char *name = sendfile_below(path, folder->path);
        if (name == NULL) {
            continue;
        }
        /* Names with a dot are the application's to give away. */
        const FileNameKind kind = file_names_judge(name, strlen(name));
        if (kind != FILE_NAME_FILE && kind != FILE_NAME_HIDDEN) {
            return "which is no name of a file";
        }
        folders_look(folder, now);
        const int fd = folders_open_file(folder, name);
        if (fd < 0) {
            return errno == ENOENT  ? "which this worker cannot find"
                   : errno == ELOOP ? "behind a link that leads out of it"
                                    : strerror(errno);
        }
        if (!found_stat(found, fd, "", time(NULL))) {
            close(fd);
            return "which is no regular file";
        }
        found->type = media_types_find(name, strlen(name), NULL, 0);
        found->cache_control = "";
        return NULL;
    }
    return path[0] == '/' ? "which is in no folder of --sendfile-root"
                          : "which is no absolute path: write the whole of it";
}

/* Behind the status line. */
static FileAnswerFields
fields_of(const Http1Answer *a)
{
    const char *end = memmem(a->head.data, a->head.size, "\r\n", 2);
    const char *lines = end ? end + 2 : a->head.data + a->head.size;
    return (FileAnswerFields){
        .lines = lines,
        .size = (size_t)(a->head.data + a->head.size - lines),
        .has_date = a->has_date,
        .has_server = a->has_server,
        .closes = a->closes,
    };
}

void
named_file_send(Thread *t, Conn *c, Request *r, const Http1Answer *a,
                const Files *files)
{
    const char *path = a->file.data;
    FileAnswerFields more = fields_of(a);
    const SendfileFacts facts = sendfile_read(more.lines, more.size);
    Found found = {.fd = -1};
    const char *fault = open_named(&found, path, files, t->now);

    if (fault) {
        notes_add(t->worker, NOTE_SENDFILE,
                  "request %s: X-Sendfile names %.100s, %s", t->record.id, path,
                  fault);
        file_answer_refuse(t, c, r, "404 Not Found", "", NULL,
                           "the application names no file that can be sent");
        return;
    }
    more.has_type = facts.has_type;
    if (a->status == 200 && !facts.has_judged) {
        file_answer_send(t, c, r, &found, &more);
        return;
    }
    char status[128]; /* of the application's words what finds room */
    const char *said = a->head.data + strlen("HTTP/1.1 ");
    snprintf(status, sizeof status, "%.*s", (int)(more.lines - 2 - said), said);
    uint64_t at = 0, size = found.size;
    if (a->status == 206 && facts.first >= 0 &&
        (uint64_t)facts.last < found.size) {
        at = (uint64_t)facts.first;
        size = (uint64_t)(facts.last - facts.first) + 1;
    }
    file_answer_part(t, c, r, &found, &more, status, at, size);
}
