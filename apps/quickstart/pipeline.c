/**
 * Tasks feed an actor: nobody waits but the last line. Prints the sum of 1² to 100²: 338350.
 */
#include <inttypes.h>
#include <stdio.h>
#include <moray.h>

MORAY_TASK(int64_t, square, (int64_t, n))
{
    return n * n;
}

MORAY_ACTOR(total, (int64_t, sum));
MORAY_METHOD(int64_t, total, add, (int64_t, value))
{
    return self->sum += value;
}

int main(int argc, char **argv)
{
    moray_ref sum = {0};

    moray_init(&argc, &argv);
    total_actor all = moray_new(total);
    for (int64_t n = 1; n <= 100; n++) {
        moray_ref squared = moray_call(square, n); /* on any core, on any rank */
        if (n > 1)
            moray_release(sum); /* the sum so far: nobody will read it */
        sum = moray_call(total_add, all, squared);
        moray_release(squared); /* the call holds it as long as it must */
    }
    printf("%" PRId64 "\n", moray_take_as(int64_t, sum));
    moray_actor_release(all);
    return moray_finalize();
}
