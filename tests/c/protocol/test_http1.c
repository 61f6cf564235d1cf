/* Every case given, whole and at every split; then what no case can say. */
#include <ctype.h>
#include <string.h>

#include "protocol/case.h"
#include "check.h"
#include "protocol/lex.h"
#include "protocol/message.h"

/* Whether `words` has the line that `line` starts with, newline included. */
static bool
has_line(const Text *words, const char *line)
{
    const size_t size = strcspn(line, "\n") + 1;
    const char *at = words->bytes;
    while (*at != '\0') {
        if (strncmp(at, line, size) == 0) {
            return true;
        }
        at += strcspn(at, "\n") + 1;
    }
    return false;
}

static void
test_case(const char *path)
{
    Case given;
    case_read(&given, path);
    const char *bytes = given.input.bytes;
    const size_t size = given.input.size;

    Text whole = {0};
    const Http1Result result =
        message_feed(&given.limits, bytes, size, size, 1, &whole);
    bool right = strcmp(message_result_name(result), given.result) == 0;
    for (const char *line = given.expect.bytes; *line != '\0';
         line += strcspn(line, "\n") + 1) {
        right = right && has_line(&whole, line);
    }
    if (!right) {
        fprintf(stderr, "%s\nexpected: %s\n%sbut it is:\n%s", path,
                given.result, given.expect.bytes, whole.bytes);
        exit(1);
    }
    /* What is complete is answered by the application, what is not by none. */
    const int refusal = http1_status(result);
    CHECK(given.status == (result == HTTP1_DONE ? 200 : refusal));

    for (size_t first = 0; first <= size; first++) {
        Text words = {0};
        /* The first split is before the first byte: then byte by byte. */
        const size_t step = first == 0 ? 1 : size;
        message_feed(&given.limits, bytes, size, first, step, &words);
        if (strcmp(words.bytes, whole.bytes) != 0) {
            fprintf(stderr, "%s\nsplit at %zu, it is:\n%sbut whole:\n%s", path,
                    first, words.bytes, whole.bytes);
            exit(1);
        }
        free(words.bytes);
    }
    free(whole.bytes);
    case_free(&given);
}

static void
test_known_names_are_known_in_any_case(void)
{
#define X(id, known)                                                  \
    {                                                                 \
        char name[] = known;                                          \
        CHECK(http1_field_id(name, strlen(name)) == id);              \
        for (size_t i = 0; name[i] != '\0'; i++) {                    \
            name[i] = (char)toupper(name[i]);                         \
            CHECK(http1_field_id(name, strlen(name)) == id);          \
        }                                                             \
        for (size_t i = 0; name[i] != '\0'; i++) {                    \
            const char before = name[i];                              \
            name[i] = before == '-' ? '.' : '!';                      \
            CHECK(http1_field_id(name, strlen(name)) == HTTP1_OTHER); \
            name[i] = before;                                         \
        }                                                             \
    }
    HTTP1_KNOWN_FIELDS(X)
#undef X
#define X(known)                                                    \
    CHECK(http1_field_id(known, strlen(known)) == HTTP1_SYNONYM);   \
    /* The end of a trailer's name that is too long is not kept. */ \
    CHECK(strlen(known) < HTTP1_TRAILER_NAME);
    HTTP1_SYNONYMS(X)
#undef X
}

static void
test_other_names_are_not(void)
{
    char name[64];
    memset(name, 'x', sizeof(name));
    for (size_t size = 1; size <= sizeof(name); size++) {
        CHECK(http1_field_id(name, size) == HTTP1_OTHER);
    }
}

static void
test_results_have_status_and_words(void)
{
#define X(name, status, words)                    \
    CHECK(http1_status(name) == status);          \
    CHECK(strcmp(http1_words(name), words) == 0); \
    CHECK((name >= HTTP1_BAD_METHOD) == (status >= 400));
    HTTP1_RESULTS(X)
#undef X
}

static void
unescapes(const char *in, const char *wanted, ptrdiff_t length)
{
    char out[64];
    CHECK(http1_unescape(out, in, strlen(in)) == length);
    CHECK(length < 0 || memcmp(out, wanted, (size_t)length) == 0);
}

static void
test_unescape(void)
{
    unescapes("", "", 0);
    unescapes("/plain", "/plain", 6);
    unescapes("/a%20b%2Fc%2f", "/a b/c/", 7);
    unescapes("%00%ff%FF", "\0\xff\xff", 3);
    unescapes("%25%32%35", "%25", 3); /* once only */
    unescapes("+", "+", 1);           /* no form encoding */
    unescapes("%", NULL, -1);
    unescapes("a%2", NULL, -1);
    unescapes("%g0", NULL, -1);
    unescapes("%0g", NULL, -1);
    unescapes("%%20", NULL, -1);
}

/* Bodies of 2^63-1 bytes and pieces of 4 GiB cannot be fed here: the state is
 * all there is to see. */
static void
test_largest_chunk(void)
{
    static const char size_line[] = "7fffffffffffffff\r\nx";
    Http1Chunks chunks;
    Http1Span data;
    size_t used;

    http1_chunks_init(&chunks);
    CHECK(http1_chunks_next(&chunks, size_line, strlen(size_line), &used,
                            &data) == HTTP1_DATA);
    CHECK(used == strlen(size_line) && data.at == 18 && data.len == 1);
    CHECK(chunks.left == INT64_MAX - 1);
}

static void
test_a_body_that_is_over_takes_nothing_more(void)
{
    static const char body[] = "0\r\n\r\nGET / HTTP/1.1\r\n";
    Http1Chunks chunks;
    Http1Span data;
    size_t used;

    http1_chunks_init(&chunks);
    CHECK(http1_chunks_next(&chunks, body, strlen(body), &used, &data) ==
          HTTP1_DONE);
    CHECK(used == 5);
    CHECK(http1_chunks_next(&chunks, body + 5, strlen(body) - 5, &used,
                            &data) == HTTP1_DONE);
    CHECK(used == 0);
}

int
main(int count, char **paths)
{
    test_known_names_are_known_in_any_case();
    test_other_names_are_not();
    test_results_have_status_and_words();
    test_unescape();
    test_largest_chunk();
    test_a_body_that_is_over_takes_nothing_more();
    for (int i = 1; i < count; i++) {
        test_case(paths[i]);
    }
    printf("%d cases\n", count - 1);
    return 0;
}
