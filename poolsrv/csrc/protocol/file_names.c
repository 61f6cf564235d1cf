/* Names of files: see file_names.h. */
#define _GNU_SOURCE
#include "protocol/file_names.h"

#include <string.h>

#include "protocol/lex.h"

/* Linux: NAME_MAX and PATH_MAX. */
#define LONGEST_PART 255
#define LONGEST_PATH 4095

/* Hidden names that are meant to be seen: RFC 8615. */
#define WELL_KNOWN ".well-known"

#define HASH_DIGITS 8

FileNameKind
file_names_judge(const char *path, size_t size)
{
    FileNameKind kind = FILE_NAME_FOLDER;
    if (size > LONGEST_PATH || memchr(path, '\0', size)) {
        return FILE_NAME_BAD;
    }
    for (size_t i = 0; i < size;) {
        const char *part = path + i;
        const char *slash = memchr(part, '/', size - i);
        const size_t length = slash ? (size_t)(slash - part) : size - i;
        if (length == 0 || length > LONGEST_PART ||
            (part[0] == '.' &&
             (length == 1 || (length == 2 && part[1] == '.')))) {
            return FILE_NAME_BAD;
        }
        if (part[0] == '.' && !(i == 0 && length == sizeof WELL_KNOWN - 1 &&
                                memcmp(part, WELL_KNOWN, length) == 0)) {
            kind = FILE_NAME_HIDDEN; /* but what follows may be bad */
        } else if (kind != FILE_NAME_HIDDEN) {
            kind = slash ? FILE_NAME_FOLDER : FILE_NAME_FILE;
        }
        i += length + (slash != NULL);
    }
    return kind;
}

bool
file_names_hide_slash(const char *encoded, size_t size)
{
    const char *end = encoded + size;
    const char *at = encoded;
    while ((at = memchr(at, '%', (size_t)(end - at))) != NULL) {
        if (end - at >= 3 && at[1] == '2' && lower(at[2]) == 'f') {
            return true;
        }
        at++;
    }
    return false;
}

bool
file_names_is_hashed(const char *path, size_t size)
{
    const char *slash = memrchr(path, '/', size);
    const char *name = slash ? slash + 1 : path;
    const char *end = path + size;
    for (const char *at = name; at < end; at++) {
        if (*at != '.' && *at != '-') {
            continue;
        }
        const char *start = at + 1, *stop = start;
        bool digit = false, letter = false;
        while (stop < end && hex(*stop) >= 0) {
            const bool is_number = is_digit(*stop++);
            digit |= is_number;
            letter |= !is_number;
        }
        if (stop - start >= HASH_DIGITS && digit && letter &&
            (stop == end || *stop == '.')) {
            return true;
        }
    }
    return false;
}
