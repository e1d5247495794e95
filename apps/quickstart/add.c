/**
 * The smallest program: a task that adds, and a future as an argument. Prints 10.
 */
#include <inttypes.h>
#include <stdio.h>
#include <moray.h>

MORAY_TASK(int64_t, add, (int64_t, a), (int64_t, b))
{
    return a + b;
}

int main(int argc, char **argv)
{
    moray_init(&argc, &argv);
    moray_ref three = moray_call(add, 1, 2);   /* returns at once */
    moray_ref ten = moray_call(add, three, 7); /* waits for `three` by itself */
    printf("%" PRId64 "\n", moray_take_as(int64_t, ten));
    moray_release(three);
    return moray_finalize();
}
