/* Any bytes as a table of mounts, a host and a path: what is found is what a
 * search through all of them would find, by the decoded path. */
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "common/mounts.h"
#include "protocol/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST 16

/* The next line of the input, without its end. */
static MountText
next_line(const char **at, size_t *left)
{
    const char *end = *left ? memchr(*at, '\n', *left) : NULL;
    const size_t size = end ? (size_t)(end - *at) : *left;
    const MountText line = {.text = *at, .size = (uint32_t)size};
    *at += end ? size + 1 : size;
    *left -= end ? size + 1 : size;
    return line;
}

static char
lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* 0: it does not fit; else the better, the larger. */
static size_t
fit_of_host(MountText known, MountText name)
{
    const bool below =
        known.size > 2 && known.text[0] == '*' && known.text[1] == '.';
    const MountText suffix = {known.text + below, known.size - below};
    if (known.size == 0) {
        return 1;
    }
    if (below ? name.size <= suffix.size : name.size != suffix.size) {
        return 0;
    }
    for (uint32_t i = 0; i < suffix.size; i++) {
        if (suffix.text[i] != lower(name.text[name.size - suffix.size + i])) {
            return 0;
        }
    }
    return below ? 1 + suffix.size : 1 + UINT16_MAX;
}

static bool
has_path(MountText prefix, const char *path, size_t size)
{
    return size >= prefix.size && memcmp(path, prefix.text, prefix.size) == 0 &&
           (size == prefix.size || path[prefix.size] == '/');
}

/* Host, mounts ("host/path") and last the path, a line each. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *at = (const char *)data;
    Mount mounts[MOST];
    uint32_t count = 0, best = MOST;
    size_t best_host = 0;
    bool served = false;
    if (size == 0 || size > UINT16_MAX) {
        return 0;
    }
    MountText name = next_line(&at, &size), path = next_line(&at, &size);
    const MountText host = name;
    while (size && count < MOST) {
        const MountText line = next_line(&at, &size);
        const char *slash =
            line.size ? memchr(line.text, '/', line.size) : NULL;
        const uint32_t cut = slash ? (uint32_t)(slash - line.text) : line.size;
        mounts[count] = (Mount){.host = {line.text, cut},
                                .path = {line.text + cut, line.size - cut},
                                .number = count};
        count++;
    }
    char *plain = malloc(path.size + 1u);
    CHECK(plain != NULL);
    const ptrdiff_t length = http1_unescape(plain, path.text, path.size);
    Mounts *m = mounts_new(mounts, count);
    CHECK(m != NULL);
    const MountsFound found =
        mounts_find(m, host.text, host.size, path.text, path.size);

    uint32_t digits = name.size;
    while (digits && name.text[digits - 1] >= '0' &&
           name.text[digits - 1] <= '9') {
        digits--;
    }
    if (digits && name.text[digits - 1] == ':') {
        name.size = digits - 1;
    }
    if (name.size > 1 && name.text[name.size - 1] == '.') {
        name.size--;
    }
    for (uint32_t i = 0; i < count && length >= 0; i++) {
        const size_t fit = fit_of_host(mounts[i].host, name);
        served |= fit > 0;
        if (fit == 0 || !has_path(mounts[i].path, plain, (size_t)length)) {
            continue;
        }
        if (best == MOST || fit > best_host ||
            (fit == best_host &&
             mounts[i].path.size > mounts[best].path.size)) {
            best = i;
            best_host = fit;
        }
    }
    if (length >= 0) { /* heads with malformed escapes are refused before */
        CHECK(found.result == (best < MOST ? MOUNTS_FOUND
                               : served    ? MOUNTS_NO_PATH
                                           : MOUNTS_NO_HOST));
    }
    if (length >= 0 && best < MOST) {
        const MountText prefix = mounts[best].path;
        CHECK(found.mount->number == best && found.cut <= path.size);
        CHECK(http1_unescape(plain, path.text, found.cut) == prefix.size);
        CHECK(prefix.size == 0 || memcmp(plain, prefix.text, prefix.size) == 0);
    }
    mounts_free(m);
    free(plain);
    return 0;
}
