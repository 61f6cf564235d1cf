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
            const bool unread = (state == CONN_IDLE || state == CONN_PREFACE ||
                                 state == CONN_PEEKED) &&
                                progress == PROGRESS_UNREAD;
            const bool lost = (state == CONN_PARSE || state == CONN_HEAD ||
                               state == CONN_BODY || state == CONN_RUNNING ||
                               state == CONN_WRITING) &&
                              progress == PROGRESS_BEGUN;
            const Fate expected =
                state == CONN_FREE || progress == PROGRESS_PASSED_ON ? FATE_NONE
                : unread ? FATE_UNREAD
                : lost   ? FATE_LOST
                         : FATE_CUT;
            CHECK(judge((ConnState)state, (ConnProgress)progress, 7, false) ==
                  expected);
            /* Its descriptor is not known yet, or any more. */
            CHECK(judge((ConnState)state, (ConnProgress)progress, -1, false) ==
                  FATE_NONE);
            /* Its client has been told already. */
            const Fate gone =
                judge((ConnState)state, (ConnProgress)progress, 7, true);
            CHECK(gone == FATE_NONE || gone == FATE_CUT);
        }
    }
    return 0;
}
