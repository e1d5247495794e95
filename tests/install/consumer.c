/**
 * A program built against the installed copy, in C11 and in C++17: a task, a future as an argument, an
 * actor. Prints 10 6. tests/install/test_install.sh builds and runs it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <moray.h>

MORAY_TASK(int64_t, add, (int64_t, a), (int64_t, b))
{
    return a + b;
}

MORAY_ACTOR(counter, (int64_t, value));
MORAY_METHOD(int64_t, counter, increment, (int64_t, by))
{
    return self->value += by;
}

int main(int argc, char **argv)
{
    if (moray_init(&argc, &argv))
        return 1;
    moray_ref three = moray_call(add, 1, 2);
    moray_ref ten = moray_call(add, three, 7);
    counter_actor c = moray_new(counter);
    moray_ref first = moray_call(counter_increment, c, three);
    moray_ref second = moray_call(counter_increment, c, 3);
    printf("%" PRId64, moray_take_as(int64_t, ten));
    printf(" %" PRId64 "\n", moray_take_as(int64_t, second));
    moray_release(first);
    moray_release(three);
    moray_actor_release(c);
    return moray_finalize();
}
