/**
 * A job with everything that an end must clear away: objects, busy workers on every node, an actor, a
 * process that a task has started. Prints "ready", then ends as the first argument says:
 *
 *     wait        waits for a task that never ends; a signal or a kill must end it
 *     finalize    moray_finalize, return of main      return     main returns without moray_finalize
 *     exit        exit(3)       abort       abort()           segv       writes to address 0
 * tests/ends/test_ends.sh looks at what is left.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <moray.h>

enum { SLEEPERS = 6, OBJECT_BYTES = 1 << 20 };

MORAY_TASK(int64_t, sleeper, (moray_view, bytes))
{
    for (size_t i = 0; i < bytes.size + 1; i %= bytes.size + 1)
        usleep(10000);
    return 0;
}

/* A process that Moray has not made: it outlives its task, and must not outlive the job. */
MORAY_TASK(int64_t, start_stranger, (int64_t, seconds))
{
    char line[64];

    snprintf(line, sizeof line, "sleep %" PRId64 " >/dev/null 2>&1 &", seconds);
    return system(line);
}

MORAY_ACTOR(counter, (int64_t, value));
MORAY_METHOD(int64_t, counter, increment, (int64_t, by))
{
    return self->value += by;
}

static int end(const char *how, moray_ref endless)
{
    if (!strcmp(how, "exit"))
        exit(3);
    if (!strcmp(how, "abort"))
        abort();
    if (!strcmp(how, "segv"))
        *(volatile int *)0 = 1;
    if (!strcmp(how, "return"))
        return 0;
    if (!strcmp(how, "wait"))
        moray_get_bytes(endless, NULL, 0, 0);
    return moray_finalize();
}

int main(int argc, char **argv)
{
    static char bytes[OBJECT_BYTES];
    moray_ref sleepers[SLEEPERS];

    moray_init(&argc, &argv);
    moray_ref object = moray_put(bytes, sizeof bytes);
    moray_take_as(int64_t, moray_call(start_stranger, 1000));
    counter_actor c = moray_new(counter);
    moray_take_as(int64_t, moray_call(counter_increment, c, 1));
    for (int i = 0; i < SLEEPERS; i++)
        sleepers[i] = moray_call(sleeper, object);
    usleep(200 * 1000); /* so that they have started */
    puts("ready");
    fflush(stdout);
    return end(argc > 1 ? argv[1] : "finalize", sleepers[0]);
}
