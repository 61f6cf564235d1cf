/* Whose a request is that has just come, where groups share listeners. Nothing
 * is received of it. This may be wrong, which costs a way more and no wrong
 * answer: the worker knows. What a worker has said of a request counts, so none
 * goes to and fro. Pure C; see dispatch.h. */
#include <sys/socket.h>

#include "protocol/peek.h"
#include "protocol/proxy_header.h"
#include "supervisor/dispatch_internal.h"

/* Bytes that are looked at: room for a target and a Host field. */
#define LOOK 4096

/* Those with mounts share their listeners; others are reached by their own. */
static Dispatch *
group_with(Dispatch *d, uint32_t number)
{
    Dispatch *group = joined_group(d, number);
    return group && group->mounts ? group : d;
}

Dispatch *
guess_group(Dispatch *d, int fd, const ChannelItem *item)
{
    char look[LOOK];
    const char *head = look;
    ProxyHeader unused;
    size_t skip;
    uint16_t number;

    if (d->mounts == NULL) {
        return d;
    }
    if (item->group) {
        return group_with(d, item->group - 1);
    }
    const ssize_t n = recv(fd, look, sizeof look, MSG_DONTWAIT | MSG_PEEK);
    if (n <= 0) { /* the worker finds out why */
        return d;
    }
    PeekResult result = PEEK_PARTIAL;
    const ProxyResult proxy =
        item->preface == PREFACE_NONE && item->requests == 0
            ? proxy_header_parse(look, (size_t)n, &skip, &unused)
            : PROXY_BAD;
    if (proxy == PROXY_DONE) {
        head += skip;
    }
    if (proxy != PROXY_PARTIAL) {
        result =
            peek_group(d->mounts, head, (size_t)(look + n - head), &number);
    }
    switch (result) {
    case PEEK_KNOWN:
        return group_with(d, number);
    case PEEK_PARTIAL:
        return n < LOOK ? NULL : d;
    case PEEK_NOBODYS:
        break;
    }
    return d;
}
