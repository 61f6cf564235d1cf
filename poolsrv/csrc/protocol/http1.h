/* HTTP/1.1 heads and chunks, as RFC 9112 reads, strict.
 *
 * Pure C: knows no Python, no sockets and no clock. The caller owns every
 * buffer; results are spans (offset and length) in it, so that a buffer may
 * move between two calls. Both parsers go on where they stopped: the answer
 * is the same wherever the input is split, and no byte is scanned twice.
 * HTTP.md lists what is refused and why.
 */
#ifndef POOLSRV_HTTP1_H
#define POOLSRV_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What parsing came to. From HTTP1_BAD_METHOD on, the connection is lost:
 * answer with http1_status() and close. X(name, status, words for the log) */
#define HTTP1_RESULTS(X)                                                      \
    X(HTTP1_DONE, 0, "complete")                                              \
    X(HTTP1_PARTIAL, 0, "more bytes are needed")                              \
    X(HTTP1_DATA, 0, "a span of body data")                                   \
    X(HTTP1_BAD_METHOD, 400, "method is not a token")                         \
    X(HTTP1_BAD_TARGET, 400, "request target is malformed")                   \
    X(HTTP1_BAD_VERSION, 400, "http version is malformed")                    \
    X(HTTP1_BAD_LINE_END, 400, "line does not end with cr lf")                \
    X(HTTP1_BAD_FIELD_NAME, 400, "field name is not a token and a colon")     \
    X(HTTP1_BAD_FIELD_VALUE, 400, "field value holds a control byte")         \
    X(HTTP1_FOLDED_FIELD, 400, "field line starts with white space")          \
    X(HTTP1_REPEATED_FIELD, 400, "field that may stand once stands twice")    \
    X(HTTP1_BAD_HOST, 400, "host is malformed")                               \
    X(HTTP1_NO_HOST, 400, "host is missing")                                  \
    X(HTTP1_OTHER_HOST, 400, "host differs from the request target")          \
    X(HTTP1_BAD_LENGTH, 400, "content-length is not a number")                \
    X(HTTP1_BAD_CODING, 400, "transfer-encoding is not chunked")              \
    X(HTTP1_TWO_LENGTHS, 400, "content-length beside transfer-encoding")      \
    X(HTTP1_BAD_CHUNK_SIZE, 400, "chunk size is malformed")                   \
    X(HTTP1_BAD_CHUNK_EXTENSION, 400, "chunk extension is malformed or long") \
    X(HTTP1_BAD_CHUNK_END, 400, "chunk data does not end with cr lf")         \
    X(HTTP1_BAD_TRAILER, 400, "trailer names a framing or routing field")     \
    X(HTTP1_LONG_TRAILERS, 400, "trailers are too large")                     \
    X(HTTP1_LONG_LINE, 414, "request line is too long")                       \
    X(HTTP1_BAD_EXPECT, 417, "expectation is not 100-continue")               \
    X(HTTP1_LONG_FIELD, 431, "field line is too long")                        \
    X(HTTP1_MANY_FIELDS, 431, "too many fields")                              \
    X(HTTP1_LONG_HEAD, 431, "head is too large")                              \
    X(HTTP1_CONNECT, 501, "connect asks for a tunnel")                        \
    X(HTTP1_OTHER_VERSION, 505, "http version is not 1.0 or 1.1")

typedef enum {
#define X(name, status, words) name,
    HTTP1_RESULTS(X)
#undef X
} Http1Result;

typedef struct {
    uint32_t at;
    uint32_t len;
} Http1Span;

/* Field names that the server or the application meets in every request:
 * recognised while parsing, so that the environ key costs no allocation.
 * X(id, lower-case name) */
#define HTTP1_KNOWN_FIELDS(X)                                                 \
    X(HTTP1_HOST, "host")                                                     \
    X(HTTP1_USER_AGENT, "user-agent")                                         \
    X(HTTP1_ACCEPT, "accept")                                                 \
    X(HTTP1_ACCEPT_ENCODING, "accept-encoding")                               \
    X(HTTP1_ACCEPT_LANGUAGE, "accept-language")                               \
    X(HTTP1_COOKIE, "cookie")                                                 \
    X(HTTP1_CONTENT_TYPE, "content-type")                                     \
    X(HTTP1_CONTENT_LENGTH, "content-length")                                 \
    X(HTTP1_CONTENT_ENCODING, "content-encoding")                             \
    X(HTTP1_TRANSFER_ENCODING, "transfer-encoding")                           \
    X(HTTP1_CONNECTION, "connection")                                         \
    X(HTTP1_KEEP_ALIVE, "keep-alive")                                         \
    X(HTTP1_TE, "te")                                                         \
    X(HTTP1_TRAILER, "trailer")                                               \
    X(HTTP1_UPGRADE, "upgrade")                                               \
    X(HTTP1_EXPECT, "expect")                                                 \
    X(HTTP1_REFERER, "referer")                                               \
    X(HTTP1_ORIGIN, "origin")                                                 \
    X(HTTP1_AUTHORIZATION, "authorization")                                   \
    X(HTTP1_CACHE_CONTROL, "cache-control")                                   \
    X(HTTP1_PRAGMA, "pragma")                                                 \
    X(HTTP1_DATE, "date")                                                     \
    X(HTTP1_VIA, "via")                                                       \
    X(HTTP1_RANGE, "range")                                                   \
    X(HTTP1_IF_MATCH, "if-match")                                             \
    X(HTTP1_IF_NONE_MATCH, "if-none-match")                                   \
    X(HTTP1_IF_MODIFIED_SINCE, "if-modified-since")                           \
    X(HTTP1_IF_UNMODIFIED_SINCE, "if-unmodified-since")                       \
    X(HTTP1_IF_RANGE, "if-range")                                             \
    X(HTTP1_UPGRADE_INSECURE_REQUESTS, "upgrade-insecure-requests")           \
    X(HTTP1_PRIORITY, "priority")                                             \
    X(HTTP1_DNT, "dnt")                                                       \
    X(HTTP1_SEC_GPC, "sec-gpc")                                               \
    X(HTTP1_SEC_FETCH_SITE, "sec-fetch-site")                                 \
    X(HTTP1_SEC_FETCH_MODE, "sec-fetch-mode")                                 \
    X(HTTP1_SEC_FETCH_USER, "sec-fetch-user")                                 \
    X(HTTP1_SEC_FETCH_DEST, "sec-fetch-dest")                                 \
    X(HTTP1_SEC_CH_UA, "sec-ch-ua")                                           \
    X(HTTP1_SEC_CH_UA_MOBILE, "sec-ch-ua-mobile")                             \
    X(HTTP1_SEC_CH_UA_PLATFORM, "sec-ch-ua-platform")                         \
    X(HTTP1_ACCESS_CONTROL_REQUEST_METHOD, "access-control-request-method")   \
    X(HTTP1_ACCESS_CONTROL_REQUEST_HEADERS, "access-control-request-headers") \
    X(HTTP1_FORWARDED, "forwarded")                                           \
    X(HTTP1_X_FORWARDED_FOR, "x-forwarded-for")                               \
    X(HTTP1_X_FORWARDED_PROTO, "x-forwarded-proto")                           \
    X(HTTP1_X_FORWARDED_HOST, "x-forwarded-host")                             \
    X(HTTP1_X_FORWARDED_PORT, "x-forwarded-port")                             \
    X(HTTP1_X_FORWARDED_PREFIX, "x-forwarded-prefix")                         \
    X(HTTP1_X_REQUEST_ID, "x-request-id")                                     \
    X(HTTP1_X_REQUESTED_WITH, "x-requested-with")                             \
    X(HTTP1_X_CSRFTOKEN, "x-csrftoken")                                       \
    X(HTTP1_TRACEPARENT, "traceparent")                                       \
    X(HTTP1_TRACESTATE, "tracestate")

/* Other names under which proxies pass on who a client is and what it asked
 * for; and `Proxy`, which CGI would make HTTP_PROXY, by which programs choose
 * the proxy of their own requests. Nobody is believed under them, so all have
 * one id and none reaches the application. X(lower-case name) */
#define HTTP1_SYNONYMS(X)         \
    X("x-real-ip")                \
    X("x-client-ip")              \
    X("x-cluster-client-ip")      \
    X("x-envoy-external-address") \
    X("x-azure-clientip")         \
    X("x-remote-ip")              \
    X("x-remote-addr")            \
    X("client-ip")                \
    X("true-client-ip")           \
    X("cf-connecting-ip")         \
    X("cf-connecting-ipv6")       \
    X("fastly-client-ip")         \
    X("fly-client-ip")            \
    X("forwarded-for")            \
    X("x-forwarded")              \
    X("x-original-forwarded-for") \
    X("x-forwarded-protocol")     \
    X("x-forwarded-scheme")       \
    X("x-forwarded-ssl")          \
    X("x-forwarded-https")        \
    X("x-url-scheme")             \
    X("x-scheme")                 \
    X("x-https")                  \
    X("front-end-https")          \
    X("x-forwarded-server")       \
    X("x-host")                   \
    X("x-original-host")          \
    X("x-forwarded-script-name")  \
    X("x-script-name")            \
    X("proxy")

typedef enum {
    HTTP1_OTHER,
#define X(id, name) id,
    HTTP1_KNOWN_FIELDS(X)
#undef X
        HTTP1_SYNONYM,
    HTTP1_KNOWN_COUNT
} Http1FieldId;

/* A set of ids is a word. */
#define HTTP1_BIT(id) (UINT64_C(1) << (id))
_Static_assert(HTTP1_KNOWN_COUNT <= 64, "a word has a bit for each");

typedef struct {
    Http1Span name;  /* as sent */
    Http1Span value; /* without the white space around it */
    Http1FieldId id;
} Http1Field;

typedef struct {
    uint32_t line;       /* request line without CRLF, bytes */
    uint32_t field_size; /* one field line without CRLF, bytes */
    uint32_t fields;     /* number of fields; Http1Head.fields has this room */
    uint32_t head;       /* all of it, bytes */
} Http1Limits;

/* One request head: the parser's state and, once HTTP1_DONE, its result. */
typedef struct {
    /* Result. */
    Http1Span method;
    Http1Span target; /* as sent */
    Http1Span path;   /* still percent-encoded; empty for `OPTIONS *` */
    Http1Span query;  /* without the '?' */
    Http1Span host;   /* of an absolute-form target, else of the Host field */
    uint32_t length; /* of the head with its blank line: the body starts here */
    uint32_t count;  /* fields kept */
    uint32_t dropped;       /* fields dropped: a name with an underscore */
    uint64_t seen;          /* ids of the fields kept, HTTP1_BIT each */
    int64_t content_length; /* -1: no such field */
    uint8_t minor;          /* HTTP/1.minor, 0 or 1 */
    bool is_head;           /* the method is HEAD */
    bool chunked;
    bool keep_alive; /* version and Connection together */
    bool expect_continue;
    Http1Field *fields; /* the caller's, room for limits.fields */

    /* State, the parser's own. */
    uint32_t at;    /* the next byte to read */
    uint32_t line;  /* where the line that `at` is in starts */
    uint8_t state;  /* http1.c's LineState, then FieldState */
    bool in_fields; /* the request line is over */
    bool drop;      /* the current field: its name has an underscore */
    bool close;     /* Connection: close was seen */
} Http1Head;

/* Make ready for the next head; `fields` is the caller's array. */
void http1_head_init(Http1Head *head, Http1Field *fields);

/* Parse what `buffer` holds of a head. Call again with the same bytes and
 * more behind them while it says HTTP1_PARTIAL (the address may change).
 * HTTP1_DONE, HTTP1_PARTIAL or an error. */
Http1Result http1_head_parse(Http1Head *head, const Http1Limits *limits,
                             const char *buffer, size_t size);

/* The field of that id if it stands once, else NULL. */
static inline const Http1Field *
http1_only(const Http1Head *head, Http1FieldId id)
{
    const Http1Field *found = NULL;
    if ((head->seen & HTTP1_BIT(id)) == 0) {
        return NULL;
    }
    for (uint32_t i = 0; i < head->count; i++) {
        if (head->fields[i].id != id) {
            continue;
        }
        if (found) {
            return NULL;
        }
        found = &head->fields[i];
    }
    return found;
}

/* Is there an Upgrade field? */
static inline bool
http1_upgrade_seen(const Http1Head *head)
{
    return (head->seen & HTTP1_BIT(HTTP1_UPGRADE)) != 0;
}

/* Would the client speak another protocol on this connection (RFC 9110 section
 * 7.8)? What stands behind the head may be of that one then, so a body must not
 * be. */
bool http1_upgrade_asked(const Http1Head *head, const char *base);
/* Is this one of those it would speak? `protocol` is lower case. */
bool http1_upgrade_names(const Http1Head *head, const char *base,
                         const char *protocol);

/* How much of a trailer's name is kept: more than the longest that is
 * refused, x-original-forwarded-for. */
#define HTTP1_TRAILER_NAME 32

/* A chunked body. */
typedef struct {
    uint64_t left; /* bytes of the current chunk still to come */

    /* State, the parser's own. */
    uint32_t extent;  /* bytes so far of the size, extension or trailers */
    uint8_t state;    /* of http1.c's ChunkState */
    uint8_t name_len; /* of the current trailer */
    char name[HTTP1_TRAILER_NAME];
} Http1Chunks;

void http1_chunks_init(Http1Chunks *chunks);

/* Decode a little: HTTP1_DATA (`data` is a span of `input`, else it is empty;
 * call again with the rest), HTTP1_PARTIAL (all used; more input is needed),
 * HTTP1_DONE (the last chunk and its trailers are over) or an error. `*used` is
 * how many bytes of `input` are done with. Never HTTP1_DATA with an empty span.
 */
Http1Result http1_chunks_next(Http1Chunks *chunks, const char *input,
                              size_t size, size_t *used, Http1Span *data);

/* Percent-decode into `out` (room for `size` bytes); the length, or -1 if an
 * escape is malformed. */
ptrdiff_t http1_unescape(char *out, const char *in, size_t size);

/* 400, 414, 417, 431, 501 or 505; 0 for what is no error. */
int http1_status(Http1Result result);

/* A few lower-case words for the log and the answer's body. */
const char *http1_words(Http1Result result);

#endif
