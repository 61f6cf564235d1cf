/* Conditional requests: RFC 9110 section 13, line by line. */
#include "protocol/conditions.h"
#include "protocol/heads.h"

#define NOW INT64_C(1795651200)
#define AT "Sun, 06 Nov 1994 08:49:37 GMT"
#define BEFORE "Sun, 06 Nov 1994 08:49:36 GMT"
#define AFTER "Sun, 06 Nov 1994 08:49:38 GMT"

static const Validator strong = {"\"a\"", 3, 784111777, false};
static const Validator weak = {"\"a\"", 3, 784111777, true};

typedef struct {
    const char *fields;
    ConditionsResult of_strong, of_weak;
} Row;

#define SERVE CONDITIONS_SERVE
#define SAME CONDITIONS_NOT_MODIFIED
#define FAILED CONDITIONS_FAILED

static const Row rows[] = {
    {"", SERVE, SERVE},
    /* If-None-Match compares weakly (13.1.2). */
    {"If-None-Match: \"a\"\r\n", SAME, SAME},
    {"If-None-Match: W/\"a\"\r\n", SAME, SAME},
    {"If-None-Match: \"b\"\r\n", SERVE, SERVE},
    {"If-None-Match: *\r\n", SAME, SAME},
    {"If-None-Match: \"b\", \"a\"\r\n", SAME, SAME},
    {"If-None-Match: \"b\",W/\"a\"\r\n", SAME, SAME},
    {"If-None-Match: , ,\"b\" ,\t\"a\" ,\r\n", SAME, SAME},
    {"If-None-Match: \"b\"\r\nIf-None-Match: \"a\"\r\n", SAME, SAME},
    {"If-None-Match: \"a,b\"\r\n", SERVE, SERVE}, /* one tag with a comma */
    {"If-None-Match: \"b, \"a\"\r\n", SERVE, SERVE},
    {"If-None-Match: a\r\n", SERVE, SERVE},
    {"If-None-Match: \"A\"\r\n", SERVE, SERVE}, /* bytes, not letters */
    {"If-None-Match: w/\"a\"\r\n", SERVE, SERVE},
    {"If-None-Match: \"a\r\n", SERVE, SERVE},
    {"If-None-Match: \"\"\r\n", SERVE, SERVE},
    {"If-None-Match:\r\n", SERVE, SERVE},
    {"If-None-Match: \"b\", *\r\n", SERVE, SERVE},
    {"If-None-Match: \"b\" \"a\"\r\n", SERVE, SERVE},
    {"If-None-Match: W/\r\n", SERVE, SERVE},
    /* If-Match compares strongly (13.1.1). */
    {"If-Match: \"a\"\r\n", SERVE, FAILED},
    {"If-Match: W/\"a\"\r\n", FAILED, FAILED},
    {"If-Match: *\r\n", SERVE, SERVE},
    {"If-Match: \"b\"\r\n", FAILED, FAILED},
    {"If-Match: \"b\", \"a\"\r\n", SERVE, FAILED},
    {"If-Match: a\r\n", FAILED, FAILED},
    {"If-Match:\r\n", FAILED, FAILED},
    /* Dates (13.1.3, 13.1.4). */
    {"If-Modified-Since: " AT "\r\n", SAME, SAME},
    {"If-Modified-Since: " AFTER "\r\n", SAME, SAME},
    {"If-Modified-Since: " BEFORE "\r\n", SERVE, SERVE},
    {"If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n", SAME, SAME},
    {"If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n", SAME, SAME},
    {"If-Modified-Since: never\r\n", SERVE, SERVE},
    {"If-Modified-Since: 0\r\n", SERVE, SERVE},
    {"If-Modified-Since: " AT "\r\nIf-Modified-Since: " AT "\r\n", SERVE,
     SERVE},
    {"If-Unmodified-Since: " AT "\r\n", SERVE, SERVE},
    {"If-Unmodified-Since: " AFTER "\r\n", SERVE, SERVE},
    {"If-Unmodified-Since: " BEFORE "\r\n", FAILED, FAILED},
    {"If-Unmodified-Since: never\r\n", SERVE, SERVE},
    /* The order of 13.2.2. */
    {"If-Match: \"a\"\r\nIf-Unmodified-Since: " BEFORE "\r\n", SERVE, FAILED},
    {"If-Match: \"b\"\r\nIf-Unmodified-Since: " AT "\r\n", FAILED, FAILED},
    {"If-Match: \"a\"\r\nIf-None-Match: \"a\"\r\n", SAME, FAILED},
    {"If-Match: \"b\"\r\nIf-None-Match: \"a\"\r\n", FAILED, FAILED},
    {"If-Unmodified-Since: " BEFORE "\r\nIf-None-Match: \"a\"\r\n", FAILED,
     FAILED},
    {"If-Unmodified-Since: " AT "\r\nIf-Modified-Since: " AT "\r\n", SAME,
     SAME},
    {"If-None-Match: \"b\"\r\nIf-Modified-Since: " AT "\r\n", SERVE, SERVE},
    {"If-None-Match: \"a\"\r\nIf-Modified-Since: " BEFORE "\r\n", SAME, SAME},
};

typedef struct {
    const char *fields;
    bool of_strong, of_weak;
} RangeRow;

static const RangeRow range_rows[] = {
    {"", true, true},
    {"If-Range: \"a\"\r\n", true, false},
    {"If-Range: W/\"a\"\r\n", false, false},
    {"If-Range: \"b\"\r\n", false, false},
    {"If-Range: \"b\", \"a\"\r\n", false, false},
    {"If-Range: \"a\" x\r\n", false, false},
    {"If-Range: *\r\n", false, false},
    {"If-Range: " AT "\r\n", true, false},
    {"If-Range: " AFTER "\r\n", false, false},
    {"If-Range: " BEFORE "\r\n", false, false},
    {"If-Range: Sun Nov  6 08:49:37 1994\r\n", true, false},
    {"If-Range:\r\n", false, false},
    {"If-Range: \"a\"\r\nIf-Range: \"a\"\r\n", false, false},
};

int
main(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        Asked a = ask(rows[i].fields);
        if (conditions_judge(&a.head, a.bytes, &strong, NOW) !=
                rows[i].of_strong ||
            conditions_judge(&a.head, a.bytes, &weak, NOW) != rows[i].of_weak) {
            printf("%s", rows[i].fields);
            abort();
        }
        asked_free(&a);
    }
    for (size_t i = 0; i < sizeof range_rows / sizeof range_rows[0]; i++) {
        Asked a = ask(range_rows[i].fields);
        if (conditions_allow_range(&a.head, a.bytes, &strong, NOW) !=
                range_rows[i].of_strong ||
            conditions_allow_range(&a.head, a.bytes, &weak, NOW) !=
                range_rows[i].of_weak) {
            printf("%s", range_rows[i].fields);
            abort();
        }
        asked_free(&a);
    }
    printf("%zu conditions\n", sizeof rows / sizeof rows[0] +
                                   sizeof range_rows / sizeof range_rows[0]);
    return 0;
}
