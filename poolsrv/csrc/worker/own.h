/* The descriptors that a worker cannot do without, and whether they are still
 * what they were: an application may close them, or put something else in their
 * place (dup2). It would be written to instead, and nobody woken. Pure C. */
#ifndef POOLSRV_OWN_H
#define POOLSRV_OWN_H

#include <stdbool.h>
#include <sys/types.h>

struct Worker;

typedef struct {
    dev_t device;
    ino_t number;
} OwnFile;

typedef struct {
    OwnFile channel, bell;
} Own;

/* Wait for events of all that tell us something, from now on. 0, or -1 and
 * errno. */
int own_begin(struct Worker *w);

/* The main thread's: if one is not ours any more, break. */
void own_check(struct Worker *w);

#endif
