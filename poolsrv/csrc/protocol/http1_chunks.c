/* The parser of chunked bodies: see http1.h. RFC 9112 section 7.1. */
#include "protocol/lex.h"

#include <assert.h>

/* The room for a size: what 64 bits need; for an extension: three times the
 * longest in use, a signature; for all trailers: one field of usual size. */
#define SIZE_DIGITS 16
#define EXTENSION_BYTES 256
#define TRAILER_BYTES 8192

typedef enum {
    CHUNK_SIZE,
    CHUNK_SPACE, /* before the semicolon of an extension */
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    TRAILER, /* from here on, trailers */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF,
    OVER,
} ChunkState;

void
http1_chunks_init(Http1Chunks *chunks)
{
    *chunks = (Http1Chunks){.state = CHUNK_SIZE};
}

/* Trailers are dropped, so none could do harm here; but who sends one of
 * these hopes that somebody merges it. RFC 9110 section 6.5.1. */
static bool
may_trail(Http1FieldId id)
{
    switch (id) {
    case HTTP1_HOST:
    case HTTP1_CONTENT_LENGTH:
    case HTTP1_TRANSFER_ENCODING:
    case HTTP1_CONNECTION:
    case HTTP1_KEEP_ALIVE:
    case HTTP1_TE:
    case HTTP1_TRAILER:
    case HTTP1_UPGRADE:
    case HTTP1_EXPECT:
    case HTTP1_FORWARDED:
    case HTTP1_X_FORWARDED_FOR:
    case HTTP1_X_FORWARDED_PROTO:
    case HTTP1_X_FORWARDED_HOST:
    case HTTP1_X_FORWARDED_PORT:
    case HTTP1_X_FORWARDED_PREFIX:
    case HTTP1_SYNONYM:
        return false;
    default:
        return true;
    }
}

/* Go to a state in which `extent` counts anew. */
static void
begin(Http1Chunks *chunks, ChunkState state)
{
    chunks->state = (uint8_t)state;
    chunks->extent = 0;
}

/* A byte of anything but chunk data: HTTP1_PARTIAL, HTTP1_DONE or an error.
 * RFC 9112 section 7.1. */
static Http1Result
chunk_byte(Http1Chunks *chunks, char c)
{
    const ChunkState state = (ChunkState)chunks->state;

    if (state >= TRAILER && chunks->extent++ == TRAILER_BYTES) {
        return HTTP1_LONG_TRAILERS;
    }
    switch (state) {
    case CHUNK_SIZE:
        if (hex(c) >= 0) {
            if (chunks->extent++ == SIZE_DIGITS ||
                chunks->left > INT64_MAX / 16) {
                return HTTP1_BAD_CHUNK_SIZE;
            }
            chunks->left = chunks->left * 16 + (uint64_t)hex(c);
            return HTTP1_PARTIAL;
        }
        if (chunks->extent == 0) {
            return bad_byte(c, HTTP1_BAD_CHUNK_SIZE);
        }
        if (c == '\r') {
            chunks->state = CHUNK_SIZE_LF;
            return HTTP1_PARTIAL;
        }
        begin(chunks, CHUNK_SPACE);
        /* fall through */
    case CHUNK_SPACE:
        if (c == ';') {
            chunks->state = CHUNK_EXTENSION;
            return HTTP1_PARTIAL;
        }
        if (!is_space(c)) {
            return bad_byte(c, HTTP1_BAD_CHUNK_SIZE);
        }
        return chunks->extent++ == EXTENSION_BYTES ? HTTP1_BAD_CHUNK_EXTENSION
                                                   : HTTP1_PARTIAL;
    case CHUNK_EXTENSION:
        if (c == '\r') {
            chunks->state = CHUNK_SIZE_LF;
            return HTTP1_PARTIAL;
        }
        if (!is_value_byte(c) || chunks->extent++ == EXTENSION_BYTES) {
            return bad_byte(c, HTTP1_BAD_CHUNK_EXTENSION);
        }
        return HTTP1_PARTIAL;
    case CHUNK_SIZE_LF:
        if (c != '\n') {
            return HTTP1_BAD_LINE_END;
        }
        begin(chunks, chunks->left > 0 ? CHUNK_DATA : TRAILER);
        return HTTP1_PARTIAL;
    case CHUNK_DATA_CR:
        chunks->state = CHUNK_DATA_LF;
        return c == '\r' ? HTTP1_PARTIAL : HTTP1_BAD_CHUNK_END;
    case CHUNK_DATA_LF:
        begin(chunks, CHUNK_SIZE);
        return c == '\n' ? HTTP1_PARTIAL : HTTP1_BAD_CHUNK_END;
    case TRAILER:
        if (c == '\r') {
            chunks->state = LAST_LF;
            return HTTP1_PARTIAL;
        }
        if (is_space(c)) {
            return HTTP1_FOLDED_FIELD;
        }
        chunks->state = TRAILER_NAME;
        chunks->name_len = 0;
        /* fall through */
    case TRAILER_NAME:
        if (is(c, TCHAR)) {
            if (chunks->name_len < HTTP1_TRAILER_NAME) {
                chunks->name[chunks->name_len++] = c;
            }
            return HTTP1_PARTIAL;
        }
        if (c != ':' || chunks->name_len == 0) {
            return bad_byte(c, HTTP1_BAD_FIELD_NAME);
        }
        chunks->state = TRAILER_VALUE;
        return may_trail(http1_field_id(chunks->name, chunks->name_len))
                   ? HTTP1_PARTIAL
                   : HTTP1_BAD_TRAILER;
    case TRAILER_VALUE:
        if (c == '\r') {
            chunks->state = TRAILER_LF;
            return HTTP1_PARTIAL;
        }
        if (!is_value_byte(c)) {
            return bad_byte(c, HTTP1_BAD_FIELD_VALUE);
        }
        return HTTP1_PARTIAL;
    case TRAILER_LF:
        chunks->state = TRAILER;
        return c == '\n' ? HTTP1_PARTIAL : HTTP1_BAD_LINE_END;
    case LAST_LF:
        chunks->state = OVER;
        return c == '\n' ? HTTP1_DONE : HTTP1_BAD_LINE_END;
    case CHUNK_DATA:
    case OVER:
        break; /* http1_chunks_next() takes these */
    }
    assert(false);
    return HTTP1_DONE;
}

Http1Result
http1_chunks_next(Http1Chunks *chunks, const char *input, size_t size,
                  size_t *used, Http1Span *data)
{
    Http1Result result = chunks->state == OVER ? HTTP1_DONE : HTTP1_PARTIAL;
    size_t i = 0;

    *data = (Http1Span){0};
    while (result == HTTP1_PARTIAL && i < size) {
        if (chunks->state == CHUNK_DATA) {
            uint64_t len = size - i < UINT32_MAX ? size - i : UINT32_MAX;
            len = len < chunks->left ? len : chunks->left;
            /* What stood before it is short: 32 bits hold its offset. */
            *data = (Http1Span){.at = (uint32_t)i, .len = (uint32_t)len};
            chunks->left -= len;
            if (chunks->left == 0) {
                chunks->state = CHUNK_DATA_CR;
            }
            i += len;
            result = HTTP1_DATA;
        } else {
            result = chunk_byte(chunks, input[i]);
            i++;
        }
    }
    *used = i;
    return result;
}
