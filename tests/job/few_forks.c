/* Tasks that need a further process where forks fail: spares.sh. Linked with --wrap=fork. */
#include <errno.h>
#include <moray.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

pid_t __real_fork(void);
pid_t __wrap_fork(void);

/* Forks of a process and of those before it, from FORKS_FAIL_FROM on and before FORKS_FAIL_TO, fail. */
pid_t __wrap_fork(void)
{
    static int number;
    const char *from = getenv("FORKS_FAIL_FROM"), *to = getenv("FORKS_FAIL_TO");

    number++;
    if (from && number >= atoi(from) && !(to && number >= atoi(to))) {
        errno = EAGAIN;
        return -1;
    }
    return __real_fork();
}

static _Atomic int *begun; /* shared by all */

static int wait_and_take(moray_ref ref)
{
    moray_ref ready;
    size_t count = 0;

    if (moray_wait(&ref, 1, 1, &ready, &count, NULL, NULL, 0, 0) != MORAY_OK || !count)
        return -1000;
    return moray_take_as(int, ref);
}

MORAY_TASK(int, one)
{
    return 1;
}

MORAY_TASK(int, plus_one, (int, value))
{
    return value + 1;
}

MORAY_ACTOR(slow, (int, value));
MORAY_METHOD(int, slow, answer)
{
    usleep(300000);
    return self->value + 1;
}

/* Nobody but who waits is left to run what follows from the actor's answer. */
MORAY_TASK(int, waits, (slow_actor, actor))
{
    atomic_fetch_add(begun, 1);
    while (atomic_load(begun) < 2)
        usleep(1000);
    return moray_take_as(int, moray_call(plus_one, moray_call(slow_answer, actor)));
}

/* All workers wait for tasks that the agent places. */
MORAY_TASK(int, asks)
{
    atomic_fetch_add(begun, 1);
    while (atomic_load(begun) < 2)
        usleep(1000);
    return wait_and_take(moray_call_with((.cores = 0.5), one));
}

int main(int argc, char **argv)
{
    bool general = argc > 1 && !strcmp(argv[1], "general");

    begun = mmap(NULL, sizeof(*begun), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (begun == MAP_FAILED || moray_init(&argc, &argv) != MORAY_OK)
        return 1;
    moray_ref refs[2];
    slow_actor actor = moray_new(slow);
    (void)moray_take_as(int, moray_call(slow_answer, actor)); /* the fourth fork is the actor's */
    for (int i = 0; i < 2; i++)
        refs[i] = general ? moray_call(asks) : moray_call(waits, actor);
    printf("%d\n", wait_and_take(refs[0]) + wait_and_take(refs[1]));
    moray_actor_release(actor);
    return moray_finalize();
}
