/* Phrases of statuses: see status.h. */
#include "common/status.h"

const char *
status_phrase(int status)
{
    switch (status) {
#define X(number, phrase) \
    case number:          \
        return phrase;
        STATUS_PHRASES(X)
        STATUS_PHRASES_OF_FILES(X)
#undef X
    default:
        return "Unknown";
    }
}
