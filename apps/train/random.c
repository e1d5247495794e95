#include "random.h"

#include <stdlib.h>
#include <sodium.h>

#include "say.h"

void random_fill(uint64_t seed, enum random_purpose purpose, uint64_t index, void *bytes,
                 size_t size)
{
    uint64_t name[3] = {seed, purpose, index};
    unsigned char key[randombytes_SEEDBYTES];

    crypto_generichash(key, sizeof key, (const unsigned char *)name, sizeof name, NULL, 0);
    randombytes_buf_deterministic(bytes, size, key);
}

int random_order(uint64_t seed, enum random_purpose purpose, uint64_t index, uint32_t *order,
                 uint32_t count)
{
    uint64_t *draws = malloc(count * sizeof *draws);

    if (!draws)
        return say_error("no memory for a permutation of %u", count);
    random_fill(seed, purpose, index, draws, count * sizeof *draws);
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    for (uint32_t left = count; left > 1; left--) { /* the bias of % is below 2^-32 */
        uint32_t pick = (uint32_t)(draws[left - 1] % left), swap = order[pick];
        order[pick] = order[left - 1];
        order[left - 1] = swap;
    }
    free(draws);
    return 0;
}
