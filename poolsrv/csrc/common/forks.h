/* What a process that the application forks must not have of ours.
 *
 * Such a child is no worker and no template: it has default signals, none of
 * our descriptors, and our guards have made what they guard unusable. Forks of
 * our own are exempt. Works for every way to fork that runs the C library's
 * handlers; one that does not (vfork, posix_spawn) runs another program, and
 * close-on-exec is enough there.
 */
#ifndef POOLSRV_FORKS_H
#define POOLSRV_FORKS_H

#include <stdbool.h>
#include <stddef.h>

/* Called in the child, where only async-signal-safe calls are allowed: other
 * threads' locks may be held, and their work may be half done. */
typedef void ForkLeave(void *argument);

typedef struct ForkGuard {
    struct ForkGuard *next, *previous;
    ForkLeave *leave;
    void *argument;
} ForkGuard;

/* The guard is the caller's, and must stay where it is until forks_unguard. */
void forks_guard(ForkGuard *guard, ForkLeave *leave, void *argument);
void forks_unguard(ForkGuard *guard);

/* Descriptors that such a child closes, and signals that it has the default
 * action for. Replaces what was kept before, also what was inherited from the
 * process that forked this one. 0, or -1: no memory. */
int forks_keep(const int *fds, size_t fd_count, const int *signals,
               size_t signal_count);

/* The next fork of this thread is our own. */
void forks_ours(void);

/* Is this process a child that the application has forked? */
bool forks_left(void);

#endif
