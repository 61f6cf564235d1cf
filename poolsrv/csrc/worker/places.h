/* Where the connections of a worker lie: in blocks, whose addresses stay.
 *
 * A worker that has a keeper puts them into a file that both can see, which has
 * the blocks one behind the other: so the keeper finds them when this process
 * is dead (keeper.h). Pure C. */
#ifndef POOLSRV_PLACES_H
#define POOLSRV_PLACES_H

#include <stddef.h>
#include <stdint.h>

#include "worker/conn.h"

/* Bytes of a block in the file: a map begins with a page. */
size_t places_stride(void);

/* The next block of `file`, all zero; -1: of memory that is this process's own.
 * NULL: there is no room. */
Conn *places_make(int file, uint32_t number);

/* In a child that the application has forked: what it writes to the block from
 * now on is not seen by its parent. */
void places_leave(int file, Conn *block, uint32_t number);

void places_free(int file, Conn *block);

#endif
