/* An answer on its way: its head, pieces of its body, a file, its end.
 *
 * Callers are inside the gate of the answer. -1: and an exception.
 */
#ifndef POOLSRV_SEND_H
#define POOLSRV_SEND_H

#include "python/wsgi/wsgi.h"

/* Is the head made? Then the application cannot change it any more. */
static inline bool
send_has_begun(const StartResponse *sr)
{
    return sr->answer.framing != FRAMING_UNDECIDED;
}

/* Whom the answer is for. A thread of the application may read the body
 * meanwhile.
 */
Http1Asker send_asker(Context *x);

/* Send a piece of the body, with the head before the first. `last` says that
 * nothing follows: all of the answer may then go out together. `length` is the
 * whole body's if known. */
int send_piece(Context *x, StartResponse *sr, PyObject *bytes, int64_t length,
               bool last);

/* Between two pieces: give a slow reader time before more is made. */
void send_wait(Context *x);

/* Send x->thread->out and then `size` bytes of `data`, which `owner` keeps
 * alive (its reference stays the caller's). The interpreter is let go
 * meanwhile. */
void send_buffer(Context *x, const char *data, size_t size, PyObject *owner);

/* Send a file with sendfile, if it is one that the kernel can send. 1: it is on
 * its way; 0: read it; -1 and exception. */
int send_file(Context *x, StartResponse *sr, PyObject *wrapper);

/* Does the answer name a file in place of its body? Then nothing of the body is
 * sent. */
static inline bool
send_names_file(const StartResponse *sr)
{
    return sr->called && sr->answer.file.size && !send_has_begun(sr);
}
void send_named_file(Context *x, StartResponse *sr);

/* After the last piece. */
int send_end(Context *x, StartResponse *sr);

#endif
