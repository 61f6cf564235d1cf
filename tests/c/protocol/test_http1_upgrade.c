/* Which requests ask for another protocol, by their fields. What no field says
 * (method, version, body) is in tests/test_upgrade.py. */
#include "protocol/heads.h"

static void
check(const char *fields, bool asked, bool websocket)
{
    Asked a = ask(fields);
    CHECK(http1_upgrade_asked(&a.head, a.bytes) == asked);
    CHECK(http1_upgrade_names(&a.head, a.bytes, "websocket") == websocket);
    CHECK(!asked || http1_upgrade_seen(&a.head));
    asked_free(&a);
}

int
main(void)
{
    check("Connection: Upgrade\r\nUpgrade: websocket\r\n", true, true);
    check("Upgrade: WebSocket\r\nConnection: keep-alive , UPGRADE\r\n", true,
          true);
    check("Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
          "Upgrade: websocket\r\n",
          true, true);
    check("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n", true,
          false);
    check("Connection: upgrade\r\nUpgrade: websockets, \"websocket\"\r\n", true,
          false);
    check("Connection: upgrade\r\nUpgrade:\r\n", true, false);
    check("Upgrade: websocket\r\n", false, true);
    check("Connection: upgrades, up grade\r\nUpgrade: websocket\r\n", false,
          true);
    check("Connection: Upgrade\r\n", false, false);
    check("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n",
          true, true);
    check("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n",
          false, true);
    check("Connection: Upgrade\r\nUpgrade: websocket\r\n"
          "Transfer-Encoding: chunked\r\n",
          false, true);
    return 0;
}
