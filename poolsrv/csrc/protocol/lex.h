/* Bytes, words and names, as both parsers of http1.h read them. */
#ifndef POOLSRV_HTTP1_LEX_H
#define POOLSRV_HTTP1_LEX_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/http1.h"

enum {
    TCHAR = 1,      /* RFC 9110 section 5.6.2 */
    NAME = 2,       /* tchar but the underscore, which drops the field */
    PATH = 4,       /* what a path may hold beside percent escapes */
    QUERY = 8,      /* what a query may hold */
    REG_NAME = 16,  /* unreserved and sub-delims, RFC 3986 section 3.2.2 */
    AUTHORITY = 32, /* anything an authority may hold; http1_is_host() judges */
};

extern const uint8_t http1_class[256];

static inline bool
is(char c, int classes)
{
    return (http1_class[(unsigned char)c] & classes) != 0;
}

static inline bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline bool
is_space(char c)
{
    return c == ' ' || c == '\t';
}

static inline char
lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* The value of a hexadecimal digit, or -1. */
static inline int
hex(char c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline bool
is_value_byte(char c)
{
    unsigned char u = (unsigned char)c;
    return (u >= ' ' && u != 0x7f) || u == '\t';
}

/* What is wrong with a byte: a bare LF has its own name wherever it stands. */
static inline Http1Result
bad_byte(char c, Http1Result result)
{
    return c == '\n' ? HTTP1_BAD_LINE_END : result;
}

/* Whether the two texts are the same but for the case of letters. */
bool http1_same_text(const char *a, size_t a_size, const char *b,
                     size_t b_size);

/* Whether the text is `word`, which is lower case, in any case. */
bool http1_is_word(const char *text, size_t size, const char *word);

/* Whether a comma-separated list has the member `word`. */
bool http1_has_member(const char *text, size_t size, const char *word);

/* Whether it is a uri-host that is not empty [ ":" port ], RFC 9110 section
 * 7.2. An address in brackets must be IPv6 without a zone. */
bool http1_is_host(const char *text, size_t size);

/* The value of 1*DIGIT up to 2^63-1, else -1. */
int64_t http1_decimal(const char *text, size_t size);

/* HTTP1_OTHER if the name, a token, is none of HTTP1_KNOWN_FIELDS and none of
 * HTTP1_SYNONYMS. */
Http1FieldId http1_field_id(const char *name, size_t size);

#endif
