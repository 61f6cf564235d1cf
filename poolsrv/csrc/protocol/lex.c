/* Bytes, words and names: see lex.h. */
#include "protocol/lex.h"

#include <arpa/inet.h>
#include <string.h>

/* A target may hold more than RFC 3986 lists: browsers send `|` raw and some
 * clients `"` or `{`, and to the application they are plain data. Not `#`:
 * what follows is a fragment to some readers and path to others. */
#define DATA (PATH | QUERY)
#define HOST (DATA | REG_NAME | AUTHORITY)
#define TOKEN (DATA | TCHAR | NAME)

/* clang-format off */
const uint8_t http1_class[256] = {
    ['!'] = TOKEN | HOST, ['"'] = DATA, ['#'] = TCHAR | NAME,
    ['$'] = TOKEN | HOST, ['%'] = TCHAR | NAME | QUERY | AUTHORITY,
    ['&'] = TOKEN | HOST, ['\''] = TOKEN | HOST, ['('] = HOST, [')'] = HOST,
    ['*'] = TOKEN | HOST, ['+'] = TOKEN | HOST, [','] = HOST,
    ['-'] = TOKEN | HOST, ['.'] = TOKEN | HOST, ['/'] = DATA,
    ['0' ... '9'] = TOKEN | HOST,
    [':'] = DATA | AUTHORITY, [';'] = HOST, ['<'] = DATA, ['='] = HOST,
    ['>'] = DATA, ['?'] = QUERY, ['@'] = DATA,
    ['A' ... 'Z'] = TOKEN | HOST,
    ['['] = DATA | AUTHORITY, ['\\'] = DATA, [']'] = DATA | AUTHORITY,
    ['^'] = TOKEN, ['_'] = DATA | TCHAR | HOST, ['`'] = TOKEN,
    ['a' ... 'z'] = TOKEN | HOST,
    ['{'] = DATA, ['|'] = TOKEN, ['}'] = DATA, ['~'] = TOKEN | HOST,
};
/* clang-format on */

#undef DATA
#undef HOST
#undef TOKEN

static inline uint64_t
load8(const char *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    return word;
}

static inline uint32_t
load4(const char *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, sizeof(word));
    return word;
}

/* Whether `name`, a token, is `known`. Setting bit 5 makes a letter lower
 * case and leaves digits and the hyphen alone; no other tchar becomes one of
 * these. `size` is a constant where this is inlined: what remains are some
 * comparisons with immediate words. */
static inline bool
same_name(const char *name, const char *known, size_t size)
{
    const uint64_t fold = UINT64_C(0x2020202020202020);
    if (size >= 8) {
        for (size_t i = 0; i + 8 <= size; i += 8) {
            if ((load8(name + i) | fold) != load8(known + i)) {
                return false;
            }
        }
        return (load8(name + size - 8) | fold) == load8(known + size - 8);
    }
    if (size >= 4) {
        return (load4(name) | (uint32_t)fold) == load4(known) &&
               (load4(name + size - 4) | (uint32_t)fold) ==
                   load4(known + size - 4);
    }
    for (size_t i = 0; i < size; i++) {
        if ((name[i] | 0x20) != known[i]) {
            return false;
        }
    }
    return true;
}

__attribute__((always_inline)) static inline Http1FieldId
known_of_size(const char *name, const size_t size)
{
#define X(id, known)                                                 \
    if (sizeof(known) - 1 == size && same_name(name, known, size)) { \
        return id;                                                   \
    }
    HTTP1_KNOWN_FIELDS(X)
#undef X
#define X(known)                                                     \
    if (sizeof(known) - 1 == size && same_name(name, known, size)) { \
        return HTTP1_SYNONYM;                                        \
    }
    HTTP1_SYNONYMS(X)
#undef X
    return HTTP1_OTHER;
}

#define X(id, known) _Static_assert(sizeof(known) - 1 <= 32, "add CASES");
HTTP1_KNOWN_FIELDS(X)
#undef X
#define X(known) _Static_assert(sizeof(known) - 1 <= 32, "add CASES");
HTTP1_SYNONYMS(X)
#undef X

/* One case a length: the compiler keeps in each only the names that have it,
 * so that most fields cost one jump and one or two comparisons. */
Http1FieldId
http1_field_id(const char *name, size_t size)
{
    /* clang-format off */
    switch (size) {
#define CASE(n) case n: return known_of_size(name, n);
#define CASES(n) CASE(n) CASE(n + 1) CASE(n + 2) CASE(n + 3)
        CASES(1) CASES(5) CASES(9) CASES(13)
        CASES(17) CASES(21) CASES(25) CASES(29)
#undef CASES
#undef CASE
    }
    /* clang-format on */
    return HTTP1_OTHER;
}

bool
http1_same_text(const char *a, size_t a_size, const char *b, size_t b_size)
{
    if (a_size != b_size) {
        return false;
    }
    for (size_t i = 0; i < a_size; i++) {
        if (lower(a[i]) != lower(b[i])) {
            return false;
        }
    }
    return true;
}

bool
http1_is_word(const char *text, size_t size, const char *word)
{
    return http1_same_text(text, size, word, strlen(word));
}

/* The size of "[" and an IPv6 address and "]", or 0. */
static size_t
ipv6_size(const char *text, size_t size)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr unused;
    const char *close = memchr(text, ']', size);
    if (close == NULL || close - text > (ptrdiff_t)sizeof(address)) {
        return 0;
    }
    const size_t inner = (size_t)(close - text) - 1;
    memcpy(address, text + 1, inner);
    address[inner] = '\0';
    return inet_pton(AF_INET6, address, &unused) == 1 ? inner + 2 : 0;
}

/* The size of a reg-name, RFC 3986 section 3.2.2; 0 if an escape is cut. */
static size_t
name_size(const char *text, size_t size)
{
    size_t i = 0;
    while (i < size && (is(text[i], REG_NAME) || text[i] == '%')) {
        if (text[i] == '%' &&
            (size - i < 3 || hex(text[i + 1]) < 0 || hex(text[i + 2]) < 0)) {
            return 0;
        }
        i++;
    }
    return i;
}

bool
http1_is_host(const char *text, size_t size)
{
    size_t i = size > 0 && text[0] == '[' ? ipv6_size(text, size)
                                          : name_size(text, size);
    if (i == 0 || i == size) {
        return i > 0;
    }
    if (text[i] != ':') {
        return false;
    }
    unsigned port = 0;
    for (i++; i < size && is_digit(text[i]) && port <= UINT16_MAX; i++) {
        port = port * 10 + (unsigned)(text[i] - '0');
    }
    return i == size && port <= UINT16_MAX;
}

int64_t
http1_decimal(const char *text, size_t size)
{
    if (size == 0 || size > 19) { /* 19 digits cannot overflow 64 bits */
        return -1;
    }
    uint64_t length = 0;
    for (size_t i = 0; i < size; i++) {
        if (!is_digit(text[i])) {
            return -1;
        }
        length = length * 10 + (uint64_t)(text[i] - '0');
    }
    return length <= INT64_MAX ? (int64_t)length : -1;
}

bool
http1_has_member(const char *text, size_t size, const char *word)
{
    for (size_t i = 0; i < size; i++) { /* over the comma */
        while (i < size && is_space(text[i])) {
            i++;
        }
        const char *comma = memchr(text + i, ',', size - i);
        const size_t next = comma == NULL ? size : (size_t)(comma - text);
        size_t end = next;
        while (end > i && is_space(text[end - 1])) {
            end--;
        }
        if (http1_is_word(text + i, end - i, word)) {
            return true;
        }
        i = next;
    }
    return false;
}
