/* An actor whose call never ends, and whose last handle goes: it is forced (semantics.md, 33). Prints how
 * many seconds that took, and whether its process is gone. stuck.sh runs it. */
#include <moray.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

MORAY_ACTOR(stuck);
MORAY_METHOD(int32_t, stuck, pid)
{
    (void)self;
    return getpid();
}
MORAY_METHOD(int32_t, stuck, hang)
{
    (void)self;
    for (;;)
        pause();
    return 0;
}

static int is_gone(int pid)
{
    for (int i = 0; i < 20 && kill(pid, 0) == 0; i++)
        usleep(100000);
    return kill(pid, 0) != 0 && errno == ESRCH;
}

int main(int argc, char **argv)
{
    int32_t value;

    moray_init(&argc, &argv);
    stuck_actor actor = moray_new(stuck);
    int32_t pid = moray_take_as(int32_t, moray_call(stuck_pid, actor));
    moray_ref never = moray_call(stuck_hang, actor);
    time_t begin = time(NULL);
    moray_actor_release(actor);
    int code = moray_get(never, &value, 100000);
    printf("code %d after %d s, its process is %s\n", code, (int)(time(NULL) - begin),
           is_gone(pid) ? "gone" : "there");
    moray_release(never);
    return moray_finalize();
}
