/* A text that grows, with bytes that do not print escaped. */
#ifndef POOLSRV_TESTS_TEXT_H
#define POOLSRV_TESTS_TEXT_H

#include <stddef.h>

/* All zero is an empty text; `bytes` ends with a NUL that `size` leaves out,
 * or is NULL. The owner frees `bytes`. */
typedef struct {
    char *bytes;
    size_t size;
    size_t room;
} Text;

void text_add(Text *text, const char *bytes, size_t size);

__attribute__((format(printf, 2, 3))) void text_print(Text *text,
                                                      const char *format, ...);

/* As text_add, with \r \n \t \\ and \xHH for what is not printable ASCII. */
void text_escape(Text *text, const char *bytes, size_t size);

/* Turn such escapes back into bytes, in place; aborts if one is malformed. */
void text_unescape(Text *text);

#endif
