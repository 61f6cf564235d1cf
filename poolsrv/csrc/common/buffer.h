/* A growing buffer. Any process; the memory is libc's, so that code without an
 * interpreter can use it. */
#ifndef POOLSRV_BUFFER_H
#define POOLSRV_BUFFER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* All zero is empty. `size` may be set lower, and the bytes be written to. */
typedef struct {
    char *data;
    size_t size, capacity;
} Buffer;

/* buffer_reserve's slow way. */
int buffer_grow(Buffer *b, size_t more);

/* Room for `more` bytes behind those there. 0; -1: no memory, all as before. */
static inline int
buffer_reserve(Buffer *b, size_t more)
{
    return more <= b->capacity - b->size ? 0 : buffer_grow(b, more);
}

static inline int
buffer_add(Buffer *b, const char *data, size_t size)
{
    if (buffer_reserve(b, size) < 0) {
        return -1;
    }
    if (size) { /* else `data` may be NULL, which memcpy must not get */
        memcpy(b->data + b->size, data, size);
    }
    b->size += size;
    return 0;
}

#define BUFFER_ADD_LITERAL(b, text) buffer_add((b), (text), sizeof(text) - 1)

int buffer_add_text(Buffer *b, const char *text);
int buffer_add_number(Buffer *b, uint64_t number);

/* Give the memory back. */
void buffer_clear(Buffer *b);

#endif
