/* The table of mounts: see mounts.h.
 *
 * Long, because the order in which mounts lie and the search that counts on it
 * stand together. */
#include "common/mounts.h"

#include <stdlib.h>
#include <string.h>

/* The mounts of one host, which lie side by side. */
typedef struct {
    MountText host;
    uint32_t first;
    uint32_t count;
} Host;

/* Sorted: exact hosts, then `*.host`, both by their text, then those of any
 * host; and each host's mounts by their paths, with the slash as the lowest
 * letter. So all that is below a path lies side by side behind it, and a search
 * by halves leads to the longest of those that a request's path is below, or to
 * one that is itself below that: what `above` says leads there. */
struct Mounts {
    Mount *mounts;
    uint32_t *above; /* of each: the nearest that it is below; MOUNT_NONE */
    Host *hosts;
    char *texts;
    uint32_t exact;         /* hosts */
    uint32_t below;         /* `*.host`, behind them */
    uint32_t longest_below; /* the size of the longest of these */
    bool any;               /* mounts of any host, behind these */
    uint32_t count;
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
    return compare_texts(a.text, a.size, b.text, b.size);
}

/* Where a byte of a path stands in the order. */
static int
rank_of(char byte)
{
    return byte == '/' ? -1 : (unsigned char)byte;
}

static int
compare_paths(MountText a, MountText b)
{
    const uint32_t least = a.size < b.size ? a.size : b.size;
    uint32_t same = 0;
    while (same < least && a.text[same] == b.text[same]) {
        same++;
    }
    return same < least ? rank_of(a.text[same]) - rank_of(b.text[same])
                        : (a.size > b.size) - (a.size < b.size);
}

static int
compare_mounts(const void *left, const void *right)
{
    const Mount *a = left, *b = right;
    int order = compare_hosts(a->host, b->host);
    if (order) {
        return order;
    }
    order = compare_paths(a->path, b->path);
    return order ? order : (a->number > b->number) - (a->number < b->number);
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

static bool
is_below(MountText path, MountText prefix)
{
    return path.size >= prefix.size &&
           (prefix.size == 0 ||
            memcmp(path.text, prefix.text, prefix.size) == 0) &&
           (path.size == prefix.size || path.text[prefix.size] == '/');
}

/* Drop those that stand where another does, and find what each of the host's
 * mounts is below: what the one before it is, or is below itself. */
static void
link_host(Mounts *m, Host *host)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < host->count; i++) {
        const Mount *mount = &m->mounts[host->first + i];
        const uint32_t at = host->first + count;
        uint32_t above = count ? at - 1 : MOUNT_NONE;
        if (count && compare_paths(m->mounts[above].path, mount->path) == 0) {
            continue;
        }
        while (above != MOUNT_NONE &&
               !is_below(mount->path, m->mounts[above].path)) {
            above = m->above[above];
        }
        m->mounts[at] = *mount;
        m->above[at] = above;
        count++;
    }
    host->count = count;
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
        link_host(m, host);
        switch (class_of(host->host)) {
        case HOST_EXACT:
            m->exact++;
            break;
        case HOST_BELOW:
            m->below++;
            if (host->host.size > m->longest_below) {
                m->longest_below = host->host.size;
            }
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
    m->above = calloc((size_t)count + 1, sizeof *m->above);
    m->hosts = calloc((size_t)count + 1, sizeof *m->hosts);
    m->texts = malloc(size);
    if (m->mounts == NULL || m->above == NULL || m->hosts == NULL ||
        m->texts == NULL) {
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
    m->count = count;
    return m;
}

void
mounts_free(Mounts *m)
{
    if (m == NULL) {
        return;
    }
    free(m->mounts);
    free(m->above);
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

/* The host of this name among `count` that are sorted; the first `cut` bytes
 * of their texts do not belong to it. */
static const Host *
find_host(const Host *hosts, uint32_t count, uint32_t cut, const char *name,
          size_t size)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const MountText whole = hosts[middle].host;
        const MountText known = {whole.text + cut, whole.size - cut};
        const int order = compare_names(known, name, size);
        if (order == 0) {
            return &hosts[middle];
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------------
 * Finding one */

/* How a mount's path and one that is percent-encoded compare. */
typedef struct {
    int order;     /* < 0: the mount's comes first */
    uint32_t same; /* so many of its bytes are at the start of the other, too */
    uint32_t at;   /* where they end there, as it was sent */
    bool is_below; /* the other is below the mount */
} Compared;

static Compared
compare_sent(MountText known, const char *path, size_t size)
{
    size_t same = 0, at = 0;
    for (;;) {
        char byte = '/';
        while (same < known.size && at < size && path[at] != '%' &&
               path[at] == known.text[same]) {
            same++;
            at++;
        }
        const bool over = at == size;
        const uint32_t width = over ? 0 : read_byte(path, size, at, &byte);
        if (same == known.size) {
            return (Compared){.order = over ? 0 : -1,
                              .same = (uint32_t)same,
                              .at = (uint32_t)at,
                              .is_below = byte == '/'};
        }
        if (over || byte != known.text[same]) {
            const int rank = rank_of(known.text[same]) - rank_of(byte);
            return (Compared){.order = over ? 1 : rank,
                              .same = (uint32_t)same,
                              .at = (uint32_t)at};
        }
        same++;
        at += width;
    }
}

/* The mount with the longest path that this one is below; NULL: none is. */
static const Mount *
find_path(const Mounts *m, const Host *host, const char *path, size_t size,
          uint32_t *cut)
{
    uint32_t low = host->first, high = low + host->count, last = MOUNT_NONE;
    Compared best = {0};
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const Compared c = compare_sent(m->mounts[middle].path, path, size);
        if (c.order > 0) {
            high = middle;
        } else {
            best = c;
            last = middle;
            low = middle + 1;
        }
    }
    if (best.is_below && m->mounts[last].inner == 0) {
        *cut = best.at;
        return &m->mounts[last];
    }
    for (; last != MOUNT_NONE; last = m->above[last]) {
        const Mount *mount = &m->mounts[last];
        const MountText known = mount->path;
        if (known.size > best.same ||
            !mounts_is_below(path, size, known.text, known.size, cut)) {
            continue;
        }
        if (mount->inner) {
            mounts_is_below(path, size, known.text, known.size - mount->inner,
                            cut);
        }
        return mount;
    }
    return NULL;
}

static bool
find_in_host(const Mounts *m, const Host *host, const char *path, size_t size,
             MountsFound *found)
{
    found->mount = find_path(m, host, path, size, &found->cut);
    found->result = found->mount ? MOUNTS_FOUND : MOUNTS_NO_PATH;
    return found->mount != NULL;
}

MountsFound
mounts_find(const Mounts *m, const char *host, size_t host_size,
            const char *path, size_t path_size)
{
    MountsFound found = {.result = MOUNTS_NO_HOST};
    const size_t size = name_size(host, host_size);
    const Host *exact = find_host(m->hosts, m->exact, 0, host, size);

    if (exact && find_in_host(m, exact, path, path_size, &found)) {
        return found;
    }
    /* "*.example.org" has a.example.org and a.b.example.org, not example.org
     * itself: so from the first dot on that has a byte before it, and the
     * longest first. */
    size_t at = size >= m->longest_below ? size - m->longest_below + 1 : 1;
    for (; m->below && at < size; at++) {
        const Host *below = host[at] != '.'
                                ? NULL
                                : find_host(m->hosts + m->exact, m->below, 1,
                                            host + at, size - at);
        if (below && find_in_host(m, below, path, path_size, &found)) {
            return found;
        }
    }
    if (m->any) {
        find_in_host(m, &m->hosts[m->exact + m->below], path, path_size,
                     &found);
    }
    return found;
}

bool
mounts_know_hosts(const Mounts *m)
{
    return m->exact + m->below > 0;
}

bool
mounts_have_other(const Mounts *m, uint16_t group)
{
    for (uint32_t i = 0; i < m->count; i++) {
        if (m->mounts[i].group != group) {
            return true;
        }
    }
    return false;
}
