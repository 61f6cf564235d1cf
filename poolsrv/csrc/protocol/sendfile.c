/* Answers that name a file: see sendfile.h. */
#define _GNU_SOURCE
#include "protocol/sendfile.h"

#include <string.h>

#include "protocol/lex.h"

/* "bytes 0-99/1000" or "bytes 0-99/<asterisk>" */
static void
read_range(const char *text, size_t size, SendfileFacts *facts)
{
    const char *end = text + size;
    const char *dash = memchr(text, '-', size);
    const char *slash = memchr(text, '/', size);
    if (size < 6 || !http1_is_word(text, 6, "bytes ") || dash == NULL ||
        slash == NULL || slash < dash || slash == end) {
        return;
    }
    const int64_t first = http1_decimal(text + 6, (size_t)(dash - text) - 6);
    const int64_t last = http1_decimal(dash + 1, (size_t)(slash - dash) - 1);
    if (first >= 0 && last >= first) {
        facts->first = first;
        facts->last = last;
    }
}

static void
read_line(const char *line, size_t size, SendfileFacts *facts)
{
    const char *colon = memchr(line, ':', size);
    if (colon == NULL) {
        return;
    }
    const size_t name = (size_t)(colon - line);
    const char *value = colon + 1;
    while (value < line + size && is_space(*value)) {
        value++;
    }
    if (http1_is_word(line, name, "content-type")) {
        facts->has_type = true;
    } else if (http1_is_word(line, name, "content-range")) {
        facts->has_judged = true;
        read_range(value, (size_t)(line + size - value), facts);
    } else if (http1_is_word(line, name, "accept-ranges") ||
               http1_is_word(line, name, "etag") ||
               http1_is_word(line, name, "last-modified")) {
        facts->has_judged = true;
    }
}

SendfileFacts
sendfile_read(const char *lines, size_t size)
{
    SendfileFacts facts = {.first = -1, .last = -1};
    while (size > 0) {
        const char *end = memmem(lines, size, "\r\n", 2);
        const size_t length = end ? (size_t)(end - lines) : size;
        read_line(lines, length, &facts);
        const size_t used = end ? length + 2 : size;
        lines += used;
        size -= used;
    }
    return facts;
}

const char *
sendfile_below(const char *path, const char *folder)
{
    const size_t size = strlen(folder);
    return strncmp(path, folder, size) == 0 && path[size] == '/'
               ? path + size + 1
               : NULL;
}
