/* Any bytes as mounts of groups and a head: whatever part of a head has come,
 * what is said of it holds for the whole. */
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "protocol/http1.h"
#include "protocol/peek.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST 8
#define FIELDS 32

/* Up to an empty line, each line is a mount ("host/path") of the next group. */
static uint32_t
read_mounts(const char **at, size_t *left, Mount *mounts)
{
    uint32_t count = 0;
    while (*left) {
        const char *line = *at, *end = memchr(line, '\n', *left);
        const size_t size = end ? (size_t)(end - line) : *left;
        *at += end ? size + 1 : size;
        *left -= end ? size + 1 : size;
        if (size == 0) {
            break;
        }
        const char *slash = memchr(line, '/', size);
        const uint32_t host = (uint32_t)(slash ? (size_t)(slash - line) : size);
        if (count < MOST) {
            mounts[count] = (Mount){
                .host = {line, host},
                .path = {line + host, (uint32_t)size - host},
                .group = (uint16_t)count,
            };
            count++;
        }
    }
    return count;
}

/* The verdict on the first bytes, in a block of their own. */
static PeekResult
peek(const Mounts *m, const char *bytes, size_t size, uint16_t *group)
{
    char *copy = malloc(size + !size);
    CHECK(copy != NULL);
    if (size) {
        memcpy(copy, bytes, size);
    }
    const PeekResult result = peek_group(m, copy, size, group);
    free(copy);
    return result;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const Http1Limits limits = {
        .line = 4000, .field_size = 4000, .fields = FIELDS, .head = 8000};
    const char *bytes = (const char *)data;
    Mount mounts[MOST];
    Http1Field fields[FIELDS];
    Http1Head head;
    uint16_t group = MOST, known = MOST;
    if (size > 2000) {
        return 0;
    }
    const uint32_t count = read_mounts(&bytes, &size, mounts);
    Mounts *m = mounts_new(mounts, count);
    CHECK(m != NULL);
    http1_head_init(&head, fields);
    const bool whole =
        http1_head_parse(&head, &limits, bytes, size) == HTTP1_DONE;
    MountsFound found = {.result = MOUNTS_NO_PATH};
    if (whole) {
        found = mounts_find(m, bytes + head.host.at, head.host.len,
                            bytes + head.path.at, head.path.len);
        size = head.length;
    }
    for (size_t n = 0; n <= size; n++) {
        const PeekResult result = peek(m, bytes, n, &group);
        if (!whole) {
            continue;
        }
        CHECK(n < size || result != PEEK_PARTIAL);
        switch (result) {
        case PEEK_PARTIAL:
            CHECK(known == MOST);
            break;
        case PEEK_KNOWN:
            CHECK(found.result == MOUNTS_FOUND && found.mount->group == group);
            known = group;
            break;
        case PEEK_NOBODYS:
            CHECK(found.result != MOUNTS_FOUND);
            break;
        }
    }
    mounts_free(m);
    return 0;
}
