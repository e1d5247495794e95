/* A program that differs from rank to rank, by -DDIFFERS=: 1 lacks a function, 2 has one of another
 * type, 3 has one more, 4 an actor of another state. starts.sh runs it. */
#include <moray.h>

#include <stdio.h>
#include <unistd.h>

MORAY_TASK(int32_t, alike, (int32_t, a))
{
    return a;
}

#if DIFFERS == 2
MORAY_TASK(int32_t, changing, (double, a))
{
    return (int32_t)a;
}
#elif DIFFERS != 1
MORAY_TASK(int32_t, changing, (int32_t, a))
{
    return a;
}
#endif

#if DIFFERS == 3
MORAY_TASK(int32_t, one_more, (int32_t, a))
{
    return a;
}
#endif

#if DIFFERS == 4
MORAY_ACTOR(counter, (int64_t, value), (int64_t, more));
#else
MORAY_ACTOR(counter, (int64_t, value));
#endif
MORAY_METHOD(int64_t, counter, add, (int64_t, by))
{
    return self->value += by;
}

int main(int argc, char **argv)
{
    moray_init(&argc, &argv);
    printf("%d\n", moray_take_as(int32_t, moray_call_with((.on_rank = 2), alike, 7)));
    if (argc > 1) { /* until libfabric has begun, on whose way the second one goes */
        sleep(2);
        printf("%d\n", moray_take_as(int32_t, moray_call_with((.on_rank = 2), alike, 7)));
    }
    return moray_finalize();
}
