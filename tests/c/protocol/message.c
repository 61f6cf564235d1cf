#include "protocol/message.h"

#include <string.h>

#include "check.h"

const Http1Limits message_limits = {
    .line = 8190, .field_size = 8190, .fields = 100, .head = 65536};

const char *
message_result_name(Http1Result result)
{
    switch (result) {
#define X(name, status, words) \
    case name:                 \
        return #name;
        HTTP1_RESULTS(X)
#undef X
    }
    abort();
}

/* A copy in a block of exactly that size. */
static char *
copy(const char *bytes, size_t size)
{
    char *block = malloc(size > 0 ? size : 1);
    CHECK(block != NULL);
    if (size > 0) {
        memcpy(block, bytes, size);
    }
    return block;
}

static void
say_span(Text *words, const char *key, const char *bytes, Http1Span span)
{
    text_print(words, "%s ", key);
    text_escape(words, bytes + span.at, span.len);
    text_add(words, "\n", 1);
}

static bool
within(Http1Span inner, uint32_t at, uint32_t end)
{
    return inner.at >= at && inner.at <= end && inner.len <= end - inner.at;
}

static void
say_head(Text *words, const Http1Head *head, const Http1Limits *limits,
         const char *bytes)
{
    const uint32_t target_end = head->target.at + head->target.len;

    CHECK(head->length <= limits->head);
    CHECK(head->count + head->dropped <= limits->fields);
    CHECK(within(head->method, 0, head->target.at - 1));
    CHECK(within(head->target, head->method.len + 1, head->length));
    CHECK(within(head->path, head->target.at, target_end));
    CHECK(head->query.len == 0 ||
          within(head->query, head->target.at, target_end));
    CHECK(within(head->host, 0, head->length));

    say_span(words, "method", bytes, head->method);
    say_span(words, "target", bytes, head->target);
    say_span(words, "path", bytes, head->path);
    say_span(words, "query", bytes, head->query);
    say_span(words, "host", bytes, head->host);
    text_print(words, "minor %d\nhead-length %u\nis-head %d\n", head->minor,
               head->length, head->is_head);
    text_print(words, "content-length %lld\nchunked %d\n",
               (long long)head->content_length, head->chunked);
    text_print(words, "keep-alive %d\nexpect-continue %d\n", head->keep_alive,
               head->expect_continue);
    text_print(words, "fields %u\ndropped %u\n", head->count, head->dropped);

    uint32_t before = target_end;
    for (uint32_t i = 0; i < head->count; i++) {
        const Http1Field *field = &head->fields[i];
        CHECK(within(field->name, before, field->value.at));
        CHECK(within(field->value, before, head->length));
        CHECK(field->id < HTTP1_KNOWN_COUNT);
        before = field->value.at + field->value.len;
        text_print(words, "field ");
        text_escape(words, bytes + field->name.at, field->name.len);
        say_span(words, ":", bytes, field->value);
    }

    /* What the binding relies on: no escape in the path is malformed. */
    char *out = copy(bytes + head->path.at, head->path.len);
    CHECK(http1_unescape(out, bytes + head->path.at, head->path.len) >= 0);
    free(out);
}

/* Feed one piece; what it holds of data goes to `body`. */
static Http1Result
feed_piece(Http1Chunks *chunks, const char *bytes, size_t size, Text *body)
{
    Http1Result result;
    do {
        char *block = copy(bytes, size);
        Http1Span data = {0};
        size_t used = 0;
        result = http1_chunks_next(chunks, block, size, &used, &data);
        CHECK(used <= size);
        if (result == HTTP1_DATA) {
            CHECK(data.len > 0 && within(data, 0, (uint32_t)used));
            text_add(body, block + data.at, data.len);
        }
        CHECK(result != HTTP1_PARTIAL || used == size);
        free(block);
        bytes += used;
        size -= used;
    } while (result == HTTP1_DATA);
    return result;
}

static void
say_body(Text *words, const char *bytes, size_t size)
{
    text_print(words, "body ");
    text_escape(words, bytes, size);
    text_add(words, "\n", 1);
}

static Http1Result
feed_chunks(const char *bytes, size_t size, size_t first, size_t step,
            Text *words)
{
    Http1Chunks chunks;
    Text body = {0};
    http1_chunks_init(&chunks);

    Http1Result result;
    size_t at = 0;
    size_t end = first < size ? first : size;
    do {
        result = feed_piece(&chunks, bytes + at, end - at, &body);
        at = end;
        end = size - at < step ? size : at + step;
    } while (result == HTTP1_PARTIAL && at < size);
    say_body(words, body.bytes, body.size);
    free(body.bytes);
    return result;
}

static Http1Result
say_result(Text *words, Http1Result result)
{
    text_print(words, "result %s\n", message_result_name(result));
    return result;
}

Http1Result
message_feed_chunks(const char *bytes, size_t size, size_t first, size_t step,
                    Text *words)
{
    return say_result(words, feed_chunks(bytes, size, first, step, words));
}

Http1Result
message_feed(const Http1Limits *limits, const char *bytes, size_t size,
             size_t first, size_t step, Text *words)
{
    Http1Head head;
    Http1Field *fields = calloc(limits->fields, sizeof(*fields));
    CHECK(fields != NULL);
    http1_head_init(&head, fields);

    Http1Result result = HTTP1_PARTIAL;
    size_t end = first < size ? first : size;
    for (;;) {
        char *block = copy(bytes, end);
        result = http1_head_parse(&head, limits, block, end);
        if (result == HTTP1_DONE) {
            say_head(words, &head, limits, block);
        }
        free(block);
        if (result != HTTP1_PARTIAL || end == size) {
            break;
        }
        end = size - end < step ? size : end + step;
    }
    if (result == HTTP1_DONE) {
        const char *body = bytes + head.length;
        const size_t left = size - head.length;
        if (head.chunked) {
            result = feed_chunks(body, left, end - head.length, step, words);
        } else if (head.content_length > (int64_t)left) {
            result = HTTP1_PARTIAL;
        } else if (head.content_length > 0) {
            say_body(words, body, (size_t)head.content_length);
        }
    }
    free(fields);
    return say_result(words, result);
}
