/* Where lines of the access log go: a descriptor in append mode, on which one
 * write is one line, so that those of several processes do not mix, and on
 * which nobody waits. */
#ifndef POOLSRV_LOG_FILE_H
#define POOLSRV_LOG_FILE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    int fd;         /* -1: there is no log */
    bool is_socket; /* which must be told not to wait */
} LogFile;

LogFile log_file_of(int fd);
/* False and errno: the line is lost. */
bool log_file_put(const LogFile *file, const char *line, size_t size);

#endif
