/* The access log: a line a request, in the combined format with the time taken
 * and the request's id behind it, and why if the server itself has answered; or
 * as JSON. One write(2) a line on a descriptor in append mode, so that lines of
 * several workers do not mix. Pure C. */
#include "worker/access_log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/calendar.h"
#include "worker/worker_internal.h"

/* A line is at most this long; what does not fit is cut, never the line end. */
#define LINE 4096

typedef struct {
    char text[LINE];
    size_t size;
} Line;

static void
add(Line *line, const char *text, size_t size)
{
    const size_t room = sizeof line->text - 2 - line->size;
    if (size > room) {
        size = room;
    }
    memcpy(line->text + line->size, text, size);
    line->size += size;
}

static void
add_text(Line *line, const char *text)
{
    add(line, text, strlen(text));
}

/* Client bytes never reach a log raw: quotes, backslashes, controls and what
 * is beyond ASCII are escaped, as \xHH or, in JSON, as \u00HH. */
static void
add_escaped(Line *line, const char *text, size_t size, bool json)
{
    size_t i;
    if (size > 1024) {
        size = 1024;
    }
    for (i = 0; i < size; i++) {
        const unsigned char c = (unsigned char)text[i];
        char escape[8];
        if (c >= 32 && c < 127 && c != '"' && c != '\\') {
            add(line, text + i, 1);
        } else {
            add(line, escape,
                (size_t)snprintf(escape, sizeof escape,
                                 json ? "\\u%04x" : "\\x%02x", c));
        }
    }
}

static void
add_field(Line *line, const Request *r, Http1FieldId id, bool json)
{
    uint32_t i;
    for (i = 0; i < r->head.count; i++) {
        if (r->head.fields[i].id == id) {
            add_escaped(line, r->buffer + r->start + r->head.fields[i].value.at,
                        r->head.fields[i].value.len, json);
            return;
        }
    }
    if (!json) {
        add_text(line, "-");
    }
}

/* When, and who. */
static void
add_start(Line *line, const Address *client, bool json)
{
    char address[INET6_ADDRSTRLEN] = "-", piece[256];
    const time_t now = time(NULL);
    struct tm t;
    if (address_size(client->family)) {
        inet_ntop(client->family, client->bytes, address, sizeof address);
    } else if (client->family == AF_UNIX) {
        strcpy(address, "unix");
    }
    gmtime_r(&now, &t);
    if (json) {
        snprintf(piece, sizeof piece,
                 "{\"time\": \"%04d-%02d-%02dT%02d:%02d:%02dZ\", \"client\": "
                 "\"%s\", \"method\": \"",
                 t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min,
                 t.tm_sec, address);
    } else {
        snprintf(piece, sizeof piece,
                 "%s - - [%02d/%s/%04d:%02d:%02d:%02d +0000] \"", address,
                 t.tm_mday, calendar_months[t.tm_mon % 12], t.tm_year + 1900,
                 t.tm_hour, t.tm_min, t.tm_sec);
    }
    add_text(line, piece);
}

/* How long it took, which it was, and why the server answered by itself. */
static void
add_end(Line *line, const Record *record, uint64_t took, bool json)
{
    char piece[256];
    snprintf(piece, sizeof piece,
             json ? "\", \"seconds\": %llu.%06llu, \"request_id\": \"%s\""
                  : "\" %llu.%06llu %s",
             (unsigned long long)(took / CLOCK_SECOND),
             (unsigned long long)(took / 1000u % 1000000u), record->id);
    add_text(line, piece);
    if (record->reason) {
        add_text(line, json ? ", \"reason\": \"" : " \"");
        add_escaped(line, record->reason, strlen(record->reason), json);
        add_text(line, "\"");
    }
    if (json) {
        add_text(line, "}");
    }
}

static void
write_line(Thread *t, Line *line)
{
    const WorkerOptions *options = &t->worker->o;
    Record *record = &t->record;
    ssize_t written;
    line->text[line->size++] = '\n';
    do {
        written = options->access_socket
                      ? send(options->access_log, line->text, line->size,
                             MSG_DONTWAIT | MSG_NOSIGNAL)
                      : write(options->access_log, line->text, line->size);
    } while (written < 0 && errno == EINTR);
    /* Said once, until it works again: a full disk must not fill the log. */
    if (written < 0 && !record->line_lost) {
        notes_add(t->worker, NOTE_WARNING,
                  "the access log cannot be written: %s; lines are lost until "
                  "it can",
                  strerror(errno));
    }
    record->line_lost = written < 0;
}

void
access_log_write(Thread *t, const Conn *c, const Request *r, uint64_t took)
{
    const WorkerOptions *options = &t->worker->o;
    const bool json = options->limits.log_format == LOG_JSON;
    const char *base = r->buffer + r->start;
    char piece[128];
    Line line; /* not cleared: it is large, and mostly there is no log */

    if (options->access_log < 0) {
        return;
    }
    line.size = 0;
    add_start(&line, &t->record.client, json);
    add_escaped(&line, base + r->head.method.at, r->head.method.len, json);
    add_text(&line, json ? "\", \"target\": \"" : " ");
    add_escaped(&line, base + r->head.target.at, r->head.target.len, json);
    snprintf(piece, sizeof piece,
             json ? "\", \"protocol\": \"HTTP/1.%u\", \"status\": %u, "
                    "\"bytes\": %lld, \"referer\": \""
                  : " HTTP/1.%u\" %u %lld \"",
             r->head.minor, c->status, (long long)t->record.body_size);
    add_text(&line, piece);
    add_field(&line, r, HTTP1_REFERER, json);
    add_text(&line, json ? "\", \"user_agent\": \"" : "\" \"");
    add_field(&line, r, HTTP1_USER_AGENT, json);
    add_end(&line, &t->record, took, json);
    write_line(t, &line);
}
