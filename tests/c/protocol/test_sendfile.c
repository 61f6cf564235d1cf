/* X-Sendfile: what the answer's other fields say, and whose file it is. */
#include "protocol/sendfile.h"

#include <string.h>

#include "check.h"

typedef struct {
    const char *lines;
    bool has_type, has_judged;
    int64_t first, last;
} Row;

static const Row rows[] = {
    {"", false, false, -1, -1},
    {"Content-Type: text/css\r\n", true, false, -1, -1},
    {"content-type:text/css\r\n", true, false, -1, -1},
    {"X-Content-Type: text/css\r\n", false, false, -1, -1},
    {"X-A: Content-Type: x\r\nX-B: \r\n", false, false, -1, -1},
    {"ETag: \"a\"\r\n", false, true, -1, -1},
    {"Last-Modified: now\r\n", false, true, -1, -1},
    {"Accept-Ranges: none\r\n", false, true, -1, -1},
    {"Content-Range: bytes 0-99/4096\r\n", false, true, 0, 99},
    {"Content-Range: Bytes 5-5/*\r\nContent-Type: a\r\n", true, true, 5, 5},
    {"Content-Range: bytes */4096\r\n", false, true, -1, -1},
    {"Content-Range: bytes 9-8/4096\r\n", false, true, -1, -1},
    {"Content-Range: bytes 0-99\r\n", false, true, -1, -1},
    {"Content-Range: bytes /-\r\n", false, true, -1, -1},
    {"Content-Range: bytes -5/9\r\n", false, true, -1, -1},
    {"Content-Range: lines 0-99/4096\r\n", false, true, -1, -1},
    {"Content-Range: bytes 0-99999999999999999999/9\r\n", false, true, -1, -1},
    {"Content-Range:\r\n", false, true, -1, -1},
};

static bool
is_below(const char *path, const char *folder, const char *rest)
{
    const char *found = sendfile_below(path, folder);
    return found && rest ? strcmp(found, rest) == 0 : found == rest;
}

int
main(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const SendfileFacts f =
            sendfile_read(rows[i].lines, strlen(rows[i].lines));
        if (f.has_type != rows[i].has_type ||
            f.has_judged != rows[i].has_judged || f.first != rows[i].first ||
            f.last != rows[i].last) {
            printf("%s", rows[i].lines);
            abort();
        }
    }
    CHECK(is_below("/srv/a/b", "/srv", "a/b"));
    CHECK(is_below("/srv/", "/srv", ""));
    CHECK(is_below("/srv", "/srv", NULL));
    CHECK(is_below("/srvx/a", "/srv", NULL));
    CHECK(is_below("srv/a", "/srv", NULL));
    CHECK(is_below("/a", "", "a")); /* the root is a folder like any other */
    printf("%zu answers\n", sizeof rows / sizeof rows[0]);
    return 0;
}
