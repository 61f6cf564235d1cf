/* Whose a request is: see peek.h. */
#include "protocol/peek.h"

#include <string.h>

#include "protocol/lex.h"

typedef struct {
    const char *at, *end;
} Rest;

static bool
is_target_byte(char c)
{
    return c > ' ' && c < 0x7f;
}

static bool
starts_with(const char *at, const char *end, const char *word)
{
    const size_t size = strlen(word);
    return (size_t)(end - at) >= size && http1_is_word(at, size, word);
}

/* The value of the first field that is called Host. DONE if it is here, or
 * there is none: then it is empty. */
static PeekResult
find_host(Rest rest, MountText *host)
{
    static const char name[] = "host:";
    *host = (MountText){.text = "", .size = 0};
    for (bool first = true;; first = false) {
        const char *line = rest.at;
        const char *lf = memchr(line, '\n', (size_t)(rest.end - line));
        if (lf == NULL) {
            return PEEK_PARTIAL;
        }
        if (lf == line || lf[-1] != '\r') {
            return PEEK_NOBODYS;
        }
        rest.at = lf + 1;
        if (first) { /* what is left of the request line */
            continue;
        }
        if (lf == line + 1) {
            return PEEK_KNOWN;
        }
        if (starts_with(line, lf, name)) {
            const char *from = line + strlen(name), *to = lf - 1;
            while (from < to && is_space(*from)) {
                from++;
            }
            while (from < to && is_space(to[-1])) {
                to--;
            }
            *host = (MountText){.text = from, .size = (uint32_t)(to - from)};
            return PEEK_KNOWN;
        }
    }
}

/* Cut the scheme and the authority off a target; what stands for no path is
 * as in http1_head_parse(). False: it has none. */
static bool
cut_authority(MountText *target, MountText *host, bool is_options)
{
    static const char scheme[] = "http://";
    const char *end = target->text + target->size;
    if (!starts_with(target->text, end, scheme)) {
        return false;
    }
    host->text = target->text + strlen(scheme);
    const char *slash = memchr(host->text, '/', (size_t)(end - host->text));
    host->size = (uint32_t)((slash ? slash : end) - host->text);
    if (slash) {
        *target = (MountText){.text = slash, .size = (uint32_t)(end - slash)};
    } else {
        const bool has_query = *end == '?';
        *target = has_query || !is_options ? (MountText){.text = "/", .size = 1}
                                           : (MountText){.text = "", .size = 0};
    }
    return true;
}

PeekResult
peek_group(const Mounts *m, const char *bytes, size_t size, uint16_t *group)
{
    Rest rest = {.at = bytes, .end = bytes + size};
    MountText host = {.text = "", .size = 0};
    if (size && *bytes == '\r') { /* an empty line may come first */
        if (size == 1) {
            return PEEK_PARTIAL;
        }
        if (bytes[1] != '\n') {
            return PEEK_NOBODYS;
        }
        rest.at += 2;
    }
    const char *method = rest.at;
    while (rest.at < rest.end && is(*rest.at, TCHAR)) {
        rest.at++;
    }
    if (rest.at == rest.end) {
        return PEEK_PARTIAL;
    }
    if (*rest.at != ' ') {
        return PEEK_NOBODYS;
    }
    const bool is_options =
        rest.at - method == 7 && memcmp(method, "OPTIONS", 7) == 0;
    MountText target = {.text = ++rest.at};
    while (rest.at < rest.end && is_target_byte(*rest.at) && *rest.at != '?') {
        rest.at++;
    }
    if (rest.at == rest.end) {
        return PEEK_PARTIAL;
    }
    target.size = (uint32_t)(rest.at - target.text);
    if (target.size == 0 || (*rest.at != ' ' && *rest.at != '?')) {
        return PEEK_NOBODYS;
    }
    if (*target.text == '*') {
        target.size = 0;
    } else if (*target.text != '/' &&
               !cut_authority(&target, &host, is_options)) {
        return PEEK_NOBODYS;
    }
    if (host.size == 0 && mounts_know_hosts(m)) {
        const PeekResult result = find_host(rest, &host);
        if (result != PEEK_KNOWN) {
            return result;
        }
    }
    const MountsFound found =
        mounts_find(m, host.text, host.size, target.text, target.size);
    if (found.result != MOUNTS_FOUND || found.mount->group == MOUNT_OF_ALL) {
        return PEEK_NOBODYS;
    }
    *group = found.mount->group;
    return PEEK_KNOWN;
}
