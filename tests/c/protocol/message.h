/* One request, fed to the parsers in pieces, and what came of it in words. */
#ifndef POOLSRV_TESTS_MESSAGE_H
#define POOLSRV_TESTS_MESSAGE_H

#include "protocol/http1.h"
#include "text.h"

/* The limits of poolsrv's defaults. */
extern const Http1Limits message_limits;

/* Feed head and body: first so many bytes, then `step` at a time. Each piece
 * lies in a block of its own size, so that a sanitizer sees a byte too many.
 * Lines of "key value" are added to `words`: of the head and the body once
 * they are known, with text_escape(); last of all `result NAME`. Aborts if a
 * span leads out of the head. HTTP1_DONE, HTTP1_PARTIAL or an error. */
Http1Result message_feed(const Http1Limits *limits, const char *bytes,
                         size_t size, size_t first, size_t step, Text *words);

/* The same for a chunked body without its head. */
Http1Result message_feed_chunks(const char *bytes, size_t size, size_t first,
                                size_t step, Text *words);

const char *message_result_name(Http1Result result);

#endif
