/* A line of the access log: see access_line.h. Pure C. */
#include "protocol/access_line.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "common/calendar.h"
#include "common/clock.h"

typedef struct {
    char *text;
    size_t size;
} Line;

static void
add(Line *line, const char *text, size_t size)
{
    const size_t room = ACCESS_LINE - 2 - line->size;
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
add_field(Line *line, const AccessText *value, bool json)
{
    if (value->bytes) {
        add_escaped(line, value->bytes, value->size, json);
    } else if (!json) {
        add_text(line, "-");
    }
}

/* When, and who. */
static void
add_start(Line *line, const AccessFacts *facts, bool json)
{
    char address[INET6_ADDRSTRLEN] = "-", piece[256];
    const Address *client = &facts->client;
    struct tm t;
    if (address_size(client->family)) {
        inet_ntop(client->family, client->bytes, address, sizeof address);
    } else if (client->family == AF_UNIX) {
        strcpy(address, "unix");
    }
    gmtime_r(&facts->now, &t);
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
add_end(Line *line, const AccessFacts *facts, bool json)
{
    char piece[256];
    snprintf(piece, sizeof piece,
             json ? "\", \"seconds\": %llu.%06llu, \"request_id\": \"%s\""
                  : "\" %llu.%06llu %s",
             (unsigned long long)(facts->took / CLOCK_SECOND),
             (unsigned long long)(facts->took / 1000u % 1000000u),
             facts->id ? facts->id
             : json    ? ""
                       : "-");
    add_text(line, piece);
    if (facts->reason) {
        add_text(line, json ? ", \"reason\": \"" : " \"");
        add_escaped(line, facts->reason, strlen(facts->reason), json);
        add_text(line, "\"");
    }
    if (json) {
        add_text(line, "}");
    }
}

size_t
access_line_write(char text[ACCESS_LINE], const AccessFacts *facts, bool json)
{
    Line line = {.text = text};
    char piece[128];

    add_start(&line, facts, json);
    add_escaped(&line, facts->method.bytes, facts->method.size, json);
    add_text(&line, json ? "\", \"target\": \"" : " ");
    add_escaped(&line, facts->target.bytes, facts->target.size, json);
    snprintf(piece, sizeof piece,
             json ? "\", \"protocol\": \"HTTP/1.%u\", \"status\": %u, "
                    "\"bytes\": %lld, \"referer\": \""
                  : " HTTP/1.%u\" %u %lld \"",
             facts->minor, facts->status, (long long)facts->body_size);
    add_text(&line, piece);
    add_field(&line, &facts->referer, json);
    add_text(&line, json ? "\", \"user_agent\": \"" : "\" \"");
    add_field(&line, &facts->agent, json);
    add_end(&line, facts, json);
    line.text[line.size++] = '\n';
    return line.size;
}
