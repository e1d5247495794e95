/** The last words of a process: one line that says who did what, and then the signal's own death. */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/guard.h"
#include "store/arena/window.h"

enum { MIB = 1 << 20 };

static const char *task_name;

static const char *task(void)
{
    return task_name;
}

static const char *explain(const void *address, int is_write)
{
    return is_write && window_is_ro(address) ? "wrote through a view of shard 7" : NULL;
}

static struct guard_options options = {.rank = 3, .process = "worker 5", .task = task};

/* ---- What goes wrong ---- */

static void write_object(void)
{
    *(volatile char *)window_ro(0, 4096) = 1;
}
static void write_past_buffer(void)
{
    mprotect(window_rw(0, MIB), 4096, PROT_NONE);
    memset(window_rw(0, MIB - 100), 1, 101);
}
static void read_past_buffer(void)
{
    mprotect(window_rw(0, MIB), 4096, PROT_NONE);
    (void)*(volatile char *)window_rw(0, MIB);
}
static void write_unmapped_peer(void)
{
    *(volatile char *)window_rw(1, 0) = 1;
}
static void write_past_arena(void)
{
    *(volatile char *)window_rw(0, 4 * MIB) = 1;
}
static void write_null(void)
{
    volatile uintptr_t address = 16; /* the compiler must not see it */

    *(volatile int *)address = 1;
}
static void read_wild(void)
{
    char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)*(volatile char *)page;
}
static void read_impossible(void)
{
    volatile uintptr_t address = 0x8123456789000000;

    (void)*(volatile char *)address;
}
static void fail_assertion(void)
{
    abort();
}
#if defined(__x86_64__) /* elsewhere it is no fault */
static void divide(void)
{
    int zero = 0, quotient = 7;

    /* in assembly, since sanitizers see a division */
    __asm__ volatile("cltd\n\tidivl %1" : "+a"(quotient) : "r"(zero) : "edx", "cc");
}
#endif
static void touch_beyond_file(void)
{
    int fd = memfd_create("short", 0);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    page[0] = 1;
}
static void raise_segv(void)
{
    raise(SIGSEGV);
}
static int deep(int depth)
{
    volatile char frame[4096];

    frame[0] = (char)depth;
    return depth < 0 ? 0 : deep(depth + 1) + frame[0];
}
static void overflow(void)
{
    setrlimit(RLIMIT_STACK, &(struct rlimit){.rlim_cur = MIB, .rlim_max = RLIM_INFINITY});
    deep(1);
}
static void kill_me(void)
{
    if (!fork()) {
        kill(getppid(), SIGSEGV);
        _exit(0);
    }
    sleep(10);
}

/* Runs `wrong` in a guarded process. Returns what it said; `*signal_number` gets its end. */
static const char *last_words(void (*wrong)(void), int *signal_number)
{
    static char text[4096];
    int words[2], status;
    size_t used = 0;
    ssize_t got;

    ck_assert_int_eq(pipe(words), 0);
    pid_t pid = fork();
    if (!pid) {
        for (int number = 1; number < 32; number++) /* Check's own handlers */
            signal(number, SIG_DFL);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0});
        dup2(words[1], STDERR_FILENO);
        close(words[0]);
        close(words[1]);
        guard_install(&options);
        wrong();
        _exit(99);
    }
    close(words[1]);
    while ((got = read(words[0], text + used, sizeof(text) - 1 - used)) > 0)
        used += (size_t)got;
    text[used] = 0;
    close(words[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSIGNALED(status), "status %x, said: %s", status, text);
    *signal_number = WTERMSIG(status);
    return text;
}

static const struct {
    void (*wrong)(void);
    int signal_number;
    const char *said;
} cases[] = {
    {write_object, SIGSEGV, "wrote to a read-only object (0x7e8"},
    {write_past_buffer, SIGSEGV, "wrote past the end of a buffer (0x7e8"},
    {read_past_buffer, SIGSEGV, "read past the end of a buffer (0x7e8"},
    {write_unmapped_peer, SIGSEGV, "wrote to an arena that is not mapped here (0x7e8"},
    {write_past_arena, SIGSEGV, "wrote past the end of an arena (0x7e8"},
    {write_null, SIGSEGV, "wrote to a null pointer (0x10)"},
    {read_wild, SIGSEGV, "read from memory that it does not have (0x"},
    {read_impossible, SIGSEGV, "used an address that cannot exist"},
    {fail_assertion, SIGABRT, "aborted (a failed assertion, or abort())"},
#if defined(__x86_64__)
    {divide, SIGFPE, "divided an integer by zero"},
#endif
    {touch_beyond_file, SIGBUS, "memory that it does not have"},
    {raise_segv, SIGSEGV, "raised the signal itself"},
    {overflow, SIGSEGV, "ran out of stack"},
    {kill_me, SIGSEGV, "got the signal from process "},
};
enum { CASE_COUNT = sizeof(cases) / sizeof(*cases) };

static void open_windows(void)
{
    struct window_options windows = {.local_count = 2, .bytes = 4 * MIB};

    ck_assert_int_eq(window_open(&windows, NULL), MORAY_OK);
}

START_TEST(each_end_is_told_in_one_line_and_is_the_signals)
{
    int signal_number;
    const char *text;

    task_name = "total";
    text = last_words(cases[_i].wrong, &signal_number);
    ck_assert_int_eq(signal_number, cases[_i].signal_number);
    ck_assert_msg(strstr(text, cases[_i].said), "said: %s", text);
    ck_assert_msg(!strncmp(text, "moray: rank 3, worker 5 (pid ", 29), "said: %s", text);
    ck_assert_msg(strstr(text, "), task total: "), "said: %s", text);
    ck_assert_ptr_eq(strchr(text, '\n'), text + strlen(text) - 1);
}
END_TEST

START_TEST(the_arena_may_know_better)
{
    int signal_number;

    options.explain = explain;
    const char *text = last_words(write_object, &signal_number);
    ck_assert_msg(strstr(text, "): wrote through a view of shard 7 (0x"), "said: %s", text);
    ck_assert(!strstr(text, "task"));
    text = last_words(write_past_arena, &signal_number);
    ck_assert_msg(strstr(text, "wrote past the end of an arena"), "said: %s", text);
}
END_TEST

static void users_handler(int number)
{
    static const char words[] = "the user's handler\n";

    (void)number;
    _exit(write(STDERR_FILENO, words, sizeof(words) - 1) < 0 ? 1 : 42);
}

START_TEST(a_handler_of_the_users_runs_after_ours)
{
    int words[2], status;
    char text[512] = "";

    ck_assert_int_eq(pipe(words), 0);
    pid_t pid = fork();
    if (!pid) {
        dup2(words[1], STDERR_FILENO);
        signal(SIGSEGV, users_handler);
        guard_install(&options);
        guard_install(&options); /* a second time changes nothing */
        write_object();
        _exit(99);
    }
    close(words[1]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(WEXITSTATUS(status), 42);
    ck_assert_int_gt(read(words[0], text, sizeof(text) - 1), 0);
    ck_assert(strstr(text, "read-only object") && strstr(text, "the user's handler"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node/guard");
    TCase *laws = tcase_create("laws");
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(laws, 20);
    tcase_add_checked_fixture(laws, open_windows, window_close);
    tcase_add_loop_test(laws, each_end_is_told_in_one_line_and_is_the_signals, 0, CASE_COUNT);
    tcase_add_test(laws, the_arena_may_know_better);
    tcase_add_test(laws, a_handler_of_the_users_runs_after_ours);
    suite_add_tcase(suite, laws);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
