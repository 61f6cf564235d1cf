/* The access log's file: see log_file.h. Pure C. */
#define _GNU_SOURCE
#include "common/log_file.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

LogFile
log_file_of(int fd)
{
    struct stat info;
    return (LogFile){
        .fd = fd,
        .is_socket = fd >= 0 && fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode),
    };
}

bool
log_file_put(const LogFile *file, const char *line, size_t size)
{
    ssize_t written;
    do {
        written = file->is_socket
                      ? send(file->fd, line, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                      : write(file->fd, line, size);
    } while (written < 0 && errno == EINTR);
    return written >= 0;
}
