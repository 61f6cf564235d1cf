/* The PROXY header before the first request of a connection. */
#ifndef POOLSRV_PREFACE_H
#define POOLSRV_PREFACE_H

#include "worker/exchange.h"

Step preface_read(Worker *w, Thread *t, Conn *c);

#endif
