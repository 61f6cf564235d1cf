/* A file that the application names in place of a body: X-Sendfile. */
#ifndef POOLSRV_NAMED_FILE_H
#define POOLSRV_NAMED_FILE_H

#include <stdint.h>

#include "protocol/http1_answer.h"
#include "worker/files.h"
#include "worker/worker.h"

/* Answer with the file that `a` names, if it is in one of these folders, else
 * with 404: the log says why. What the application has said of conditions and
 * ranges counts; if it said nothing, they are judged here. */
void named_file_send(Thread *t, Conn *c, Request *r, const Http1Answer *a,
                     const Files *files);

#endif
