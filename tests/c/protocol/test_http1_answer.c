/* Answers: what each application and each client makes of the head, and how
 * the body is framed. */
#include <string.h>

#include "check.h"
#include "protocol/http1_answer.h"
#include "common/status.h"

#define DATE "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"

typedef struct {
    const char *status;
    const char *fields[3][2];
    Http1Asker asker;
    int64_t length;
    const char *head; /* NULL: refused, and why is in `result` */
    Http1AnswerResult result;
    Http1Framing framing;
    bool keep;
} Given;

#define KEEP .minor = 1, .may_keep = true

static const Given givens[] = {
    {.status = "200 OK",
     .fields = {{"Content-Type", "text/plain"}},
     .asker = {KEEP},
     .length = 5,
     .head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
             "Content-Length: 5\r\n\r\n",
     .framing = FRAMING_LENGTH,
     .keep = true},
    {.status = "200 OK",
     .asker = {KEEP, .server = true, .date = DATE},
     .length = -1,
     .head = "HTTP/1.1 200 OK\r\n" DATE "Server: poolsrv\r\n"
             "Transfer-Encoding: chunked\r\n\r\n",
     .framing = FRAMING_CHUNKED,
     .keep = true},
    /* The application's own take their place. */
    {.status = "200 OK",
     .fields = {{"DATE", "today"}, {"server", "mine"}},
     .asker = {KEEP, .server = true, .date = DATE},
     .length = 0,
     .head = "HTTP/1.1 200 OK\r\nDATE: today\r\nserver: mine\r\n"
             "Content-Length: 0\r\n\r\n",
     .framing = FRAMING_LENGTH,
     .keep = true},
    /* As does its own id of the request, whose names end where ours does. */
    {.status = "200 OK",
     .fields = {{"X-Id-Not", "x"}, {"Not-X-Id", "x"}, {"X", "X-Id: x"}},
     .asker = {KEEP, .id_field = "X-Id", .id_field_size = 4, .id = "a1"},
     .length = 0,
     .head = "HTTP/1.1 200 OK\r\nX-Id-Not: x\r\nNot-X-Id: x\r\n"
             "X: X-Id: x\r\nX-Id: a1\r\nContent-Length: 0\r\n\r\n",
     .framing = FRAMING_LENGTH,
     .keep = true},
    {.status = "200 OK",
     .fields = {{"x-id", "mine"}},
     .asker = {KEEP, .id_field = "X-Id", .id_field_size = 4, .id = "a1"},
     .length = 0,
     .head = "HTTP/1.1 200 OK\r\nx-id: mine\r\n"
             "Content-Length: 0\r\n\r\n",
     .framing = FRAMING_LENGTH,
     .keep = true},
    /* Upgrade is hop by hop; only 426 has to say what to upgrade to. */
    {.status = "200 OK",
     .fields = {{"Upgrade", "websocket"}},
     .asker = {KEEP},
     .length = 0,
     .head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
     .framing = FRAMING_LENGTH,
     .keep = true},
    {.status = "426 Upgrade Required",
     .fields = {{"Upgrade", "websocket"}, {"Connection", "Upgrade"}},
     .asker = {KEEP},
     .length = 0,
     .head = "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\n"
             "Upgrade: websocket\r\nContent-Length: 0\r\n\r\n",
     .framing = FRAMING_LENGTH,
     .keep = true},
    /* HTTP/1.0 knows no chunks, and has to be told that we keep. */
    {.status = "200 OK",
     .asker = {.minor = 0, .may_keep = true},
     .length = -1,
     .head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
     .framing = FRAMING_CLOSE},
    {.status = "200 OK",
     .asker = {.minor = 0, .may_keep = true},
     .length = 1,
     .head = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
             "Connection: keep-alive\r\n\r\n",
     .framing = FRAMING_LENGTH,
     .keep = true},
    /* HEAD: no length that GET might not have, and the connection stays. */
    {.status = "200 OK",
     .asker = {KEEP, .is_head = true},
     .length = 0,
     .head = "HTTP/1.1 200 OK\r\n\r\n",
     .framing = FRAMING_NONE,
     .keep = true},
    {.status = "200 OK",
     .asker = {KEEP, .is_head = true},
     .length = 7,
     .head = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
     .framing = FRAMING_NONE,
     .keep = true},
    {.status = "200 OK",
     .fields = {{"Content-Length", "9"}},
     .asker = {KEEP, .is_head = true},
     .length = 0,
     .head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
     .framing = FRAMING_NONE,
     .keep = true},
    {.status = "200 OK",
     .asker = {.minor = 0, .may_keep = true, .is_head = true},
     .length = -1,
     .head = "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n",
     .framing = FRAMING_NONE,
     .keep = true},
    /* No body, whatever the application says. */
    {.status = "204 No Content",
     .fields = {{"Content-Length", "9"}},
     .asker = {KEEP},
     .length = 9,
     .head = "HTTP/1.1 204 No Content\r\n\r\n",
     .framing = FRAMING_NONE,
     .keep = true},
    {.status = "205 Reset Content",
     .fields = {{"Content-Length", "9"}},
     .asker = {KEEP},
     .length = 9,
     .head = "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
     .framing = FRAMING_NONE,
     .keep = true},
    {.status = "304 Not Modified",
     .fields = {{"Content-Length", "9"}},
     .asker = {KEEP},
     .length = 0,
     .head = "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
     .framing = FRAMING_NONE,
     .keep = true},
    {.status = "304 Not Modified",
     .asker = {KEEP},
     .length = 0,
     .head = "HTTP/1.1 304 Not Modified\r\n\r\n",
     .framing = FRAMING_NONE,
     .keep = true},
    /* What is hop by hop is ours; close is heard. */
    {.status = "200 OK",
     .fields = {{"Connection", "x, Close"}, {"Transfer-Encoding", "gzip"}},
     .asker = {KEEP},
     .length = 1,
     .head = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
             "Connection: close\r\n\r\n",
     .framing = FRAMING_LENGTH},
    {.status = "200 OK",
     .fields = {{"Keep-Alive", "1"}, {"upgrade", "x"}, {"Te", "x"}},
     .asker = {KEEP},
     .length = 1,
     .head = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
     .framing = FRAMING_LENGTH,
     .keep = true},
    {.status = "200", /* no phrase: the space stands */
     .asker = {.minor = 1},
     .length = 1,
     .head = "HTTP/1.1 200 \r\nContent-Length: 1\r\nConnection: close\r\n\r\n",
     .framing = FRAMING_LENGTH},
    {.status = "200 OK",
     .fields = {{"Content-Length", "9"}, {"content-length", "9"}},
     .asker = {KEEP},
     .length = -1,
     .head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
     .framing = FRAMING_LENGTH,
     .keep = true},
    {.status = "20", .result = ANSWER_BAD_STATUS},
    {.status = "2000", .result = ANSWER_BAD_STATUS},
    {.status = "100 Continue", .result = ANSWER_BAD_STATUS},
    {.status = "2x0 OK", .result = ANSWER_BAD_STATUS},
    {.status = "200 O\rK", .result = ANSWER_BAD_STATUS},
    {.status = "200 OK", .fields = {{"", "x"}}, .result = ANSWER_BAD_NAME},
    {.status = "200 OK", .fields = {{"a b", "x"}}, .result = ANSWER_BAD_NAME},
    {.status = "200 OK", .fields = {{"a:", "x"}}, .result = ANSWER_BAD_NAME},
    {.status = "200 OK", .fields = {{"a", "x\ny"}}, .result = ANSWER_BAD_VALUE},
    {.status = "200 OK",
     .fields = {{"Connection", "close\r"}},
     .result = ANSWER_BAD_VALUE},
    {.status = "200 OK", .fields = {{"a", "\x7f"}}, .result = ANSWER_BAD_VALUE},
    {.status = "200 OK",
     .fields = {{"Content-Length", "-1"}},
     .result = ANSWER_BAD_LENGTH},
    {.status = "200 OK",
     .fields = {{"Content-Length", ""}},
     .result = ANSWER_BAD_LENGTH},
    {.status = "200 OK",
     .fields = {{"Content-Length", "9223372036854775808"}},
     .result = ANSWER_BAD_LENGTH},
    {.status = "200 OK",
     .fields = {{"Content-Length", "1"}, {"content-length", "2"}},
     .result = ANSWER_TWO_LENGTHS},
};

/* The head that `given` makes, in `out`. */
static Http1AnswerResult
write_head(const Given *given, Http1Answer *a, Buffer *out)
{
    Http1AnswerResult result =
        http1_answer_start(a, given->status, strlen(given->status));
    for (size_t i = 0; i < 3 && given->fields[i][0]; i++) {
        if (result == ANSWER_DONE) {
            const char *const *field = given->fields[i];
            result = http1_answer_field(a, field[0], strlen(field[0]), field[1],
                                        strlen(field[1]));
        }
    }
    return result == ANSWER_DONE
               ? http1_answer_head(a, &given->asker, given->length, out)
               : result;
}

static bool
holds(const Buffer *b, const char *text)
{
    return b->size == strlen(text) && memcmp(b->data, text, b->size) == 0;
}

static void
test_heads(void)
{
    Http1Answer a = {.content_length = -1};
    Buffer out = {NULL, 0, 0};
    for (size_t i = 0; i < sizeof givens / sizeof givens[0]; i++) {
        const Given *given = &givens[i];
        out.size = 0;
        CHECK(write_head(given, &a, &out) == given->result);
        if (given->head) {
            CHECK(holds(&out, given->head));
            CHECK(a.framing == given->framing);
            CHECK(a.keep == given->keep);
        }
    }
    buffer_clear(&a.head);
    buffer_clear(&out);
}

/* A body of two pieces, "abc" and "defgh", with each framing. */
static void
test_bodies(void)
{
    static const struct {
        Given given;
        const char *body;
        bool is_short;
    } bodies[] = {
        {{.status = "200 OK", .asker = {KEEP}, .length = -1},
         "3\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n",
         false},
        {{.status = "200 OK", .asker = {KEEP}, .length = 8}, "abcdefgh", false},
        {{.status = "200 OK", .asker = {KEEP}, .length = 5}, "abcde", false},
        {{.status = "200 OK", .asker = {KEEP}, .length = 9}, "abcdefgh", true},
        {{.status = "200 OK", .asker = {.may_keep = true}, .length = -1},
         "abcdefgh",
         false},
        {{.status = "200 OK", .asker = {KEEP, .is_head = true}, .length = 9},
         "",
         false},
        {{.status = "205 Reset Content", .asker = {KEEP}, .length = 8},
         "",
         false},
    };
    static const char *const pieces[] = {"abc", "defgh"};
    Http1Answer a = {.content_length = -1};
    Buffer out = {NULL, 0, 0};
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        CHECK(write_head(&bodies[i].given, &a, &out) == ANSWER_DONE);
        out.size = 0;
        for (size_t piece = 0; piece < 2; piece++) {
            const size_t size = http1_answer_allows(&a, strlen(pieces[piece]));
            if (size) {
                http1_answer_open(&a, size, &out);
                buffer_add(&out, pieces[piece], size);
                http1_answer_close(&a, &out);
            }
        }
        CHECK(http1_answer_end(&a, &out) == ANSWER_DONE);
        CHECK(holds(&out, bodies[i].body));
        CHECK(http1_answer_is_short(&a) == bodies[i].is_short);
        out.size = 0;
    }
    buffer_clear(&a.head);
    buffer_clear(&out);
}

static void
test_pages_of_own_answers(void)
{
    static const Http1Page items[] = {
        {.status = 404, .type = "text/html", .body = "lost", .size = 4},
        {.status = 503, .type = "application/json", .body = "", .size = 0}};
    static const Http1Pages pages = {.items = items, .count = 2};
    const Http1Asker asker = {KEEP, .pages = &pages};
    Buffer out = {NULL, 0, 0};
    Http1Own own = http1_answer_own(&out, &asker, 404, "", "Not here.");
    CHECK(own.keep && own.body_size == 4);
    CHECK(holds(&out, "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n"
                      "Content-Length: 4\r\n\r\nlost"));
    out.size = 0;
    own = http1_answer_own(&out, &asker, 503, "", "Busy.");
    CHECK(own.keep && own.body_size == 0);
    out.size = 0;
    own = http1_answer_own(&out, &asker, 500, "", "Broken.");
    CHECK(own.keep && own.body_size == 8);
    out.size = 0;
    own = http1_answer_own(
        &out, &(Http1Asker){.minor = 1, .is_head = true, .pages = &pages}, 404,
        "", "");
    CHECK(!own.keep && own.body_size == 0);
    CHECK(holds(&out, "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n"
                      "Content-Length: 4\r\nConnection: close\r\n\r\n"));
    buffer_clear(&out);
}

static void
test_own_answers(void)
{
    Buffer out = {NULL, 0, 0};
    CHECK(http1_answer_own(&out,
                           &(Http1Asker){KEEP, .server = true, .date = DATE},
                           503, "Retry-After: 1\r\n", "Busy.")
              .keep);
    CHECK(holds(&out, "HTTP/1.1 503 Service Unavailable\r\n"
                      "Retry-After: 1\r\nContent-Type: text/plain\r\n" DATE
                      "Server: poolsrv\r\nContent-Length: 6\r\n\r\nBusy.\n"));
    out.size = 0;
    CHECK(!http1_answer_own(&out, &(Http1Asker){.minor = 1, .is_head = true},
                            400, "", "Bad.")
               .keep);
    CHECK(holds(&out, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
                      "Content-Length: 5\r\nConnection: close\r\n\r\n"));
    buffer_clear(&out);
    CHECK(strcmp(status_phrase(504), "Gateway Timeout") == 0);
    CHECK(strcmp(status_phrase(299), "Unknown") == 0);
}

static void
test_dates(void)
{
    Http1Date date;
    http1_date_write(&date, 784111777);
    CHECK(strcmp(date.text, DATE) == 0);
    http1_date_write(&date, 1709164800);
    CHECK(strcmp(date.text, "Date: Thu, 29 Feb 2024 00:00:00 GMT\r\n") == 0);
}

static void
test_a_control_character_is_found_wherever_it_stands(void)
{
    static const unsigned char beside[] = {'a', '\t', 0x80, 0xff};
    for (size_t size = 0; size < 20; size++) {
        for (size_t fill = 0; fill < sizeof beside; fill++) {
            char text[20];
            memset(text, beside[fill], sizeof text);
            CHECK(!http1_has_control(text, size));
            for (size_t i = 0; i < size * 256; i++) {
                const unsigned char byte = (unsigned char)(i % 256);
                text[i / 256] = (char)byte;
                CHECK(http1_has_control(text, size) ==
                      ((byte < 32 && byte != '\t') || byte == 127));
                text[i / 256] = (char)beside[fill];
            }
        }
    }
}

int
main(void)
{
    test_a_control_character_is_found_wherever_it_stands();
    test_heads();
    test_bodies();
    test_own_answers();
    test_pages_of_own_answers();
    test_dates();
    return 0;
}
