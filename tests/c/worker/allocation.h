/* Allocations that fail when a test wants them to. The sources under test are
 * linked with --wrap for malloc, calloc and realloc. */
#ifndef POOLSRV_TESTS_ALLOCATION_H
#define POOLSRV_TESTS_ALLOCATION_H

#include <stdbool.h>

typedef enum {
    FAIL_ONCE, /* only that one */
    FAIL_ON,   /* that one and all that follow */
} Failing;

/* From now on the `number`th allocation fails, counted from 0. */
void allocation_fail(long number, Failing failing);

/* Whether one has failed since. */
bool allocation_failed(void);

/* All succeed again. */
void allocation_restore(void);

#endif
