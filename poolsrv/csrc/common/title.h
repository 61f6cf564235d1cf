/* The text by which ps and top show this process in full. */
#ifndef POOLSRV_TITLE_H
#define POOLSRV_TITLE_H

#include <stdbool.h>

/* Put `text` in the place of the command line that the process was started by,
 * cut to the room that this had. False: the kernel does not say where it is.
 *
 * The kernel reads the arguments of a process where they were put when it was
 * started, and everybody who wanted to know them has copied them by now; the
 * memory is the process's own, and a fork has a copy. */
bool title_write(const char *text);

#endif
