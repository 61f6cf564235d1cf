/* Which file does a path name? Decided by its text, before the kernel is asked,
 * which must not get to see what could lead it out of a folder. */
#ifndef POOLSRV_FILE_NAMES_H
#define POOLSRV_FILE_NAMES_H

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    FILE_NAME_BAD,    /* no file can be meant */
    FILE_NAME_HIDDEN, /* a part begins with a dot: not to be shown */
    FILE_NAME_FILE,
    FILE_NAME_FOLDER, /* empty, or its last character is a slash */
} FileNameKind;

/* Of what a path says behind its mount, decoded, without the slash between. */
FileNameKind file_names_judge(const char *path, size_t size);

/* Does a path that is still encoded have a slash in it that is data? No name of
 * a file has one. */
bool file_names_hide_slash(const char *encoded, size_t size);

/* Is there a hash of the content in the name, as in `app.3f2a91bc.css` or
 * Django's `LICENSE.2c54f4e1ca1c`: eight or more hexadecimal digits, behind a
 * dot or a hyphen and before a dot or the end? Such a file never changes. Both
 * letters and digits must be among them: else it may be a word or a date. */
bool file_names_is_hashed(const char *path, size_t size);

#endif
