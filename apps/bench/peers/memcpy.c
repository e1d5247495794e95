/**
 * The peer memcpy: GB/s (10^9 bytes) from memory to memory of the same process, both touched.
 *
 *     memcpy [BYTES]      1 GiB
 */
#include "answer.h"

#include <sys/mman.h>

int main(int argc, char **argv)
{
    size_t bytes = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;

    if (!bytes)
        bytes = (size_t)1 << 30;
    char *from = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *to = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (from == MAP_FAILED || to == MAP_FAILED)
        return 1;
    memset(from, 1, bytes);
    memset(to, 2, bytes);
    for (char mark = 3; answer_wanted(); mark++) {
        from[bytes - 1] = mark; /* so that no copy can be left out */
        double start = answer_now();
        memcpy(to, from, bytes);
        double seconds = answer_now() - start;
        if (to[bytes - 1] != mark)
            return 1;
        answer_value((double)bytes / seconds / 1e9);
    }
    return 0;
}
