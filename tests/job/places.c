/* Where tasks with resources run: "queue" prints how many of 40 ran on another rank, "bytes" the rank
 * that a task with a large input of rank 1 ran on. places.sh runs it. */
#include <moray.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TASKS = 40, LARGE_BYTES = 4 << 20 };

MORAY_TASK(int32_t, where)
{
    usleep(20000);
    return moray_rank();
}

MORAY_TASK(moray_buffer, make_large)
{
    moray_buffer buffer = moray_result(LARGE_BYTES);
    memset(buffer.data, 1, LARGE_BYTES);
    return buffer;
}

MORAY_TASK(int32_t, read_large, (moray_view, bytes))
{
    return ((const char *)bytes.data)[bytes.size - 1] == 1 ? moray_rank() : -1;
}

/* How many tasks ran elsewhere. */
static int queue(void)
{
    moray_ref refs[TASKS];
    int elsewhere = 0;

    for (int i = 0; i < TASKS; i++)
        refs[i] = moray_call_with((.memory = 1), where);
    for (int i = 0; i < TASKS; i++)
        elsewhere += moray_take_as(int32_t, refs[i]) != 0;
    return elsewhere;
}

static int bytes(void)
{
    moray_ref large = moray_call_with((.on_rank = 2), make_large);

    (void)moray_wait(&large, 1, 1, NULL, NULL, NULL, NULL, 0, 0);
    int rank = moray_take_as(int32_t, moray_call_with((.memory = 1), read_large, large));
    moray_release(large);
    return rank;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "queue";

    moray_init(&argc, &argv);
    printf("%d\n", strcmp(what, "queue") ? bytes() : queue());
    return moray_finalize();
}
