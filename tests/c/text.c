#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

void
text_add(Text *text, const char *bytes, size_t size)
{
    if (text->size + size + 1 > text->room) {
        text->room = 2 * (text->size + size) + 64;
        text->bytes = realloc(text->bytes, text->room);
        CHECK(text->bytes != NULL);
    }
    if (size > 0) {
        memcpy(text->bytes + text->size, bytes, size);
    }
    text->size += size;
    text->bytes[text->size] = '\0';
}

void
text_print(Text *text, const char *format, ...)
{
    char line[256];
    va_list values;
    va_start(values, format);
    const int size = vsnprintf(line, sizeof(line), format, values);
    va_end(values);
    CHECK(size >= 0 && (size_t)size < sizeof(line));
    text_add(text, line, (size_t)size);
}

void
text_escape(Text *text, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        const unsigned char c = (unsigned char)bytes[i];
        if (c == '\r') {
            text_add(text, "\\r", 2);
        } else if (c == '\n') {
            text_add(text, "\\n", 2);
        } else if (c == '\t') {
            text_add(text, "\\t", 2);
        } else if (c == '\\') {
            text_add(text, "\\\\", 2);
        } else if (c < ' ' || c > '~') {
            text_print(text, "\\x%02x", c);
        } else {
            text_add(text, bytes + i, 1);
        }
    }
}

void
text_unescape(Text *text)
{
    size_t to = 0;
    for (size_t i = 0; i < text->size; i++) {
        char c = text->bytes[i];
        if (c == '\\') {
            unsigned value;
            switch (text->bytes[++i]) {
            case 'r':
                c = '\r';
                break;
            case 'n':
                c = '\n';
                break;
            case 't':
                c = '\t';
                break;
            case '\\':
                break;
            default:
                CHECK(sscanf(text->bytes + i, "x%2x", &value) == 1);
                c = (char)value;
                i += 2;
            }
        }
        text->bytes[to++] = c;
    }
    CHECK(text->bytes != NULL);
    text->size = to;
    text->bytes[to] = '\0';
}
