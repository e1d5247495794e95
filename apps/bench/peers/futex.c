/**
 * The peer futex: one process wakes another, which wakes the first. Neither is bound, nobody spins.
 *
 *     futex [--gap MS] [--trips N]    microseconds there and back, the median of N trips, each after
 *                                     a sleep of MS; each time it is asked the first begins on the
 *                                     next core
 */
#include "../core.h"
#include "answer.h"

#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TRIPS_MAX = 100000 };

struct shared {
    _Alignas(64) _Atomic uint32_t there;
    _Alignas(64) _Atomic uint32_t back;
};

static void wake(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store(word, value);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void await(_Atomic uint32_t *word, uint32_t value)
{
    for (uint32_t seen; (seen = atomic_load(word)) != value;)
        syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static int number(int argc, char **argv, const char *name, int otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], name))
            return atoi(argv[i + 1]);
    return otherwise;
}

int main(int argc, char **argv)
{
    struct shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int gap_ms = number(argc, argv, "--gap", 5), trips = number(argc, argv, "--trips", 200);
    static double us[TRIPS_MAX];
    pid_t parent = getpid();
    uint32_t turn = 0;

    if (shared == MAP_FAILED || trips < 1 || trips > TRIPS_MAX || gap_ms < 0) {
        fprintf(stderr, "usage: futex [--gap MS] [--trips N]\n");
        return 2;
    }
    pid_t child = fork();
    if (child < 0)
        return 1;
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        for (;;) {
            await(&shared->there, ++turn);
            wake(&shared->back, turn);
        }
    }
    for (unsigned part = 0; answer_wanted(); part++) {
        core_begin_on(part);
        for (int i = 0; i < trips; i++) {
            usleep((useconds_t)gap_ms * 1000);
            double start = answer_now();
            wake(&shared->there, ++turn);
            await(&shared->back, turn);
            us[i] = (answer_now() - start) * 1e6;
        }
        qsort(us, (size_t)trips, sizeof *us, answer_by_value);
        answer_value(us[trips / 2]);
    }
    return 0;
}
