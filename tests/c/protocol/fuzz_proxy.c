/* Any bytes as a PROXY header: no split gives another answer. */
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "protocol/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ProxyResult
parse(const uint8_t *data, size_t size, size_t *length, ProxyHeader *header)
{
    char *block = malloc(size > 0 ? size : 1);
    CHECK(block != NULL);
    if (size > 0) {
        memcpy(block, data, size);
    }
    const ProxyResult result = proxy_header_parse(block, size, length, header);
    free(block);
    return result;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ProxyHeader header = {0}, other = {0};
    size_t length, part;
    const ProxyResult result = parse(data, size, &length, &header);

    if (result == PROXY_DONE) {
        CHECK(length > 0 && length <= size && length <= PROXY_LONGEST);
        CHECK(parse(data, length, &part, &other) == PROXY_DONE);
        CHECK(part == length && memcmp(&header, &other, sizeof(header)) == 0);
        CHECK(parse(data, length - 1, &part, &other) == PROXY_PARTIAL);
    }
    if (result == PROXY_PARTIAL) {
        CHECK(size < PROXY_LONGEST);
    }
    if (size > 0) {
        const size_t less = data[size - 1] % size;
        const ProxyResult before = parse(data, less, &part, &other);
        CHECK(before == PROXY_PARTIAL || before == result);
        CHECK(before != PROXY_DONE || part == length);
        CHECK(result != PROXY_PARTIAL || before == PROXY_PARTIAL);
    }
    return 0;
}
