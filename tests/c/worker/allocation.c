#include "worker/allocation.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stddef.h>

/* The linker's names: what the sources call, and what libc has. */
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);

/* The threads of a worker allocate side by side. */
static _Atomic long made, first = LONG_MAX, last = LONG_MAX;
static _Atomic bool failed;

void
allocation_fail(long number, Failing failing)
{
    made = 0;
    failed = false;
    first = number;
    last = failing == FAIL_ONCE ? number : LONG_MAX;
}

bool
allocation_failed(void)
{
    return failed;
}

void
allocation_restore(void)
{
    first = LONG_MAX;
    failed = false;
}

static bool
fails(void)
{
    const long number = atomic_fetch_add(&made, 1);
    if (number < first || number > last) {
        return false;
    }
    failed = true;
    errno = ENOMEM;
    return true;
}

void *
__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *
__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}
