/* The table of mounts: see mounts.h. */
#include "common/mounts.h"

#include <stdlib.h>
#include <string.h>

/* The mounts of one host, which lie side by side. */
typedef struct {
    MountText host;
    uint32_t first;
    uint32_t count;
} Host;

/* Sorted: exact hosts by name, `*.host` by length, the longest first, then
 * those of any host; and each host's mounts by the length of their paths, the
 * longest first. So the first that fits is the one. */
struct Mounts {
    Mount *mounts;
    Host *hosts;
    char *texts;
    uint32_t exact; /* hosts */
    uint32_t below; /* `*.host`, behind them */
    bool any;       /* mounts of any host, behind these */
};

/* ------------------------------------------------------------------------
 * Order */

typedef enum { HOST_EXACT, HOST_BELOW, HOST_ANY } HostClass;

static HostClass
class_of(MountText host)
{
    return host.size == 0 ? HOST_ANY
           : host.size > 2 && host.text[0] == '*' && host.text[1] == '.'
               ? HOST_BELOW
               : HOST_EXACT;
}

static int
compare_texts(const char *a, size_t a_size, const char *b, size_t b_size)
{
    const size_t least = a_size < b_size ? a_size : b_size;
    const int order = least ? memcmp(a, b, least) : 0;
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int
compare_hosts(MountText a, MountText b)
{
    const HostClass class = class_of(a), other = class_of(b);
    if (class != other) {
        return class < other ? -1 : 1;
    }
    if (class == HOST_BELOW && a.size != b.size) {
        return a.size > b.size ? -1 : 1;
    }
    return compare_texts(a.text, a.size, b.text, b.size);
}

static int
compare_mounts(const void *left, const void *right)
{
    const Mount *a = left, *b = right;
    const int order = compare_hosts(a->host, b->host);
    if (order) {
        return order;
    }
    if (a->path.size != b->path.size) {
        return a->path.size > b->path.size ? -1 : 1;
    }
    return (a->number > b->number) - (a->number < b->number);
}

/* ------------------------------------------------------------------------
 * Making it */

static MountText
copy(MountText text, char **to)
{
    const MountText own = {.text = *to, .size = text.size};
    if (text.size) {
        memcpy(*to, text.text, text.size);
    }
    *to += text.size;
    return own;
}

/* Find where each host's mounts are, now that they are sorted. */
static void
gather_hosts(Mounts *m, uint32_t count)
{
    Host *host = m->hosts;
    for (uint32_t i = 0; i < count; host++) {
        *host = (Host){.host = m->mounts[i].host, .first = i};
        while (i < count && compare_hosts(m->mounts[i].host, host->host) == 0) {
            i++;
        }
        host->count = i - host->first;
        switch (class_of(host->host)) {
        case HOST_EXACT:
            m->exact++;
            break;
        case HOST_BELOW:
            m->below++;
            break;
        case HOST_ANY:
            m->any = true;
            break;
        }
    }
}

Mounts *
mounts_new(const Mount *mounts, uint32_t count)
{
    Mounts *m = calloc(1, sizeof *m);
    size_t size = 1;

    if (m == NULL) {
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++) {
        size += (size_t)mounts[i].host.size + mounts[i].path.size;
    }
    m->mounts = calloc((size_t)count + 1, sizeof *m->mounts);
    m->hosts = calloc((size_t)count + 1, sizeof *m->hosts);
    m->texts = malloc(size);
    if (m->mounts == NULL || m->hosts == NULL || m->texts == NULL) {
        mounts_free(m);
        return NULL;
    }
    char *to = m->texts;
    for (uint32_t i = 0; i < count; i++) {
        m->mounts[i] = mounts[i];
        m->mounts[i].host = copy(mounts[i].host, &to);
        m->mounts[i].path = copy(mounts[i].path, &to);
    }
    qsort(m->mounts, count, sizeof *m->mounts, compare_mounts);
    gather_hosts(m, count);
    return m;
}

void
mounts_free(Mounts *m)
{
    if (m == NULL) {
        return;
    }
    free(m->mounts);
    free(m->hosts);
    free(m->texts);
    free(m);
}

/* ------------------------------------------------------------------------
 * Paths */

static int
digit_of(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The byte that stands at `at`, and how many bytes it is written with. What is
 * no escape stands for itself: heads that have such were refused before. */
static uint32_t
read_byte(const char *path, size_t size, size_t at, char *byte)
{
    if (path[at] == '%' && size - at > 2) {
        const int high = digit_of(path[at + 1]), low = digit_of(path[at + 2]);
        if (high >= 0 && low >= 0) {
            *byte = (char)(high * 16 + low);
            return 3;
        }
    }
    *byte = path[at];
    return 1;
}

bool
mounts_is_below(const char *path, size_t path_size, const char *prefix,
                size_t prefix_size, uint32_t *cut)
{
    size_t at = 0;
    char byte;
    for (size_t i = 0; i < prefix_size; i++) {
        if (at == path_size) {
            return false;
        }
        at += read_byte(path, path_size, at, &byte);
        if (byte != prefix[i]) {
            return false;
        }
    }
    if (at < path_size) {
        read_byte(path, path_size, at, &byte);
        if (byte != '/') {
            return false;
        }
    }
    *cut = (uint32_t)at;
    return true;
}

/* ------------------------------------------------------------------------
 * Hosts */

static bool
is_digit_byte(char c)
{
    return c >= '0' && c <= '9';
}

static char
lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* The size of the name in name[:port], without the dot of the root. */
static size_t
name_size(const char *host, size_t size)
{
    size_t end = size;
    while (end > 0 && is_digit_byte(host[end - 1])) {
        end--;
    }
    /* A colon of an IPv6 address stands in brackets. */
    end = end > 0 && host[end - 1] == ':' ? end - 1 : size;
    return end > 1 && host[end - 1] == '.' ? end - 1 : end;
}

static int
compare_names(MountText known, const char *name, size_t size)
{
    const size_t least = known.size < size ? known.size : size;
    for (size_t i = 0; i < least; i++) {
        const int order =
            (unsigned char)known.text[i] - (unsigned char)lower(name[i]);
        if (order) {
            return order;
        }
    }
    return (known.size > size) - (known.size < size);
}

static const Host *
find_exact(const Mounts *m, const char *name, size_t size)
{
    uint32_t low = 0, high = m->exact;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const int order = compare_names(m->hosts[middle].host, name, size);
        if (order == 0) {
            return &m->hosts[middle];
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

/* Is it below this host? "*.example.org" has a.example.org and a.b.example.org,
 * not example.org itself. */
static bool
is_below_host(MountText host, const char *name, size_t size)
{
    const MountText suffix = {.text = host.text + 1, .size = host.size - 1};
    return size > suffix.size &&
           compare_names(suffix, name + size - suffix.size, suffix.size) == 0;
}

/* ------------------------------------------------------------------------
 * Together */

static bool
find_in_host(const Mounts *m, const Host *host, const char *path, size_t size,
             MountsFound *found)
{
    for (uint32_t i = 0; i < host->count; i++) {
        const Mount *mount = &m->mounts[host->first + i];
        if (mounts_is_below(path, size, mount->path.text, mount->path.size,
                            &found->cut)) {
            found->result = MOUNTS_FOUND;
            found->mount = mount;
            if (mount->inner) {
                mounts_is_below(path, size, mount->path.text,
                                mount->path.size - mount->inner, &found->cut);
            }
            return true;
        }
    }
    found->result = MOUNTS_NO_PATH;
    return false;
}

MountsFound
mounts_find(const Mounts *m, const char *host, size_t host_size,
            const char *path, size_t path_size)
{
    MountsFound found = {.result = MOUNTS_NO_HOST};
    const size_t size = name_size(host, host_size);
    const Host *exact = find_exact(m, host, size);

    if (exact && find_in_host(m, exact, path, path_size, &found)) {
        return found;
    }
    for (uint32_t i = 0; i < m->below; i++) {
        const Host *below = &m->hosts[m->exact + i];
        if (is_below_host(below->host, host, size) &&
            find_in_host(m, below, path, path_size, &found)) {
            return found;
        }
    }
    if (m->any) {
        find_in_host(m, &m->hosts[m->exact + m->below], path, path_size,
                     &found);
    }
    return found;
}
