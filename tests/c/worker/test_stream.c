/* How a connection ends where another process holds its socket, too: its client
 * must not wait for that process. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "descriptors.h"
#include "worker/conn.h"
#include "worker/stream.h"

typedef struct {
    Conn conn;
    int client, copy; /* as a child of the application has it */
} Stage;

static void
stage_open(Stage *stage)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(listener, (struct sockaddr *)&address, size) == 0);
    CHECK(listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    stage->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(stage->client, (struct sockaddr *)&address, size) == 0);
    stage->conn = (Conn){.fd = accept(listener, NULL, NULL)};
    stage->copy = dup(stage->conn.fd);
    CHECK(stage->conn.fd >= 0 && stage->copy >= 0);
    close(listener);
}

static void
stage_close(Stage *stage)
{
    close(stage->client);
    close(stage->copy);
    close(stage->conn.fd);
}

static void
test_an_end_is_seen_at_once(void)
{
    Stage stage;
    char byte;
    stage_open(&stage);
    CHECK(stream_end(&stage.conn) == 0);
    CHECK(recv(stage.client, &byte, 1, 0) == 0);
    CHECK(send(stage.client, "x", 1, MSG_NOSIGNAL) == 1); /* no reset */
    CHECK(recv(stage.conn.fd, &byte, 1, 0) == 1);
    stage_close(&stage);
}

static void
test_a_shut_connection_is_seen_at_once(void)
{
    Stage stage;
    char byte;
    stage_open(&stage);
    stream_shut(&stage.conn);
    CHECK(recv(stage.client, &byte, 1, 0) == 0);
    stage_close(&stage);
}

static void
test_a_reset_is_seen_at_once(void)
{
    Stage stage;
    char byte;
    stage_open(&stage);
    stream_reset(&stage.conn);
    CHECK(recv(stage.client, &byte, 1, 0) < 0 && errno == ECONNRESET);
    stage_close(&stage);
}

/* Our own end of reading must not pass for the client's. */
static void
test_a_deaf_stream_knows_whether_its_client_has_ended(void)
{
    Stage stage;
    char byte;
    stage_open(&stage);
    stream_deafen(&stage.conn);
    CHECK(stream_receive(&stage.conn, &byte, 1) == 0);
    CHECK(!stream_has_ended(&stage.conn));
    CHECK(stream_end(&stage.conn) == 0);
    CHECK(!stream_has_ended(&stage.conn));
    CHECK(shutdown(stage.client, SHUT_WR) == 0);
    CHECK(stream_has_ended(&stage.conn));
    stage_close(&stage);
}

static void
test_looking_takes_nothing(void)
{
    Stage stage;
    char byte;
    stage_open(&stage);
    CHECK(!stream_has_bytes(&stage.conn));
    CHECK(stream_receive(&stage.conn, &byte, 1) == STREAM_AGAIN);
    CHECK(stage.conn.drained);
    CHECK(send(stage.client, "xy", 2, MSG_NOSIGNAL) == 2);
    CHECK(stream_has_bytes(&stage.conn) && stream_has_bytes(&stage.conn));
    CHECK(stream_receive(&stage.conn, &byte, 1) == 1);
    CHECK(!stage.conn.drained); /* there may be more */
    stage_close(&stage);
}

int
main(void)
{
    RUN(test_an_end_is_seen_at_once);
    RUN(test_a_shut_connection_is_seen_at_once);
    RUN(test_a_reset_is_seen_at_once);
    RUN(test_a_deaf_stream_knows_whether_its_client_has_ended);
    RUN(test_looking_takes_nothing);
    return 0;
}
