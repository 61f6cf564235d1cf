/* The statuses that the server itself answers with, and their phrases. */
#ifndef POOLSRV_STATUS_H
#define POOLSRV_STATUS_H

/* RFC 9110 section 15, and 431 of RFC 6585. X(status, phrase) */
#define STATUS_PHRASES(X)                     \
    X(400, "Bad Request")                     \
    X(403, "Forbidden")                       \
    X(404, "Not Found")                       \
    X(408, "Request Timeout")                 \
    X(413, "Content Too Large")               \
    X(414, "URI Too Long")                    \
    X(417, "Expectation Failed")              \
    X(421, "Misdirected Request")             \
    X(431, "Request Header Fields Too Large") \
    X(500, "Internal Server Error")           \
    X(501, "Not Implemented")                 \
    X(502, "Bad Gateway")                     \
    X(503, "Service Unavailable")             \
    X(504, "Gateway Timeout")                 \
    X(505, "HTTP Version Not Supported")

/* Of answers to requests for files, which are no refusals. */
#define STATUS_PHRASES_OF_FILES(X) \
    X(405, "Method Not Allowed")   \
    X(412, "Precondition Failed")  \
    X(416, "Range Not Satisfiable")

/* "Unknown" for a status that is not listed. */
const char *status_phrase(int status);

#endif
