/* Tasks that wait, one inside the other, in a call that runs nothing meanwhile: spares.sh. */
#include <moray.h>
#include <stdio.h>
#include <stdlib.h>

static struct how {
    int64_t limit_ms;
    double cores; /* of each task; 0: as by default */
} how;

static void take_how(const void *data, size_t bytes)
{
    (void)bytes;
    how = *(const struct how *)data;
}

MORAY_TASK(int, deeper, (int, levels))
{
    if (levels == 0)
        return 0;
    moray_ref inner = moray_call_with((.cores = how.cores), deeper, levels - 1);
    moray_ref ready;
    size_t count = 0;
    if (moray_wait(&inner, 1, 1, &ready, &count, NULL, NULL, how.limit_ms, 0) != MORAY_OK || !count)
        return -1000;
    return moray_take_as(int, inner) + 1;
}

int main(int argc, char **argv)
{
    struct how all = {argc > 2 ? atoi(argv[2]) : 0, argc > 3 ? atof(argv[3]) : 0};
    int levels = argc > 1 ? atoi(argv[1]) : 1;

    if (moray_init(&argc, &argv) != MORAY_OK ||
        moray_setup(take_how, &all, sizeof(all)) != MORAY_OK)
        return 1;
    printf("%d\n", moray_take_as(int, moray_call_with((.cores = all.cores), deeper, levels)));
    return moray_finalize();
}
