/* What is learned of requests, and what is made of it. */
#include "common/path_times.h"

#include <errno.h>
#include <string.h>

#include "check.h"
#include "descriptors.h"

#define MICROSECOND UINT64_C(1000)
#define MILLISECOND UINT64_C(1000000)

static PathTimes
new_path_times(void)
{
    return (PathTimes){.seed = UINT64_C(0xcbf29ce484222325), .factor = 10};
}

static void
ran(PathTimes *f, const char *method, const char *path, uint64_t took)
{
    if (path_times_learns(f, took)) {
        path_times_learn(f, method, strlen(method), path, strlen(path), took);
    }
}

/* What is forecast for a request that waits in a socket; it stays there. */
static uint64_t
forecast(const PathTimes *f, const char *request)
{
    char left[4096];
    uint64_t usual;
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(send(pair[0], request, strlen(request), 0) ==
          (ssize_t)strlen(request));
    usual = path_times_usual(f, pair[1]);
    CHECK(recv(pair[1], left, sizeof left, MSG_DONTWAIT) ==
              (ssize_t)strlen(request) ||
          *request == '\0');
    close(pair[0]);
    close(pair[1]);
    return usual;
}

static void
test_one_long_request_is_enough(void)
{
    PathTimes f = new_path_times();
    CHECK(forecast(&f, "GET /report HTTP/1.1\r\n") == 0);
    ran(&f, "GET", "/report", 10 * MILLISECOND);
    CHECK(forecast(&f, "GET /report HTTP/1.1\r\n") == 10 * MILLISECOND);
    CHECK(forecast(&f, "GET /report?year=1 HTTP/1.1\r\n") == 10 * MILLISECOND);
    CHECK(forecast(&f, "POST /report HTTP/1.1\r\n") == 0);
    CHECK(forecast(&f, "GET /reports HTTP/1.1\r\n") == 0);
    CHECK(forecast(&f, "GET /report/ HTTP/1.1\r\n") == 0);
}

static void
test_short_requests_leave_no_trace(void)
{
    PathTimes f = new_path_times();
    ran(&f, "GET", "/", LADDER_SLOW - 1);
    CHECK(!path_times_known(&f));
    ran(&f, "GET", "/", LADDER_SLOW);
    CHECK(path_times_known(&f));
}

static void
test_without_a_factor_nothing_is_learned(void)
{
    PathTimes f = new_path_times();
    atomic_store(&f.factor, 0);
    ran(&f, "GET", "/report", 10 * MILLISECOND);
    CHECK(!path_times_known(&f));
}

static void
test_numbers_in_a_path_are_one(void)
{
    PathTimes f = new_path_times();
    ran(&f, "GET", "/users/7/orders", 10 * MILLISECOND);
    CHECK(forecast(&f, "GET /users/12345/orders HTTP/1.1\r\n") != 0);
    CHECK(forecast(&f, "GET /users/9f8e-77/orders HTTP/1.1\r\n") != 0);
    CHECK(forecast(&f, "GET /users/me/orders HTTP/1.1\r\n") == 0);
    CHECK(forecast(&f, "GET /users/7 HTTP/1.1\r\n") == 0);
    CHECK(forecast(&f, "GET /users/7/orders/8 HTTP/1.1\r\n") == 0);
}

/* So many requests until the forecast has passed `until`, up or down. */
static int
takes(PathTimes *f, uint64_t took, uint64_t until, bool up)
{
    for (int i = 0; i < 1000; i++) {
        const uint64_t usual = forecast(f, "GET /a HTTP/1.1\r\n");
        if (up ? usual >= until : usual <= until) {
            return i;
        }
        ran(f, "GET", "/a", took);
    }
    return 1000;
}

static void
test_it_follows_a_change(void)
{
    PathTimes f = new_path_times();
    ran(&f, "GET", "/a", MILLISECOND);
    CHECK(takes(&f, 100 * MILLISECOND, 70 * MILLISECOND, true) < 50);
    CHECK(takes(&f, 50 * MICROSECOND, LADDER_SLOW, false) < 60);
    CHECK(takes(&f, 0, 2 * MICROSECOND, false) < 100);
    ran(&f, "GET", "/a", 0);
    CHECK(forecast(&f, "GET /a HTTP/1.1\r\n") != 0); /* known to be short */
}

static void
test_one_that_took_long_once_changes_little(void)
{
    PathTimes f = new_path_times();
    uint64_t usual;
    ran(&f, "GET", "/a", MILLISECOND);
    ran(&f, "GET", "/a", 1000 * MILLISECOND);
    usual = forecast(&f, "GET /a HTTP/1.1\r\n");
    CHECK(usual > MILLISECOND && usual < 2 * MILLISECOND);
}

static void
test_no_time_is_too_long(void)
{
    PathTimes f = new_path_times();
    ran(&f, "GET", "/a", UINT64_MAX);
    for (int i = 0; i < 100; i++) {
        ran(&f, "GET", "/a", UINT64_MAX);
    }
    CHECK(forecast(&f, "GET /a HTTP/1.1\r\n") > 1000000 * MILLISECOND);
}

static void
test_what_is_no_request_is_not_known(void)
{
    static const char *const heads[] = {
        "",     " ",   "GET",         "\r\n",
        "\xff", "GET", "GET\r\n/a\n", "ANAMEFARTOOLONGFORAMETHOD /a HTTP/1.1",
    };
    PathTimes f = new_path_times();
    ran(&f, "GET", "/a", 10 * MILLISECOND);
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        CHECK(forecast(&f, heads[i]) == 0);
    }
    CHECK(forecast(&f, "GET /a") == 10 * MILLISECOND);
}

/* Of a long path its beginning counts, wherever it was read. */
static void
test_a_long_path(void)
{
    char path[3 * PATH_TIMES_PATH] = "/", request[sizeof path + 32];
    PathTimes f = new_path_times();
    memset(path + 1, 'x', sizeof path - 2);
    ran(&f, "GET", path, 10 * MILLISECOND);
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n", path);
    CHECK(forecast(&f, request) == 10 * MILLISECOND);
}

/* Does a request that waits cost a system call? */
static bool
is_looked_up(const PathTimes *f)
{
    errno = 0;
    CHECK(path_times_delay(f, -1) == 0);
    return errno == EBADF;
}

/* Pages that all take the same are not told apart, however long they take. */
static void
test_where_no_path_is_slow_none_is_looked_up(void)
{
    PathTimes f = new_path_times();
    f.patience = MILLISECOND;
    CHECK(!is_looked_up(&f));
    ran(&f, "GET", "/a", 5 * MILLISECOND);
    CHECK(is_looked_up(&f));
    for (int i = 0; i < 100; i++) {
        ran(&f, "GET", "/a", 5 * MILLISECOND);
        ran(&f, "GET", "/b", 6 * MILLISECOND);
    }
    CHECK(!is_looked_up(&f));
    ran(&f, "GET", "/report", 500 * MILLISECOND);
    CHECK(is_looked_up(&f));
    for (int i = 0; i < 100; i++) { /* it was once */
        ran(&f, "GET", "/report", 5 * MILLISECOND);
    }
    CHECK(!is_looked_up(&f));
}

int
main(void)
{
    RUN(test_where_no_path_is_slow_none_is_looked_up);
    RUN(test_one_long_request_is_enough);
    RUN(test_short_requests_leave_no_trace);
    RUN(test_without_a_factor_nothing_is_learned);
    RUN(test_numbers_in_a_path_are_one);
    RUN(test_it_follows_a_change);
    RUN(test_one_that_took_long_once_changes_little);
    RUN(test_no_time_is_too_long);
    RUN(test_what_is_no_request_is_not_known);
    RUN(test_a_long_path);
    return 0;
}
