/* Files that mounts serve, by whichever thread holds the connection, without
 * the interpreter. */
#ifndef POOLSRV_FILES_H
#define POOLSRV_FILES_H

#include "worker/folders.h"
#include "worker/handler.h"

typedef struct {
    Folder *folders; /* by Mount.folder */
    uint32_t count;
} Files;

/* Say in the log what this machine does not allow. */
void files_tell(const Files *files, Worker *w);

/* A handler's `serve`; its argument is a Files. */
void files_serve(void *argument, Thread *t, Conn *c, Request *r);

#endif
