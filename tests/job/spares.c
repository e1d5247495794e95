/* Tasks that wait, one inside the other, in a call that runs nothing meanwhile: spares.sh. */
#include <moray.h>
#include <stdio.h>
#include <stdlib.h>

static int64_t limit_ms;

static void take_limit(const void *data, size_t bytes)
{
    (void)bytes;
    limit_ms = *(const int64_t *)data;
}

MORAY_TASK(int, deeper, (int, levels))
{
    if (levels == 0)
        return 0;
    moray_ref inner = moray_call(deeper, levels - 1);
    moray_ref ready;
    size_t count = 0;
    if (moray_wait(&inner, 1, 1, &ready, &count, NULL, NULL, limit_ms, 0) != MORAY_OK || !count)
        return -1000;
    return moray_take_as(int, inner) + 1;
}

int main(int argc, char **argv)
{
    int64_t ms = argc > 2 ? atoi(argv[2]) : 0;
    int levels = argc > 1 ? atoi(argv[1]) : 1;

    if (moray_init(&argc, &argv) != MORAY_OK ||
        moray_setup(take_limit, &ms, sizeof(ms)) != MORAY_OK)
        return 1;
    printf("%d\n", moray_take_as(int, moray_call(deeper, levels)));
    return moray_finalize();
}
