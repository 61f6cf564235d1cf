/* Giving up what a process may do. */
#ifndef POOLSRV_PRIVILEGES_H
#define POOLSRV_PRIVILEGES_H

#include <stdint.h>

/* Keep, of the capabilities that the process has, those whose bits are set.
 * 0, or -1 and errno. */
int privileges_keep(uint64_t capabilities);

/* No program that this process or a child starts gets more than it has, by
 * set-user-ID or otherwise. 0, or -1 and errno. */
int privileges_forbid_more(void);

#endif
