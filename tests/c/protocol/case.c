#include "protocol/case.h"

#include <string.h>

#include "check.h"
#include "protocol/message.h"

/* "line 100": one limit of the case. */
static void
set_limit(Http1Limits *limits, const char *text)
{
    char name[16];
    unsigned value;
    CHECK(sscanf(text, "%15s %u", name, &value) == 2);
    if (strcmp(name, "line") == 0) {
        limits->line = value;
    } else if (strcmp(name, "field-size") == 0) {
        limits->field_size = value;
    } else if (strcmp(name, "fields") == 0) {
        limits->fields = value;
    } else {
        CHECK(strcmp(name, "head") == 0);
        limits->head = value;
    }
}

static void
add_bytes(Case *read, const char *escaped, unsigned times)
{
    Text bytes = {0};
    text_add(&bytes, escaped, strlen(escaped));
    text_unescape(&bytes);
    for (unsigned i = 0; i < times; i++) {
        text_add(&read->input, bytes.bytes, bytes.size);
    }
    free(bytes.bytes);
}

static void
read_line(Case *read, const char *line)
{
    const char *space = strchr(line, ' ');
    CHECK(space != NULL);
    const char *value = space + 1;
    const size_t size = (size_t)(space - line);
    unsigned times = 1;

    if (strncmp(line, "send ", 5) == 0) {
        add_bytes(read, value, times);
    } else if (sscanf(line, "send*%u ", &times) == 1) {
        add_bytes(read, value, times);
    } else if (strncmp(line, "answer ", 7) == 0) {
        CHECK(sscanf(value, "%d %63s", &read->status, read->result) == 2);
    } else if (strncmp(line, "expect ", 7) == 0) {
        text_print(&read->expect, "%s\n", value);
    } else if (strncmp(line, "limit ", 6) == 0) {
        set_limit(&read->limits, value);
    } else { /* for people: tests/http_cases.py reads these */
        CHECK(strncmp(line, "input", size) == 0 ||
              strncmp(line, "rule", size) == 0 ||
              strncmp(line, "why", size) == 0);
    }
}

void
case_read(Case *read, const char *path)
{
    char line[1024];
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    *read = (Case){.limits = message_limits};
    while (fgets(line, sizeof(line), file) != NULL) {
        const size_t size = strcspn(line, "\n");
        CHECK(line[size] == '\n');
        line[size] = '\0';
        read_line(read, line);
    }
    CHECK(!ferror(file));
    fclose(file);
    text_add(&read->input, "", 0);
    text_add(&read->expect, "", 0);
    CHECK(read->result[0] != '\0');
}

void
case_free(Case *read)
{
    free(read->input.bytes);
    free(read->expect.bytes);
}
