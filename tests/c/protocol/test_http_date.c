/* HTTP dates: three forms read, one written, and every day there is. */
#include <string.h>
#include <time.h>

#include "check.h"
#include "protocol/http_date.h"

#define NOW INT64_C(1795651200) /* 26 November 2026 */
#define EXAMPLE INT64_C(784111777)

typedef struct {
    const char *text;
    int64_t seconds; /* -1: it is no date */
} Row;

static const Row rows[] = {
    /* RFC 9110 section 5.6.7 */
    {"Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE},
    {"Sunday, 06-Nov-94 08:49:37 GMT", EXAMPLE},
    {"Sun Nov  6 08:49:37 1994", EXAMPLE},
    {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
    {"Thu Jan 01 00:00:00 1970", 0},
    {"Thu Jan 15 00:00:00 1970", 14 * 86400},
    {"Thu, 29 Feb 2024 23:59:60 GMT", 1709251200}, /* a leap second */
    {"Mon, 06 Nov 1994 08:49:37 GMT", EXAMPLE},    /* it was a Sunday */
    /* Two digits: up to 50 years from now. */
    {"Friday, 01-Jan-76 00:00:00 GMT", 3345062400},
    {"Saturday, 01-Jan-77 00:00:00 GMT", 220924800},
    {"Saturday, 01-Jan-00 00:00:00 GMT", 946684800},

    {"Sun, 06 Nov 1994 08:49:37 UTC", -1},
    {"Sun, 06 Nov 1994 08:49:37 +0000", -1},
    {"Sun, 06 Nov 1994 08:49:37", -1},
    {"Sun, 06 Nov 1994 08:49:37 GMT ", -1},
    {" Sun, 06 Nov 1994 08:49:37 GMT", -1},
    {"sun, 06 nov 1994 08:49:37 gmt", -1},
    {"Sun, 6 Nov 1994 08:49:37 GMT", -1},
    {"Sun, 06 Nov 94 08:49:37 GMT", -1},
    {"Sun, 06-Nov-1994 08:49:37 GMT", -1},
    {"Sun, 00 Nov 1994 08:49:37 GMT", -1},
    {"Sun, 31 Nov 1994 08:49:37 GMT", -1},
    {"Wed, 29 Feb 2023 00:00:00 GMT", -1},
    {"Mon, 29 Feb 1900 00:00:00 GMT", -1},
    {"Sun, 06 Nov 1994 24:00:00 GMT", -1},
    {"Sun, 06 Nov 1994 08:60:00 GMT", -1},
    {"Sun, 06 Nov 1994 08:49:61 GMT", -1},
    {"Sun, 06 Foo 1994 08:49:37 GMT", -1},
    {"Sun Nov 006 08:49:37 1994", -1},
    {"Sun Nov 6 08:49:37 1994", -1},
    {"784111777", -1},
    {"0", -1},
    {"", -1},
};

static void
test_rows(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t seconds = -1;
        const size_t size = strlen(rows[i].text);
        char *block = malloc(size + 1);
        CHECK(block);
        memcpy(block, rows[i].text, size);
        const bool good = http_date_read(block, size, NOW, &seconds);
        free(block);
        if (good != (rows[i].seconds >= 0) || seconds != rows[i].seconds) {
            printf("%s: %lld\n", rows[i].text, (long long)seconds);
            abort();
        }
        for (size_t part = 0; part < size; part++) {
            CHECK(!http_date_read(rows[i].text, part, NOW, &seconds) ||
                  part == 29);
        }
    }
}

/* As the C library says, through 9999 years. */
static void
test_every_day(void)
{
    for (int64_t day = -719528; day < 2932897; day++) {
        const int64_t seconds =
            day * 86400 + (day * 7919 % 86400 + 86400) % 86400;
        const time_t now = (time_t)seconds;
        struct tm t;
        char text[HTTP_DATE_SIZE + 1] = "", expected[64];
        int64_t read;
        gmtime_r(&now, &t);
        http_date_write(text, seconds);
        if (day % 13 == 0) { /* strftime is slow */
            const size_t n =
                strftime(expected, sizeof expected, "%a, %d %b ", &t);
            snprintf(expected + n, sizeof expected - n,
                     "%04d %02d:%02d:%02d GMT", t.tm_year + 1900, t.tm_hour,
                     t.tm_min, t.tm_sec);
            CHECK(strcmp(text, expected) == 0);
        }
        CHECK(http_date_read(text, HTTP_DATE_SIZE, NOW, &read));
        CHECK(read == seconds);
    }
}

static void
test_what_cannot_be_written(void)
{
    char text[HTTP_DATE_SIZE];
    http_date_write(text, INT64_MAX);
    CHECK(memcmp(text, "Fri, 31 Dec 9999 23:59:59 GMT", sizeof text) == 0);
    http_date_write(text, INT64_MIN);
    CHECK(memcmp(text, "Sat, 01 Jan 0000 00:00:00 GMT", sizeof text) == 0);
}

int
main(void)
{
    test_rows();
    test_every_day();
    test_what_cannot_be_written();
    printf("%zu dates\n", sizeof rows / sizeof rows[0]);
    return 0;
}
