/* Any bytes as the head of a request for a file: whatever is found holds what
 * its header promises. */
#include <stdint.h>

#include "protocol/conditions.h"
#include "protocol/encodings.h"
#include "protocol/file_names.h"
#include "protocol/heads.h"
#include "protocol/http_date.h"
#include "protocol/media_types.h"
#include "protocol/ranges.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW INT64_C(1795651200)

static void
check_ranges(const Http1Head *head, const char *base, uint64_t length)
{
    Ranges r;
    if (ranges_read(head, base, length, &r) != RANGES_FOUND) {
        return;
    }
    CHECK(r.count >= 1 && r.count <= RANGES_MOST);
    for (uint32_t i = 0; i < r.count; i++) {
        const Range *a = &r.parts[i];
        CHECK(a->size > 0 && a->at < length && a->size <= length - a->at);
        for (uint32_t j = 0; j < i; j++) {
            const Range *b = &r.parts[j];
            CHECK(a->at + a->size < b->at || b->at + b->size < a->at);
        }
    }
}

static void
check_head(const Http1Head *head, const char *base)
{
    const Validator strong = {"\"a\"", 3, 784111777, false};
    Encoding order[ENCODING_COUNT];
    check_ranges(head, base, 0);
    check_ranges(head, base, 10);
    check_ranges(head, base, 1000000);
    check_ranges(head, base, INT64_MAX);
    CHECK(encodings_read(head, base, order) <= ENCODING_COUNT);
    conditions_judge(head, base, &strong, NOW);
    conditions_allow_range(head, base, &strong, NOW);
}

/* No path that is good leads upward, and no part of it is empty. */
static void
check_name(const char *path, size_t size)
{
    const FileNameKind kind = file_names_judge(path, size);
    file_names_is_hashed(path, size);
    file_names_hide_slash(path, size);
    CHECK(*media_types_find(path, size, NULL, 0));
    if (kind == FILE_NAME_BAD) {
        return;
    }
    CHECK(memchr(path, '\0', size) == NULL && (size == 0 || *path != '/'));
    for (size_t i = 0; i < size; i++) {
        const bool starts = i == 0 || path[i - 1] == '/';
        const size_t left = size - i;
        CHECK(!(starts && path[i] == '/'));
        CHECK(!(starts && path[i] == '.' && (left == 1 || path[i + 1] == '/')));
        CHECK(!(starts && left > 1 && path[i] == '.' && path[i + 1] == '.' &&
                (left == 2 || path[i + 2] == '/')));
    }
}

static void
check_date(const char *text, size_t size)
{
    int64_t seconds, again;
    char written[HTTP_DATE_SIZE];
    if (http_date_read(text, size, NOW, &seconds)) {
        http_date_write(written, seconds);
        /* A leap second at the end of time is the only one that is lost. */
        CHECK(http_date_read(written, HTTP_DATE_SIZE, NOW, &again));
        CHECK(again == seconds || seconds == INT64_C(253402300800));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const Http1Limits limits = {
        .line = 1000, .field_size = 1000, .fields = 16, .head = 8000};
    static const char line[] = "GET / HTTP/1.1\r\nHost: a\r\n";
    const size_t start = sizeof line - 1;
    char *bytes = malloc(start + size);
    Http1Field fields[16];
    Http1Head head;
    CHECK(bytes);
    memcpy(bytes, line, start);
    if (size > 0) {
        memcpy(bytes + start, data, size);
    }
    http1_head_init(&head, fields);
    if (http1_head_parse(&head, &limits, bytes, start + size) == HTTP1_DONE) {
        check_head(&head, bytes);
        for (uint32_t i = 0; i < head.count; i++) {
            check_date(bytes + fields[i].value.at, fields[i].value.len);
        }
    }
    check_name(bytes + start, size);
    check_date(bytes + start, size);
    free(bytes);
    return 0;
}
