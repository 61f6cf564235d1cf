/* A growing buffer: see buffer.h. */
#include "common/buffer.h"

#include <stdlib.h>

/* Room for the head of most answers. */
#define SMALLEST 1024

int
buffer_grow(Buffer *b, size_t more)
{
    size_t capacity = b->capacity ? b->capacity : SMALLEST;
    if (more > SIZE_MAX / 2 - b->size) {
        return -1;
    }
    while (capacity < b->size + more) {
        capacity *= 2;
    }
    char *data = realloc(b->data, capacity);
    if (data == NULL) {
        return -1;
    }
    b->data = data;
    b->capacity = capacity;
    return 0;
}

int
buffer_add_text(Buffer *b, const char *text)
{
    return buffer_add(b, text, strlen(text));
}

int
buffer_add_number(Buffer *b, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
    } while (number /= 10);
    return buffer_add(b, digits + at, sizeof digits - at);
}

void
buffer_clear(Buffer *b)
{
    free(b->data);
    *b = (Buffer){NULL, 0, 0};
}
