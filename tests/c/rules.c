/* What choice.h says in line or by a macro, for the library that the simulation
 * loads. */
#include "common/choice.h"

uint64_t rules_mean(uint64_t mean, uint64_t took);
uint64_t rules_tick(void);
uint64_t rules_sweep(void);

uint64_t
rules_mean(uint64_t mean, uint64_t took)
{
    return choice_mean(mean, took);
}

uint64_t
rules_tick(void)
{
    return LADDER_TICK;
}

uint64_t
rules_sweep(void)
{
    return LADDER_SWEEP;
}
