/* A main() for a fuzz target: each file named is one input. */
#include <stdint.h>

#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Above any input that is worth keeping. */
#define ROOM 65536

int
main(int count, char **paths)
{
    uint8_t *data = malloc(ROOM);
    CHECK(data != NULL);
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(paths[i], "rb");
        CHECK(file != NULL);
        const size_t size = fread(data, 1, ROOM, file);
        CHECK(!ferror(file) && size < ROOM);
        fclose(file);
        LLVMFuzzerTestOneInput(data, size);
    }
    free(data);
    printf("%d inputs\n", count - 1);
    return 0;
}
