#include "node/guard.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "store/arena/window.h"

enum { LINE_BYTES = 512, PROCESS_BYTES = 64, NULL_PAGE = 65536 };

static const struct {
    int number;
    const char *name;
} guarded[] = {{SIGSEGV, "SIGSEGV"},
               {SIGBUS, "SIGBUS"},
               {SIGABRT, "SIGABRT"},
               {SIGFPE, "SIGFPE"},
               {SIGILL, "SIGILL"}};
enum { GUARDED_COUNT = sizeof(guarded) / sizeof(*guarded) };

static struct {
    struct guard_options options;
    char process[PROCESS_BYTES];
    struct sigaction before[GUARDED_COUNT]; /* what each signal did until guard_install() */
    bool is_installed;
} guard;

/* ---- A line, made without stdio (a handler may have interrupted anything) ---- */

struct line {
    char text[LINE_BYTES];
    size_t bytes;
};

static void put(struct line *line, const char *text)
{
    while (*text && line->bytes < LINE_BYTES - 1)
        line->text[line->bytes++] = *text++;
}

static void put_number(struct line *line, uint64_t value, unsigned base)
{
    char digits[24];
    int i = sizeof(digits) - 1;

    digits[i] = 0;
    do
        digits[--i] = "0123456789abcdef"[value % base];
    while (value /= base);
    put(line, &digits[i]);
}

/* ---- What happened ---- */

enum how { HOW_UNKNOWN, HOW_READ, HOW_WRITE };

static enum how how_of(const ucontext_t *context)
{
#if defined(__x86_64__)
    return context->uc_mcontext.gregs[REG_ERR] & 2 ? HOW_WRITE : HOW_READ;
#else
    (void)context;
    return HOW_UNKNOWN;
#endif
}

static uintptr_t stack_pointer(const ucontext_t *context)
{
#if defined(__x86_64__)
    return (uintptr_t)context->uc_mcontext.gregs[REG_RSP];
#elif defined(__aarch64__)
    return (uintptr_t)context->uc_mcontext.sp;
#else
    (void)context;
    return 0;
#endif
}

static const char *verb(enum how how)
{
    return how == HOW_WRITE ? "wrote to" : how == HOW_READ ? "read from" : "touched";
}

static const char *reason_in_window(const void *address, uint32_t window, uint64_t offset,
                                    enum how how, int signal_number)
{
    const char *better = NULL;

    if (guard.options.explain)
        better = guard.options.explain(address, how == HOW_WRITE);
    if (better)
        return better;
    if (signal_number == SIGBUS)
        return "the host has no memory left for a page of the arena, at";
    if (!window_bytes(window))
        return how == HOW_WRITE ? "wrote to an arena that is not mapped here"
                                : "read from an arena that is not mapped here";
    if (offset >= window_bytes(window))
        return how == HOW_WRITE ? "wrote past the end of an arena"
                                : "read past the end of an arena";
    if (window_is_ro(address))
        return how == HOW_WRITE ? "wrote to a read-only object" : "read an object that was removed";
    if (!window_of(window)->writable)
        return how == HOW_WRITE ? "wrote to the arena of another rank"
                                : "read the arena of another rank through its writable address";
    return how == HOW_WRITE ? "wrote past the end of a buffer" : "read past the end of a buffer";
}

static void put_reason(struct line *line, const siginfo_t *info, const ucontext_t *context)
{
    uintptr_t address = (uintptr_t)info->si_addr, stack = stack_pointer(context);
    enum how how = how_of(context);
    uint32_t window = 0;
    uint64_t offset = 0;

    if (window_find(info->si_addr, &window, &offset)) {
        put(line, reason_in_window(info->si_addr, window, offset, how, info->si_signo));
    } else if (info->si_signo == SIGSEGV && info->si_code == SI_KERNEL) {
        put(line, "used an address that cannot exist");
        return;
    } else if (address < NULL_PAGE) {
        put(line, verb(how));
        put(line, " a null pointer");
    } else if (stack && address + NULL_PAGE > stack && address < stack + NULL_PAGE) {
        put(line, "ran out of stack (deep recursion or a large local array)");
    } else {
        put(line, verb(how));
        put(line, " memory that it does not have");
    }
    put(line, " (0x");
    put_number(line, address, 16);
    put(line, ")");
}

static void put_cause(struct line *line, int index, const siginfo_t *info,
                      const ucontext_t *context)
{
    if (info->si_code <= 0 && info->si_pid != getpid()) {
        put(line, "got the signal from process ");
        put_number(line, (uint64_t)info->si_pid, 10);
    } else if (info->si_signo == SIGABRT) {
        put(line, "aborted (a failed assertion, or abort())");
    } else if (info->si_code <= 0) {
        put(line, "raised the signal itself");
    } else if (info->si_signo == SIGFPE) {
        put(line, info->si_code == FPE_INTDIV ? "divided an integer by zero" : "arithmetic fault");
    } else if (info->si_signo == SIGILL) {
        put(line, "ran an instruction that this processor does not have");
    } else {
        put_reason(line, info, context);
    }
    put(line, ": ");
    put(line, guarded[index].name);
    put(line, "\n");
}

static void say(int index, const siginfo_t *info, const ucontext_t *context)
{
    struct line line = {.bytes = 0};
    const char *task = guard.options.task ? guard.options.task() : NULL;

    put(&line, "moray: rank ");
    put_number(&line, guard.options.rank, 10);
    put(&line, ", ");
    put(&line, guard.process);
    put(&line, " (pid ");
    put_number(&line, (uint64_t)getpid(), 10);
    put(&line, ")");
    if (task) {
        put(&line, ", task ");
        put(&line, task);
    }
    put(&line, ": ");
    put_cause(&line, index, info, context);
    if (write(STDERR_FILENO, line.text, line.bytes) < 0)
        return; /* nobody listens: the signal still tells */
}

/* ---- Handlers ---- */

/* Says it, puts the old action back, and lets the signal come again: a fault by returning to the
 * instruction, one that was sent by sending it again. */
static void on_signal(int number, siginfo_t *info, void *context)
{
    int index = 0, saved = errno;

    while (index < GUARDED_COUNT - 1 && guarded[index].number != number)
        index++;
    say(index, info, context);
    sigaction(number, &guard.before[index], NULL);
    if (info->si_code <= 0) /* abort() would do so itself; a kill would not */
        syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), number);
    errno = saved;
}

void guard_thread(void)
{
    enum { STACK_BYTES = 64 << 10 };
    stack_t stack = {.ss_size = STACK_BYTES}, before;

    if (!sigaltstack(NULL, &before) && !(before.ss_flags & SS_DISABLE))
        return; /* a sanitizer's, or ours */
    stack.ss_sp = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack.ss_sp != MAP_FAILED)
        sigaltstack(&stack, NULL);
}

/* Libraries of fabrics (libinfinipath, libpsm2), which libfabric brings along, catch faults as they are
 * loaded, print addresses and exit with status 1: then nobody would learn of the signal. */
static bool is_fabric_library(const struct sigaction *action)
{
    Dl_info where;

    if (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN ||
        !dladdr((void *)(uintptr_t)action->sa_sigaction, &where) || !where.dli_fname)
        return false;
    return strstr(where.dli_fname, "/libinfinipath.") || strstr(where.dli_fname, "/libpsm2.");
}

void guard_install(const struct guard_options *options)
{
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

    guard.options = *options;
    snprintf(guard.process, sizeof(guard.process), "%s", options->process ? options->process : "?");
    guard.options.process = guard.process;
    guard_thread();
    if (guard.is_installed)
        return;
    guard.is_installed = true;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < GUARDED_COUNT; i++) {
        sigaction(guarded[i].number, &action, &guard.before[i]);
        if (is_fabric_library(&guard.before[i]))
            guard.before[i] = (struct sigaction){.sa_handler = SIG_DFL};
    }
}
