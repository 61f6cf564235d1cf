/* Any bytes as a request: every split gives the same answer. */
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "protocol/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
same_in_pieces(const Http1Limits *limits, const char *bytes, size_t size,
               size_t first, size_t step, const Text *whole)
{
    Text words = {0};
    message_feed(limits, bytes, size, first, step, &words);
    CHECK(strcmp(words.bytes, whole->bytes) == 0);
    free(words.bytes);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Small limits, so that short inputs reach them, beside the usual. */
    const Http1Limits small = {
        .line = 40, .field_size = 30, .fields = 4, .head = 120};
    const Http1Limits *const all[] = {&message_limits, &small};
    const char *bytes = (const char *)data;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        Text whole = {0};
        message_feed(all[i], bytes, size, size, 1, &whole);
        same_in_pieces(all[i], bytes, size, 1, 1, &whole);
        /* One more split: a place that depends on the input only. */
        if (size > 0) {
            const size_t first = data[size - 1] % size;
            same_in_pieces(all[i], bytes, size, first, size, &whole);
        }
        free(whole.bytes);
    }
    return 0;
}
