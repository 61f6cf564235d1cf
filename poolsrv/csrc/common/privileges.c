/* Pure C. */
#define _GNU_SOURCE
#include "common/privileges.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The system calls themselves: libcap would be one more thing to install. */
int
privileges_keep(uint64_t capabilities)
{
    struct __user_cap_header_struct header = {.version =
                                                  _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];

    if (syscall(SYS_capget, &header, sets) < 0) {
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        const uint32_t kept = (uint32_t)(capabilities >> (32 * i));
        sets[i].permitted &= kept;
        sets[i].effective &= kept;
        sets[i].inheritable &= kept;
    }
    return (int)syscall(SYS_capset, &header, sets);
}

int
privileges_forbid_more(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL);
}
