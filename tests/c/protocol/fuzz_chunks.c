/* Any bytes as a chunked body: every split gives the same answer. */
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "protocol/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data;
    const size_t firsts[] = {1, size > 0 ? data[size - 1] % size : 0};
    const size_t steps[] = {1, size};
    Text whole = {0};

    message_feed_chunks(bytes, size, size, 1, &whole);
    for (int i = 0; i < 2 && size > 0; i++) {
        Text words = {0};
        message_feed_chunks(bytes, size, firsts[i], steps[i], &words);
        CHECK(strcmp(words.bytes, whole.bytes) == 0);
        free(words.bytes);
    }
    free(whole.bytes);
    return 0;
}
