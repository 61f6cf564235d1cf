/* What becomes of the connections of a dead worker: each state of one, with
 * each progress of its request. */
#include "worker/keeper.h"

#include "check.h"

static Fate
judge(ConnState state, ConnProgress progress, int fd, bool gone)
{
    Conn c = {.fd = fd, .state = (uint8_t)state, .gone = gone};
    conn_progress(&c, progress);
    return keeper_judge(&c);
}

int
main(void)
{
    for (int state = CONN_FREE; state <= CONN_LINGER; state++) {
        for (int progress = PROGRESS_UNREAD; progress <= PROGRESS_PASSED_ON;
             progress++) {
            const bool unread = (state == CONN_IDLE || state == CONN_PREFACE) &&
                                progress == PROGRESS_UNREAD;
            const Fate expected =
                state == CONN_FREE || progress == PROGRESS_PASSED_ON ? FATE_NONE
                : unread ? FATE_UNREAD
                         : FATE_CUT;
            CHECK(judge((ConnState)state, (ConnProgress)progress, 7, false) ==
                  expected);
            /* Its descriptor is not known yet, or any more. */
            CHECK(judge((ConnState)state, (ConnProgress)progress, -1, false) ==
                  FATE_NONE);
            CHECK(judge((ConnState)state, (ConnProgress)progress, 7, true) !=
                  FATE_UNREAD);
        }
    }
    return 0;
}
