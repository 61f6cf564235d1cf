/* Ranges: which parts of a file each field asks for. The first rows are those
 * that Go's net/http publishes for its parser; where we decide otherwise, the
 * row says why. */
#include "protocol/heads.h"
#include "protocol/ranges.h"

typedef struct {
    const char *value;
    uint64_t length;
    const char *parts; /* "at+size ...", "ignored" or "unsatisfiable" */
} Row;

static const Row rows[] = {
    {"foo", 0, "ignored"},
    {"bytes=", 0, "ignored"},
    {"bytes=7", 10, "ignored"},
    {"bytes= 7 ", 10, "ignored"},
    {"bytes=1-", 0, "ignored"},
    {"bytes=5-4", 10, "ignored"},
    {"bytes=0-2,5-4", 10, "ignored"},
    {"bytes=2-5,4-3", 10, "ignored"},
    {"bytes=--5,4--3", 10, "ignored"},
    {"bytes=A-", 10, "ignored"},
    {"bytes=A- ", 10, "ignored"},
    {"bytes=A-Z", 10, "ignored"},
    {"bytes= -Z", 10, "ignored"},
    {"bytes=5-Z", 10, "ignored"},
    {"bytes=Ran-dom, garbage", 10, "ignored"},
    {"bytes=0x01-0x02", 10, "ignored"},
    {"bytes=         ", 10, "ignored"},
    {"bytes= , , ,   ", 10, "ignored"},
    {"bytes=0-9", 10, "0+10"},
    {"bytes=0-", 10, "0+10"},
    {"bytes=5-", 10, "5+5"},
    {"bytes=0-20", 10, "0+10"},
    {"bytes=15-,0-5", 10, "0+6"},
    /* Joined: they lie nearer than the head of a part is long. */
    {"bytes=1-2,5-", 10, "1+9"},
    {"bytes=-2 , 7-", 11, "7+4"},
    {"bytes=0-0 ,2-2, 7-", 11, "0+11"},
    {"bytes=-5", 10, "5+5"},
    {"bytes=-15", 10, "0+10"},
    {"bytes=0-499", 10000, "0+500"},
    {"bytes=500-999", 10000, "500+500"},
    {"bytes=-500", 10000, "9500+500"},
    {"bytes=9500-", 10000, "9500+500"},
    {"bytes=0-0,-1", 10000, "0+1 9999+1"},
    {"bytes=500-600,601-999", 10000, "500+500"},
    {"bytes=500-700,601-999", 10000, "500+500"},
    {"bytes=   1 -2   ,  4- 5, 7 - 8 , ,,", 11, "1+8"},
    /* More. */
    {"BYTES=0-1", 10, "0+2"},
    {"bytes =0-1", 10, "ignored"},
    {"lines=0-1", 10, "ignored"},
    {"bytes", 10, "ignored"},
    {"bytes=10-", 10, "unsatisfiable"},
    {"bytes=10-20,30-", 10, "unsatisfiable"},
    {"bytes=-0", 10, "unsatisfiable"},
    {"bytes=-0,-1", 10, "9+1"},
    {"bytes=-", 10, "ignored"},
    {"bytes=0-0", 1, "0+1"},
    {"bytes=0-1 2", 10, "ignored"},
    {"bytes=0-1;x", 10, "ignored"},
    {"bytes=+0-1", 10, "ignored"},
    /* Numbers that no machine word holds are beyond the end. */
    {"bytes=0-99999999999999999999999999", 10, "0+10"},
    {"bytes=99999999999999999999999999-", 10, "unsatisfiable"},
    {"bytes=-99999999999999999999999999", 10, "0+10"},
    {"bytes=18446744073709551616-18446744073709551617", 10, "unsatisfiable"},
    /* In the order they were asked for; what was joined where it was first. */
    {"bytes=900-909,0-9", 1000, "900+10 0+10"},
    {"bytes=900-909,0-9,800-809", 1000, "900+10 0+10 800+10"},
    {"bytes=900-909,0-9,830-849", 1000, "830+80 0+10"},
    {"bytes=0-9,900-909,500-509,0-950", 1000, "0+951"},
    {"bytes=0-9,90-99", 1000, "0+100"},
    {"bytes=0-9,91-99", 1000, "0+10 91+9"},
    /* Eight parts at most; any number that become so few. */
    {"bytes=0-0,100-100,200-200,300-300,400-400,500-500,600-600,700-700", 1000,
     "0+1 100+1 200+1 300+1 400+1 500+1 600+1 700+1"},
    {"bytes=0-0,100-100,200-200,300-300,400-400,500-500,600-600,700-700,"
     "800-800",
     1000, "ignored"},
    {"bytes=0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-,0-", 1000,
     "0+1000"},
};

static void
test_row(const Row *row)
{
    char line[300], got[300] = "";
    snprintf(line, sizeof line, "Range: %s\r\n", row->value);
    Asked a = ask(line);
    Ranges r;
    switch (ranges_read(&a.head, a.bytes, row->length, &r)) {
    case RANGES_IGNORED:
        strcpy(got, "ignored");
        break;
    case RANGES_UNSATISFIABLE:
        strcpy(got, "unsatisfiable");
        break;
    case RANGES_FOUND:
        for (uint32_t i = 0; i < r.count; i++) {
            snprintf(got + strlen(got), sizeof got - strlen(got), "%s%llu+%llu",
                     i ? " " : "", (unsigned long long)r.parts[i].at,
                     (unsigned long long)r.parts[i].size);
        }
    }
    if (strcmp(got, row->parts) != 0) {
        printf("%s of %llu: %s, not %s\n", row->value,
               (unsigned long long)row->length, got, row->parts);
        abort();
    }
    asked_free(&a);
}

static void
test_fields(void)
{
    Ranges r;
    Asked a = ask("");
    CHECK(ranges_read(&a.head, a.bytes, 10, &r) == RANGES_IGNORED);
    asked_free(&a);
    a = ask("Range: bytes=0-1\r\nRange: bytes=2-3\r\n");
    CHECK(ranges_read(&a.head, a.bytes, 10, &r) == RANGES_IGNORED);
    asked_free(&a);
}

static void
test_multipart(void)
{
    const Ranges r = {.parts = {{0, 1}, {9999, 1}}, .count = 2};
    static const char expected[] =
        "--x\r\nContent-Type: text/css\r\nContent-Range: bytes "
        "0-0/10000\r\n\r\n"
        "\r\n--x\r\nContent-Type: text/css\r\nContent-Range: bytes "
        "9999-9999/10000\r\n\r\n"
        "\r\n--x--\r\n";
    Buffer out = {0};
    CHECK(ranges_add_head(&out, &r, 0, 10000, "x", "text/css") == 0);
    CHECK(ranges_add_head(&out, &r, 1, 10000, "x", "text/css") == 0);
    CHECK(ranges_add_end(&out, "x") == 0);
    CHECK(out.size == sizeof expected - 1 &&
          memcmp(out.data, expected, out.size) == 0);
    buffer_clear(&out);
}

int
main(void)
{
    const size_t count = sizeof rows / sizeof rows[0];
    for (size_t i = 0; i < count; i++) {
        test_row(&rows[i]);
    }
    test_fields();
    test_multipart();
    printf("%zu ranges\n", count);
    return 0;
}
