/**
 * An actor: a process of its own that keeps state between calls. Prints 1 3 6 10.
 */
#include <inttypes.h>
#include <stdio.h>
#include <moray.h>

MORAY_ACTOR(counter, (int64_t, value));

MORAY_METHOD(int64_t, counter, increment, (int64_t, by))
{
    return self->value += by;
}

int main(int argc, char **argv)
{
    moray_ref values[4];

    moray_init(&argc, &argv);
    counter_actor c = moray_new(counter);
    for (int64_t i = 0; i < 4; i++)
        values[i] = moray_call(counter_increment, c, i + 1); /* run in this order */
    for (int i = 0; i < 4; i++)
        printf("%" PRId64 "%c", moray_take_as(int64_t, values[i]), i < 3 ? ' ' : '\n');
    moray_actor_release(c);
    return moray_finalize();
}
