/* Codings that a client takes: see encodings.h. */
#include "protocol/encodings.h"

#include <string.h>

#include "protocol/lex.h"

const EncodingNames encoding_names[ENCODING_COUNT] = {
#define X(id, coding, suffix) [id] = {coding, suffix},
    ENCODINGS(X)
#undef X
};

/* A weight in thousandths; -1: it was not named. */
typedef struct {
    int of[ENCODING_COUNT];
    int identity, any;
} Weights;

/* "0.5" or "1.000": thousandths, or -1. */
static int
read_weight(const char *text, size_t size)
{
    if (size == 0 || size > 5 || (text[0] != '0' && text[0] != '1') ||
        (size > 1 && text[1] != '.')) {
        return -1;
    }
    int weight = (text[0] - '0') * 1000;
    int unit = 100;
    for (size_t i = 2; i < size; i++, unit /= 10) {
        if (!is_digit(text[i])) {
            return -1;
        }
        weight += (text[i] - '0') * unit;
    }
    return weight <= 1000 ? weight : -1;
}

static size_t
trim(const char **text, size_t size)
{
    while (size > 0 && is_space(**text)) {
        (*text)++;
        size--;
    }
    while (size > 0 && is_space((*text)[size - 1])) {
        size--;
    }
    return size;
}

/* `coding [ ";" "q=" weight ]`. What is malformed is not taken. */
static void
read_member(const char *text, size_t size, Weights *weights)
{
    const char *semicolon = memchr(text, ';', size);
    const char *coding = text;
    const size_t coding_size =
        trim(&coding, semicolon ? (size_t)(semicolon - text) : size);
    int weight = 1000;
    if (semicolon) {
        const char *rest = semicolon + 1;
        const size_t rest_size = trim(&rest, (size_t)(text + size - rest));
        weight = rest_size > 2 && http1_is_word(rest, 2, "q=")
                     ? read_weight(rest + 2, rest_size - 2)
                     : -1;
    }
    if (weight < 0) {
        weight = 0;
    }
    if (coding_size == 1 && *coding == '*') {
        weights->any = weight;
    } else if (http1_is_word(coding, coding_size, "identity")) {
        weights->identity = weight;
    } else if (http1_is_word(coding, coding_size, "x-gzip")) {
        weights->of[ENCODING_GZIP] = weight; /* section 8.4.1.3 */
    } else {
        for (int i = 0; i < ENCODING_COUNT; i++) {
            if (http1_is_word(coding, coding_size, encoding_names[i].coding)) {
                weights->of[i] = weight;
            }
        }
    }
}

static void
read_list(const char *text, size_t size, Weights *weights)
{
    for (size_t i = 0; i <= size;) {
        const char *comma = memchr(text + i, ',', size - i);
        const size_t end = comma ? (size_t)(comma - text) : size;
        read_member(text + i, end - i, weights);
        i = end + 1;
    }
}

uint32_t
encodings_read(const Http1Head *head, const char *base,
               Encoding wanted[ENCODING_COUNT])
{
    Weights weights = {.of = {-1, -1, -1}, .identity = -1, .any = -1};
    uint32_t count = 0;
    if ((head->seen & HTTP1_BIT(HTTP1_ACCEPT_ENCODING)) == 0) {
        return 0; /* anything would do, but it may not be able to read it */
    }
    for (uint32_t i = 0; i < head->count; i++) {
        if (head->fields[i].id == HTTP1_ACCEPT_ENCODING) {
            read_list(base + head->fields[i].value.at,
                      head->fields[i].value.len, &weights);
        }
    }
    for (int i = 0; i < ENCODING_COUNT; i++) {
        if (weights.of[i] < 0) {
            weights.of[i] = weights.any;
        }
        if (weights.of[i] <= 0 || weights.of[i] < weights.identity) {
            continue;
        }
        uint32_t place = count++;
        for (; place > 0 && weights.of[wanted[place - 1]] < weights.of[i];
             place--) {
            wanted[place] = wanted[place - 1];
        }
        wanted[place] = (Encoding)i;
    }
    return count;
}
