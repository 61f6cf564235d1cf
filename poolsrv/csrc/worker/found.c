/* Which file answers a request: see found.h. Pure C. */
#define _GNU_SOURCE
#include "worker/found.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/encodings.h"
#include "protocol/file_names.h"

/* A path that is longer before its escapes are decoded names no file. */
#define LONGEST_ENCODED (3 * 4096)
#define LONGEST_INDEX 256
#define LONGEST_SUFFIX 8

/* A file that was written less than so long ago may be written again without a
 * change of its time: clocks of file systems have steps, up to 2 s on FAT. */
#define UNSETTLED 2
/* What builds that shall be reproducible put for a time is no time: 0, 1, or
 * the first that a ZIP archive knows, 1 January 1980. Then it counts when this
 * machine got the file. */
#define NO_TIME INT64_C(315619200)

/* The name of a file below the folder, and room for what may be added. */
typedef struct {
    char text[LONGEST_ENCODED + LONGEST_INDEX + LONGEST_SUFFIX];
    size_t size;
} Name;

static char *
add_hexadecimal(char *to, uint64_t number)
{
    int shift = 60;
    while (shift > 0 && (number >> shift) == 0) {
        shift -= 4;
    }
    for (; shift >= 0; shift -= 4) {
        *to++ = "0123456789abcdef"[number >> shift & 15];
    }
    return to;
}

static void
make_tag(Found *found, const struct timespec *time, const char *suffix)
{
    const size_t more = strlen(suffix);
    char *to = found->tag;
    *to++ = '"';
    to = add_hexadecimal(to, (uint64_t)time->tv_sec * 1000000000u +
                                 (uint64_t)time->tv_nsec);
    *to++ = '-';
    to = add_hexadecimal(to, found->size);
    memcpy(to, suffix, more);
    to += more;
    *to++ = '"';
    found->validator.tag = found->tag;
    found->validator.tag_size = (size_t)(to - found->tag);
}

bool
found_stat(Found *found, int fd, const char *suffix, int64_t now)
{
    struct stat info;
    if (fstat(fd, &info) < 0 || !S_ISREG(info.st_mode)) {
        return false;
    }
    const struct timespec *time =
        info.st_mtim.tv_sec < NO_TIME ? &info.st_ctim : &info.st_mtim;
    found->fd = fd;
    found->size = (uint64_t)info.st_size;
    make_tag(found, time, suffix);
    /* Never later than the answer's Date (RFC 9110 section 8.8.2.1), which is
     * made once a second. */
    found->validator.modified = time->tv_sec < now ? time->tv_sec : now - 1;
    /* One of the future is not settled either. */
    found->validator.weak = time->tv_sec > now - UNSETTLED;
    return true;
}

/* ------------------------------------------------------------------------
 * Other codings of a file */

/* Of a name: which codings lie beside it, and until when that is known. */
static Word *
find_place(const Folder *folder, const Name *name, uint64_t *mark)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < name->size; i++) {
        hash = (hash ^ (unsigned char)name->text[i]) * UINT64_C(0x100000001b3);
    }
    *mark = hash & ~UINT64_C(0xffffffffff);
    return (Word *)&folder->variants[hash >> 8 & (FOLDER_VARIANTS - 1)];
}

/* Open x.br and its like. It must not be older than x: then it is of a version
 * before. */
static bool
open_variant(const Folder *folder, Name *name, Encoding encoding,
             const Found *original, Found *variant, int64_t now)
{
    char suffix[LONGEST_SUFFIX] = "-";
    strcpy(name->text + name->size, encoding_names[encoding].suffix);
    strcat(suffix, encoding_names[encoding].coding);
    const int fd = folders_open_file(folder, name->text);
    name->text[name->size] = '\0';
    if (fd < 0) {
        return false;
    }
    if (!found_stat(variant, fd, suffix, now) ||
        variant->validator.modified < original->validator.modified) {
        close(fd);
        return false;
    }
    variant->coding = encoding_names[encoding].coding;
    return true;
}

/* Which codings there are, a bit each, is looked for once a second: what is
 * mostly not there would else cost more than the file itself. */
static unsigned
find_variants(const Folder *folder, Name *name, const Found *original,
              int64_t now)
{
    uint64_t mark;
    Word *place = find_place(folder, name, &mark);
    const uint64_t known = atomic_load_explicit(place, memory_order_relaxed);
    const uint64_t second = (uint64_t)now & 0xffffffff;
    mark |= second << 8;
    if ((known & ~UINT64_C(0xff)) == mark) {
        return (unsigned)(known & 0xff);
    }
    unsigned mask = 0;
    for (unsigned i = 0; i < ENCODING_COUNT; i++) {
        Found variant;
        if (open_variant(folder, name, (Encoding)i, original, &variant, now)) {
            close(variant.fd);
            mask |= 1u << i;
        }
    }
    atomic_store_explicit(place, mark | mask, memory_order_relaxed);
    return mask;
}

/* Take the coding that the client likes best, if there is one. */
static void
choose_variant(Found *found, const Folder *folder, Name *name,
               const Http1Head *head, const char *base, int64_t now)
{
    Encoding wanted[ENCODING_COUNT];
    const unsigned mask = find_variants(folder, name, found, now);
    found->varies = mask != 0;
    const uint32_t count = mask ? encodings_read(head, base, wanted) : 0;
    for (uint32_t i = 0; i < count; i++) {
        Found variant = *found;
        if ((mask & 1u << wanted[i]) &&
            open_variant(folder, name, wanted[i], found, &variant, now)) {
            close(found->fd);
            *found = variant;
            found->validator.tag = found->tag;
            return;
        }
    }
}

/* ------------------------------------------------------------------------
 * The file itself */

static bool
add_index(const Folder *folder, Name *name)
{
    const size_t size = strlen(folder->index);
    if (size == 0 || size >= LONGEST_INDEX) {
        return false;
    }
    memcpy(name->text + name->size, folder->index, size + 1);
    name->size += size;
    return true;
}

static FoundResult
failed_by(int error)
{
    switch (error) {
    case ENOENT:
        return FOUND_NOTHING;
    case ELOOP:
        return FOUND_LINK;
    case EACCES:
        return FOUND_CLOSED;
    default:
        return FOUND_FAILED;
    }
}

static FoundResult
open_index(Found *found, const Folder *folder, Name *name, int64_t now)
{
    if (!add_index(folder, name)) {
        return FOUND_NOTHING;
    }
    const int fd = folders_open_file(folder, name->text);
    if (fd < 0) {
        return failed_by(errno);
    }
    if (!found_stat(found, fd, "", now)) {
        close(fd);
        return FOUND_NOTHING;
    }
    return FOUND_FILE;
}

/* A path without a slash at its end may still name a folder. */
static FoundResult
open_folder(Found *found, const Folder *folder, Name *name, int64_t now)
{
    name->text[name->size++] = '/';
    const FoundResult result = open_index(found, folder, name, now);
    if (result == FOUND_FILE) {
        close(found->fd);
        return FOUND_FOLDER;
    }
    return result;
}

static FoundResult
open_file(Found *found, const Folder *folder, Name *name, int64_t now)
{
    const int fd = folders_open_file(folder, name->text);
    struct stat info;
    if (fd < 0) {
        return failed_by(errno);
    }
    if (found_stat(found, fd, "", now)) {
        return FOUND_FILE;
    }
    const bool is_folder = fstat(fd, &info) == 0 && S_ISDIR(info.st_mode);
    close(fd);
    return is_folder ? open_folder(found, folder, name, now) : FOUND_NOTHING;
}

/* The name that a path has below the folder, without the slash between. */
static bool
read_name(Name *name, const char *path, size_t size)
{
    if (size > LONGEST_ENCODED || file_names_hide_slash(path, size)) {
        return false;
    }
    const ptrdiff_t length = http1_unescape(name->text, path, size);
    if (length < 0) {
        return false;
    }
    name->size = (size_t)length;
    name->text[length] = '\0';
    return true;
}

static FoundResult
find_below(Found *found, const Folder *folder, Name *name, int64_t now)
{
    switch (file_names_judge(name->text, name->size)) {
    case FILE_NAME_FOLDER:
        return open_index(found, folder, name, now);
    case FILE_NAME_FILE:
        return open_file(found, folder, name, now);
    case FILE_NAME_BAD:
    case FILE_NAME_HIDDEN:
        break;
    }
    return FOUND_NOTHING;
}

/* A mount of one file is of its own path only. */
static FoundResult
find_single(Found *found, const Folder *folder, Name *name, size_t size,
            int64_t now)
{
    const size_t length = strlen(folder->path);
    if (size != 0 || length > LONGEST_ENCODED) {
        return FOUND_NOTHING;
    }
    memcpy(name->text, folder->path, length + 1);
    name->size = length;
    const FoundResult result = open_file(found, folder, name, now);
    return result == FOUND_FOLDER ? FOUND_NOTHING : result;
}

FoundResult
found_for(Found *found, const Folder *folder, const Http1Head *head,
          const char *base, const char *path, size_t size, int64_t now)
{
    Name name;
    FoundResult result;
    *found = (Found){.fd = -1};
    if (folder->is_file) {
        result = find_single(found, folder, &name, size, now);
    } else if (size == 0) { /* the mount itself */
        name.size = 0;
        result = open_index(found, folder, &name, now);
        if (result == FOUND_FILE) {
            close(found->fd);
            result = FOUND_FOLDER;
        }
    } else if (path[0] == '/' && read_name(&name, path + 1, size - 1)) {
        result = find_below(found, folder, &name, now);
    } else {
        result = FOUND_NOTHING;
    }
    if (result != FOUND_FILE) {
        return result;
    }
    found->type = media_types_find(name.text, name.size, folder->types,
                                   folder->type_count);
    found->cache_control =
        *folder->immutable && file_names_is_hashed(name.text, name.size)
            ? folder->immutable
            : folder->cache_control;
    if (folder->precompressed) {
        choose_variant(found, folder, &name, head, base, now);
    }
    return FOUND_FILE;
}
