/* Where a request goes: see route.h. Pure C. */
#include "worker/route.h"

#include "worker/refuse.h"
#include "worker/worker_internal.h"

static void
refuse(Route *route, int status, const char *words)
{
    route->handler = &refuse_handler;
    route->status = (uint16_t)status;
    route->words = words;
}

/* Is this a time when applications answer nobody but those who look after
 * them? */
static void
enter_application(const Worker *w, Route *route, const Address *client)
{
    if (w->o.maintenance && word_get(w->o.board->supervisor->maintenance) &&
        !address_within(client, &w->o.bypass)) {
        refuse(route, 503, "maintenance");
        route->maintenance = true;
    }
}

/* What answers at the mount. */
static void
enter(const Worker *w, const Address *client, Route *route, const Mount *mount)
{
    route->mount = mount;
    if (mount->group != w->o.group) {
        route->elsewhere = true;
        refuse(route, 421, "this connection does not lead there");
        return;
    }
    if (mount->allowed.count && !address_within(client, &mount->allowed)) {
        refuse(route, 403, "the settings do not allow this client");
        return;
    }
    switch (mount->kind) {
    case MOUNT_FOLDER:
        if (mount->application != MOUNT_NONE) {
            enter_application(w, route, client);
        }
        route->skips_body = mount->application == MOUNT_NONE;
        route->beyond = route->handler;
        route->handler = w->o.files;
        return;
    case MOUNT_STATUS:
        refuse(route, mount->status, "the settings say so");
        return;
    case MOUNT_APPLICATION:
        enter_application(w, route, client);
        return;
    case MOUNT_KIND_COUNT:
        return;
    }
}

static void
choose(const Worker *w, const Address *client, Route *route, Http1Span host,
       const char *base, Http1Span path)
{
    const MountsFound found =
        mounts_find(w->o.mounts, base + host.at, host.len,
                    base + path.at + route->cut, path.len - route->cut);
    switch (found.result) {
    case MOUNTS_FOUND:
        route->cut += found.cut;
        enter(w, client, route, found.mount);
        return;
    case MOUNTS_NO_PATH:
        refuse(route, 404, "nothing is mounted here");
        return;
    case MOUNTS_NO_HOST:
        refuse(route, 421, "this host is not served here");
        return;
    }
}

void
route_find(const Worker *w, const Conn *c, Request *r)
{
    const Http1Head *head = &r->head;
    const char *base = r->buffer + r->start;
    Route *route = &r->route;

    route->found = true;
    route->handler = w->o.handler;
    route->forwarded = (head->seen & w->believed) != 0 &&
                       c->item.preface != PREFACE_UNNAMED &&
                       address_within(&c->item.client, &w->o.trusted);
    if (route->forwarded) {
        forwarded_read(&route->said, (ForwardedFamily)w->o.limits.forwarded,
                       w->o.limits.forwarded_fields, head, base, &w->o.trusted,
                       &c->item.client);
        /* Some proxies cut their prefix off the path, some do not. */
        const Http1Span prefix = route->said.prefix;
        mounts_is_below(base + head->path.at, head->path.len, base + prefix.at,
                        prefix.len, &route->cut);
    }
    /* One whom the proxy does not name is in no network: the proxy's own must
     * not open what is for some only. */
    static const Address nobody = {.family = AF_UNSPEC};
    const Address *client =
        route->forwarded ? &route->said.client : &c->item.client;
    if (c->item.preface == PREFACE_UNNAMED ||
        (route->forwarded && route->said.unnamed)) {
        client = &nobody;
    }
    if (w->o.mounts) {
        choose(w, client, route,
               route->forwarded && route->said.renamed ? route->said.host
                                                       : head->host,
               base, head->path);
    } else {
        enter_application(w, route, client);
    }
}
