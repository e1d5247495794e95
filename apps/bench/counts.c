/**
 * What a task costs in things that can be counted: for the row counts.task.
 *
 *     counts local     atomic operations on memory (locked instructions) and fences of the submitter
 *                      and of the worker, counted by stepping through them; allocations
 *     counts across    messages, bytes and frames between two ranks; allocations
 *
 * A process forked from the driver, the stepper, traces the driver and then the worker, instruction
 * by instruction, while 25 tasks pass. It counts those with a lock prefix and exchanges with memory;
 * a locked operation on the own stack is a fence. Only for x86-64; elsewhere the counts are left out.
 * malloc is this program's own, and counts in memory that a rank's processes share.
 * It is linked with Moray's archive, for the fabric's counts; all else goes through moray.h.
 */
#include <moray.h>

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric/fabric.h"
#include "node/agent.h"

enum { STEPPED = 25, BATCH = 10000 };

struct shared {
    _Atomic uint64_t allocations;
    _Atomic pid_t target; /* who is to be stepped; 0: nobody */
    _Atomic int stepping, failed;
    _Atomic int blocked, open; /* the gate that keeps the worker from the queue */
    _Atomic uint64_t locked, fences, instructions;
};
static struct shared *shared;

/* ---- Allocations ---- */

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *old, size_t bytes);

static void count_allocation(void)
{
    if (shared)
        atomic_fetch_add_explicit(&shared->allocations, 1, memory_order_relaxed);
}

void *malloc(size_t bytes)
{
    count_allocation();
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    count_allocation();
    return __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes)
{
    count_allocation();
    return __libc_realloc(old, bytes);
}

__attribute__((constructor)) static void make_shared(void)
{
    void *memory =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        abort();
    shared = memory;
}

/* ---- The stepper ---- */

#ifdef __x86_64__
enum instruction { PLAIN, LOCKED, FENCE };

static enum instruction look(const uint8_t *code)
{
    bool lock = false;
    uint8_t rex = 0;

    for (;; code++) { /* prefixes */
        if (*code == 0xf0)
            lock = true;
        else if (*code != 0x66 && *code != 0x67 && *code != 0xf2 && *code != 0xf3 &&
                 *code != 0x2e && *code != 0x3e && *code != 0x64 && *code != 0x65)
            break;
    }
    if ((*code & 0xf0) == 0x40)
        rex = *code++;
    if (!lock) {
        bool is_exchange = (code[0] == 0x86 || code[0] == 0x87) && code[1] >> 6 != 3;
        bool is_mfence = code[0] == 0x0f && code[1] == 0xae && code[2] == 0xf0;
        return is_mfence ? FENCE : is_exchange ? LOCKED : PLAIN;
    }
    /* lock or $0, (%rsp) is the compiler's fence: 83 /1, base rsp */
    if (code[0] == 0x83 && (code[1] & 0x3f) == 0x0c && code[2] == 0x24 && !(rex & 1))
        return FENCE;
    return LOCKED;
}

/* Steps once; returns false when the stepping is over or the process gone. */
static bool step(pid_t pid, int *signal_number)
{
    struct user_regs_struct registers;
    uint64_t code[2];
    int status;

    if (ptrace(PTRACE_GETREGS, pid, NULL, &registers))
        return false;
    for (int i = 0; i < 2; i++) {
        errno = 0;
        code[i] = (uint64_t)ptrace(PTRACE_PEEKTEXT, pid, (void *)(registers.rip + 8u * (unsigned)i),
                                   NULL);
    }
    enum instruction found = look((const uint8_t *)code);
    if (found == LOCKED)
        atomic_fetch_add(&shared->locked, 1);
    if (found == FENCE)
        atomic_fetch_add(&shared->fences, 1);
    atomic_fetch_add(&shared->instructions, 1);
    if (ptrace(PTRACE_SINGLESTEP, pid, NULL, (void *)(intptr_t)*signal_number))
        return false;
    if (waitpid(pid, &status, __WALL) != pid)
        return false;
    *signal_number =
        WIFSTOPPED(status) && WSTOPSIG(status) != SIGTRAP && !(status >> 16) ? WSTOPSIG(status) : 0;
    return WIFSTOPPED(status) && atomic_load(&shared->target);
}

static void step_through(pid_t pid)
{
    int status, signal_number = 0;

    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) || ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) ||
        waitpid(pid, &status, __WALL) != pid) {
        atomic_store(&shared->failed, 1);
        return;
    }
    atomic_store(&shared->locked, 0);
    atomic_store(&shared->fences, 0);
    atomic_store(&shared->instructions, 0);
    atomic_store(&shared->stepping, 1);
    while (step(pid, &signal_number))
        ;
    ptrace(PTRACE_DETACH, pid, NULL, (void *)(intptr_t)signal_number);
}
#else
static void step_through(pid_t pid)
{
    (void)pid;
    atomic_store(&shared->failed, 1);
}
#endif

static pid_t start_stepper(void)
{
    pid_t parent = getpid(), stepper = fork();

    if (stepper)
        return stepper;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (getppid() == parent) {
        pid_t target = atomic_load(&shared->target);
        if (target) {
            step_through(target);
            while (atomic_load(&shared->target))
                usleep(100);
            atomic_store(&shared->stepping, 0);
        }
        usleep(100);
    }
    _exit(0);
}

/* Whether the process is being stepped from now on. */
static bool stepping_begin(pid_t pid)
{
    atomic_store_explicit(&shared->target, pid, memory_order_release);
    while (!atomic_load(&shared->stepping) && !atomic_load(&shared->failed))
        usleep(100);
    return !atomic_load(&shared->failed);
}

/* ---- What is counted ---- */

MORAY_TASK(int64_t, empty)
{
    return 1;
}

MORAY_TASK(int64_t, allocations)
{
    return (int64_t)atomic_load(&shared->allocations);
}

MORAY_TASK(int64_t, allow, (int64_t, stepper))
{
    prctl(PR_SET_PTRACER, stepper);
    return getpid();
}

/* Keeps the worker busy. */
MORAY_TASK(int64_t, block)
{
    atomic_store(&shared->blocked, 1);
    while (!atomic_load(&shared->open))
        usleep(50);
    return 0;
}

/* The stepper looks after each instruction: one that sleeps is woken by work. (An interrupt would
 * leave a trap behind that kills it.) */
static void stepping_end(bool of_worker)
{
    atomic_store_explicit(&shared->target, 0, memory_order_release);
    while (atomic_load(&shared->stepping)) {
        usleep(100);
        if (of_worker)
            moray_take_as(int64_t, moray_call(empty));
    }
}

static moray_ref refs[BATCH];

static void submit(int count)
{
    for (int i = 0; i < count; i++)
        refs[i] = moray_call(empty);
}

static void take(int count)
{
    for (int i = 0; i < count; i++)
        moray_take_as(int64_t, refs[i]);
}

/* Allocations of both ranks, or of the one. */
static int64_t allocations_now(bool is_across)
{
    int64_t here = (int64_t)atomic_load(&shared->allocations);

    return is_across ? here + moray_take_as(int64_t, moray_call(allocations)) : here;
}

/* Tells locked instructions and fences a task, of the process that was stepped. */
static double tell_steps(const char *who)
{
    double locked = (double)atomic_load(&shared->locked) / STEPPED;

    printf(" atomics_%s=%.2f fences_%s=%.2f instructions_%s=%.0f", who, locked, who,
           (double)atomic_load(&shared->fences) / STEPPED, who,
           (double)atomic_load(&shared->instructions) / STEPPED);
    return locked;
}

/* The driver submits while the only worker is busy, and takes when all is done: so neither wakes the
 * other, as in a program that has much to do. */
static double count_submitter(void)
{
    double sum = 0;

    atomic_store(&shared->blocked, 0);
    atomic_store(&shared->open, 0);
    moray_ref blocker = moray_call(block);
    while (!atomic_load(&shared->blocked))
        usleep(100);
    if (stepping_begin(getpid())) {
        submit(STEPPED);
        stepping_end(false);
        sum += tell_steps("submit");
    } else {
        submit(STEPPED);
    }
    atomic_store(&shared->open, 1);
    moray_take_as(int64_t, blocker);
    usleep(20000);
    if (stepping_begin(getpid())) {
        take(STEPPED);
        stepping_end(false);
        sum += tell_steps("take");
    } else {
        take(STEPPED);
    }
    return sum;
}

static double count_worker(pid_t worker)
{
    bool is_stepped;
    size_t ready = 0;

    submit(1);
    take(1); /* awake */
    is_stepped = stepping_begin(worker);
    submit(STEPPED);
    do /* without waiting, which would cost the worker a wake-up */
        usleep(1000);
    while (moray_wait(refs, STEPPED, STEPPED, NULL, &ready, NULL, NULL, MORAY_NOW, 0) == MORAY_OK &&
           ready < STEPPED);
    take(STEPPED);
    if (!is_stepped)
        return 0;
    stepping_end(true);
    return tell_steps("worker");
}

static void count_local(pid_t stepper)
{
    pid_t worker = (pid_t)moray_take_as(int64_t, moray_call(allow, (int64_t)stepper));
    double sum = count_submitter();

    sum += count_worker(worker);
    if (atomic_load(&shared->failed))
        printf(" atomics=unknown");
    printf(" messages=0 bytes=0 value=%.2f\n", sum);
}

/* What rank 0 sent and received. */
static void tell_fabric(const struct fabric_counts *before, const struct fabric_counts *after,
                        int count)
{
    double messages = (double)(after->messages_sent - before->messages_sent +
                               after->messages_received - before->messages_received) /
                      count;
    double bytes = (double)(after->bytes_sent - before->bytes_sent + after->bytes_received -
                            before->bytes_received) /
                   count;
    printf(" messages=%.4f bytes=%.1f frames_sent=%.4f bells=%.4f value=%.6f\n", messages, bytes,
           (double)(after->frames_sent - before->frames_sent) / count,
           (double)(after->bells - before->bells) / count, messages);
}

int main(int argc, char **argv)
{
    bool is_across = argc > 1 && !strcmp(argv[1], "across");
    bool is_quick = argc > 2 && !strcmp(argv[2], "quick");
    int count = is_quick ? BATCH : 20 * BATCH;
    struct fabric_counts before = {0}, after = {0};
    pid_t stepper = 0;
    char line[64];

    moray_init(&argc, &argv);
    submit(BATCH);
    take(BATCH);
    if (!is_across) {
        stepper = start_stepper();
        prctl(PR_SET_PTRACER, stepper);
    }
    while (fgets(line, sizeof line, stdin) && !strncmp(line, "run", 3)) {
        int64_t allocated = allocations_now(is_across);
        if (is_across)
            fabric_counts(agent.fabric, &before);
        for (int done = 0; done < count; done += BATCH)
            submit(BATCH), take(BATCH);
        if (is_across)
            fabric_counts(agent.fabric, &after);
        printf("tasks=%d allocations=%.4f", count,
               (double)(allocations_now(is_across) - allocated) / count);
        if (is_across)
            tell_fabric(&before, &after, count);
        else
            count_local(stepper);
        fflush(stdout);
    }
    if (stepper > 0) {
        kill(stepper, SIGKILL);
        waitpid(stepper, NULL, 0);
    }
    return moray_finalize();
}
