/* HTTP dates, RFC 9110 section 5.6.7. */
#ifndef POOLSRV_HTTP_DATE_H
#define POOLSRV_HTTP_DATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
#define HTTP_DATE_SIZE 29

/* Seconds since 1970 as HTTP_DATE_SIZE characters, without a NUL behind them.
 * Years from 0 to 9999 can be written: others are taken for the nearest. */
void http_date_write(char *to, int64_t seconds);

/* Read one of the three forms that recipients must know. `now` tells which
 * century a year of two digits is of. False: it is none of them. */
bool http_date_read(const char *text, size_t size, int64_t now,
                    int64_t *seconds);

#endif
