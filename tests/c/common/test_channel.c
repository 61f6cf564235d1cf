/* The channel of a slot: what arrives, what is refused, and whose the
 * descriptors are at the end of it. */
#define _GNU_SOURCE
#include "common/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#include "check.h"
#include "descriptors.h"

typedef struct {
    int ours, theirs;
} Channel;

static Channel
channel_open(void)
{
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
    return (Channel){fds[0], fds[1]};
}

static void
channel_close(Channel c)
{
    close(c.ours);
    close(c.theirs);
}

/* A message whose items can be told apart; all with the same descriptor. */
static ChannelMessage
batch(uint32_t count, int fd)
{
    ChannelMessage m = {.header = {.kind = CHANNEL_DISPATCH, .count = count}};
    for (uint32_t i = 0; i < count; i++) {
        m.items[i] = (ChannelItem){.since = 1000 + i,
                                   .requests = i,
                                   .listener = 2,
                                   .request_waits = i % 2,
                                   .client = {.bytes = {(uint8_t)i},
                                              .port = (uint16_t)(40000 + i),
                                              .family = AF_INET6}};
        m.fds[i] = fd;
    }
    return m;
}

static void
close_all(const ChannelMessage *m)
{
    for (uint32_t i = 0; i < m->header.count; i++) {
        close(m->fds[i]);
    }
}

static void
test_a_batch_arrives_whole(void)
{
    static const uint32_t counts[] = {1, 2, 63, CHANNEL_BATCH};
    const Channel c = channel_open();
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        const ChannelMessage sent = batch(counts[i], 0);
        ChannelMessage got;
        CHECK(channel_send(c.ours, &sent.batch) == 0);
        CHECK(channel_receive(c.theirs, &got) == 1);
        CHECK(memcmp(&got.header, &sent.header, sizeof sent.header) == 0);
        CHECK(memcmp(got.items, sent.items, counts[i] * sizeof sent.items[0]) ==
              0);
        for (uint32_t n = 0; n < counts[i]; n++) {
            CHECK(got.fds[n] > 0);
            CHECK(descriptors_same_file(got.fds[n], 0));
            CHECK(descriptors_close_on_exec(got.fds[n]));
        }
        close_all(&got);
    }
    channel_close(c);
}

static void
test_each_item_has_its_own_descriptor(void)
{
    const Channel c = channel_open();
    ChannelMessage sent = batch(2, 0), got;
    int pipes[2][2];
    char byte;
    for (int i = 0; i < 2; i++) {
        CHECK(pipe2(pipes[i], O_CLOEXEC) == 0);
        sent.fds[i] = pipes[i][1];
    }
    CHECK(channel_send(c.ours, &sent.batch) == 0);
    close(pipes[0][1]);
    close(pipes[1][1]);
    CHECK(channel_receive(c.theirs, &got) == 1);
    CHECK(write(got.fds[0], "0", 1) == 1);
    CHECK(write(got.fds[1], "1", 1) == 1);
    CHECK(read(pipes[0][0], &byte, 1) == 1 && byte == '0');
    CHECK(read(pipes[1][0], &byte, 1) == 1 && byte == '1');
    close_all(&got);
    close(pipes[0][0]);
    close(pipes[1][0]);
    channel_close(c);
}

static void
test_nothing_is_no_error(void)
{
    const Channel c = channel_open();
    ChannelMessage got;
    CHECK(channel_receive(c.theirs, &got) == 0);
    CHECK(channel_receive(c.ours, &got) == 0);
    channel_close(c);
}

static void
test_words_arrive_in_order_with_batches(void)
{
    const Channel c = channel_open();
    const ChannelMessage sent = batch(1, 0);
    ChannelMessage got;
    CHECK(channel_say(c.theirs, CHANNEL_READY, "", 0) == 0);
    CHECK(channel_send(c.theirs, &sent.batch) == 0);
    CHECK(channel_say(c.theirs, CHANNEL_FAILED, "no module", 9) == 0);

    CHECK(channel_receive(c.ours, &got) == 1);
    CHECK(got.header.kind == CHANNEL_READY && got.header.count == 0);
    CHECK(strcmp(got.text, "") == 0);
    CHECK(channel_receive(c.ours, &got) == 1);
    CHECK(got.header.kind == CHANNEL_DISPATCH && got.header.count == 1);
    close_all(&got);
    CHECK(channel_receive(c.ours, &got) == 1);
    CHECK(got.header.kind == CHANNEL_FAILED && got.header.count == 9);
    CHECK(strcmp(got.text, "no module") == 0);
    channel_close(c);
}

static void
test_a_long_word_is_cut(void)
{
    const Channel c = channel_open();
    static const size_t sizes[] = {CHANNEL_TEXT, CHANNEL_TEXT + 1,
                                   CHANNEL_TEXT * 2};
    static char text[CHANNEL_TEXT * 2];
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        ChannelMessage got;
        CHECK(channel_say(c.theirs, CHANNEL_FAILED, text, sizes[i]) == 0);
        CHECK(channel_receive(c.ours, &got) == 1);
        CHECK(got.header.count == CHANNEL_TEXT);
        CHECK(strlen(got.text) == CHANNEL_TEXT);
    }
    channel_close(c);
}

static void
test_a_full_channel_says_so_and_loses_nothing(void)
{
    const Channel c = channel_open();
    const ChannelMessage sent = batch(CHANNEL_BATCH, 0);
    ChannelMessage got;
    int count = 0;
    while (channel_send(c.ours, &sent.batch) == 0) {
        count++;
    }
    CHECK(errno == EAGAIN);
    CHECK(count > 1);
    CHECK(channel_receive(c.theirs, &got) == 1);
    close_all(&got);
    CHECK(channel_send(c.ours, &sent.batch) == 0);
    for (; count > 0; count--) {
        CHECK(channel_receive(c.theirs, &got) == 1);
        CHECK(got.header.count == CHANNEL_BATCH);
        close_all(&got);
    }
    CHECK(channel_receive(c.theirs, &got) == 0);
    channel_close(c);
}

/* A user may have as many descriptors in flight as one process may have open,
 * unless it is privileged. */
static void
test_too_many_in_flight_is_a_full_channel(void)
{
    const Channel c = channel_open();
    const ChannelMessage sent = batch(CHANNEL_BATCH, 0);
    int status;
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (getuid() == 0 && setuid(65534) < 0) {
            _exit(0); /* a root without rights: the kernel would not refuse */
        }
        descriptors_leave(0);
        CHECK(channel_send(c.ours, &sent.batch) == 0);
        CHECK(channel_send(c.ours, &sent.batch) < 0);
        CHECK(errno == EAGAIN);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    channel_close(c);
}

static void
test_what_a_dead_worker_had_not_received_is_taken_back(void)
{
    const Channel c = channel_open();
    ChannelMessage sent = batch(1, 0), got;
    int status;
    const pid_t worker = fork();
    CHECK(worker >= 0);
    if (worker == 0) {
        _exit(0); /* its copies of both ends go with it */
    }
    CHECK(channel_send(c.ours, &sent.batch) == 0);
    CHECK(waitpid(worker, &status, 0) == worker);
    CHECK(channel_receive(c.theirs, &got) == 1);
    CHECK(descriptors_same_file(got.fds[0], 0));
    close_all(&got);
    channel_close(c);
}

static void
test_what_nobody_receives_is_closed_by_the_kernel(void)
{
    const Channel c = channel_open();
    ChannelMessage sent = batch(1, 0);
    int ends[2];
    char byte;
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    sent.fds[0] = ends[1];
    CHECK(channel_send(c.ours, &sent.batch) == 0);
    close(ends[1]);
    channel_close(c);
    CHECK(read(ends[0], &byte, 1) == 0);
    close(ends[0]);
}

static void
test_a_channel_whose_other_end_is_gone(void)
{
    const Channel c = channel_open();
    const ChannelMessage sent = batch(1, 0);
    ChannelMessage got;
    CHECK(channel_say(c.theirs, CHANNEL_READY, "", 0) == 0);
    close(c.theirs);
    CHECK(channel_receive(c.ours, &got) == 1); /* what was said before */
    CHECK(channel_receive(c.ours, &got) == -1 && errno == EPIPE);
    CHECK(channel_send(c.ours, &sent.batch) == -1 && errno == EPIPE);
    CHECK(channel_say(c.ours, CHANNEL_READY, "", 0) == -1 && errno == EPIPE);
    close(c.ours);
}

/* Anything: `size` bytes of a header, items and text, and `fds` descriptors. */
static void
send_raw(int channel, const ChannelHeader *header, size_t size, size_t fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * 253)];
    } control;
    static char body[CHANNEL_TEXT + 4096];
    struct iovec part = {body, size};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    memcpy(body, header, sizeof *header);
    if (fds) {
        struct cmsghdr *c = &control.align;
        const int zeros[253] = {0};
        memset(&control, 0, sizeof control);
        m.msg_control = control.bytes;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * fds);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fds);
        memcpy(CMSG_DATA(c), zeros, sizeof(int) * fds);
    }
    CHECK(sendmsg(channel, &m, 0) == (ssize_t)size);
}

static void
test_what_is_malformed_is_refused_and_leaves_nothing_open(void)
{
    enum { HEADER = sizeof(ChannelHeader), ITEM = sizeof(ChannelItem) };
    static const struct {
        uint16_t kind;
        uint32_t count;
        size_t size, fds;
    } cases[] = {
        {CHANNEL_DISPATCH, 0, 1, 1},                 /* not even a header */
        {CHANNEL_DISPATCH, 1, HEADER + ITEM, 0},     /* too few descriptors */
        {CHANNEL_DISPATCH, 1, HEADER + ITEM, 2},     /* too many */
        {CHANNEL_DISPATCH, 2, HEADER + ITEM, 2},     /* too few items */
        {CHANNEL_DISPATCH, 1, HEADER + 2 * ITEM, 1}, /* too many */
        {CHANNEL_DISPATCH, 1, HEADER + ITEM - 1, 1}, /* half of one */
        {CHANNEL_DISPATCH, 65, HEADER + 65 * ITEM, 65},
        {CHANNEL_HAND_BACK, 253, HEADER + 253 * ITEM, 253},
        {CHANNEL_HAND_BACK, UINT32_MAX, HEADER, 1},
        {CHANNEL_READY, 0, HEADER, 1}, /* a word with a descriptor */
        {CHANNEL_READY, 0, HEADER + 1, 0},
        {CHANNEL_FAILED, 10, HEADER + 9, 0},
        {CHANNEL_FAILED, CHANNEL_TEXT + 1, HEADER + CHANNEL_TEXT + 1, 0},
    };
    const Channel c = channel_open();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const ChannelHeader header = {.kind = cases[i].kind,
                                      .count = cases[i].count};
        const int held = descriptors_open();
        ChannelMessage got;
        send_raw(c.ours, &header, cases[i].size, cases[i].fds);
        CHECK(channel_receive(c.theirs, &got) == -1 && errno == EPROTO);
        CHECK(descriptors_open() == held);
    }
    channel_close(c);
}

static void
test_a_receiver_gets_as_many_as_it_has_descriptors_for(void)
{
    const Channel c = channel_open();
    const ChannelMessage sent = batch(4, 0);
    for (uint32_t room = 0; room <= 4; room++) {
        struct rlimit before;
        ChannelMessage got;
        int result;
        CHECK(channel_send(c.ours, &sent.batch) == 0);
        before = descriptors_leave(room);
        result = channel_receive(c.theirs, &got);
        CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
        CHECK(result == 1);
        CHECK(got.header.count == room && got.lost == 4 - room);
        CHECK(memcmp(got.items, sent.items, room * sizeof sent.items[0]) == 0);
        close_all(&got);
    }
    channel_close(c);
}

int
main(void)
{
    RUN(test_a_batch_arrives_whole);
    RUN(test_each_item_has_its_own_descriptor);
    RUN(test_nothing_is_no_error);
    RUN(test_words_arrive_in_order_with_batches);
    RUN(test_a_long_word_is_cut);
    RUN(test_a_full_channel_says_so_and_loses_nothing);
    RUN(test_too_many_in_flight_is_a_full_channel);
    RUN(test_what_a_dead_worker_had_not_received_is_taken_back);
    RUN(test_what_nobody_receives_is_closed_by_the_kernel);
    RUN(test_a_channel_whose_other_end_is_gone);
    RUN(test_what_is_malformed_is_refused_and_leaves_nothing_open);
    RUN(test_a_receiver_gets_as_many_as_it_has_descriptors_for);
    return 0;
}
