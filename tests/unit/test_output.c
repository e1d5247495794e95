/** What workers print comes out in whole lines, soon, in order, and never stops the agent. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "node/output.h"

enum { PIECE_MAX = 1 << 20 };
#define SECOND_NS ((uint64_t)1000000000)

static struct output *output;
static struct output_options options;
static int out[2], err[2]; /* where the rank's stdout and stderr go: read end, write end */
static struct moray_error error;
static char text[PIECE_MAX + 1];

static void setup(void)
{
    ck_assert_int_eq(pipe2(out, O_NONBLOCK), 0);
    ck_assert_int_eq(pipe2(err, O_NONBLOCK), 0);
    options = (struct output_options){.out_fd = out[1], .err_fd = err[1], .rank = 2};
}

static void create(void)
{
    ck_assert_msg(!output_create(&options, &output, &error), "%s", error.text);
}

/* A process that prints: its two write ends. */
static void add(uint16_t slot, int ends[2])
{
    int a[2], b[2];

    ck_assert_int_eq(pipe(a), 0);
    ck_assert_int_eq(pipe(b), 0);
    ends[0] = a[1];
    ends[1] = b[1];
    ck_assert_int_eq(output_add(output, slot, 1, 100 + slot, a[0], b[0], "total", &error),
                     MORAY_OK);
}

static void print(int fd, const char *words)
{
    ck_assert_int_eq(write(fd, words, strlen(words)), (ssize_t)strlen(words));
}

/* What has come out since the last look. */
static const char *seen(int fd)
{
    ssize_t got = read(fd, text, PIECE_MAX);

    text[got > 0 ? got : 0] = 0;
    return text;
}

static bool is_readable(int fd)
{
    return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0) == 1;
}

START_TEST(only_whole_lines_come_out)
{
    int a[2], b[2];

    create();
    add(0, a);
    add(7, b);
    print(a[0], "one ");
    print(b[0], "two ");
    output_poll(output, 0);
    ck_assert_str_eq(seen(out[0]), "");
    print(a[0], "first\nthr");
    print(b[0], "second\n");
    output_poll(output, 1);
    const char *lines = seen(out[0]);
    ck_assert(!strcmp(lines, "one first\ntwo second\n") ||
              !strcmp(lines, "two second\none first\n"));
    print(a[1], "trouble\n");
    output_poll(output, 2);
    ck_assert_str_eq(seen(err[0]), "trouble\n");
    output_finish(output, 0, 1, 3);
    ck_assert_str_eq(seen(out[0]), "thr\n");
    ck_assert(output_destroy(output, 0));
}
END_TEST

START_TEST(the_epoll_tells_when_to_poll)
{
    int a[2];

    create();
    add(0, a);
    ck_assert(!is_readable(output_fd(output)));
    print(a[0], "x\n");
    ck_assert(is_readable(output_fd(output)));
    output_poll(output, 0);
    ck_assert(!is_readable(output_fd(output)));
    close(a[0]);
    close(a[1]);
    ck_assert(is_readable(output_fd(output)));
    output_poll(output, 0);
    ck_assert(!is_readable(output_fd(output))); /* an ended pipe is not asked again */
    ck_assert(output_destroy(output, 0));
}
END_TEST

START_TEST(the_rest_of_a_line_comes_after_a_second)
{
    int a[2];

    create();
    add(0, a);
    ck_assert_uint_eq(output_next_ns(output), UINT64_MAX);
    print(a[0], "whole\npart");
    output_poll(output, 5 * SECOND_NS);
    ck_assert_str_eq(seen(out[0]), "whole\n");
    ck_assert_uint_eq(output_next_ns(output), 6 * SECOND_NS);
    print(a[0], " of it"); /* more of the same line does not put it off */
    output_poll(output, 5 * SECOND_NS + SECOND_NS / 2);
    ck_assert_uint_eq(output_next_ns(output), 6 * SECOND_NS);
    output_poll(output, 6 * SECOND_NS - 1);
    ck_assert_str_eq(seen(out[0]), "");
    output_poll(output, 6 * SECOND_NS);
    ck_assert_str_eq(seen(out[0]), "part of it\n");
    ck_assert_uint_eq(output_next_ns(output), UINT64_MAX);
    ck_assert(output_destroy(output, 0));
}
END_TEST

START_TEST(lines_are_marked_on_request)
{
    int a[2];

    options.mark = true;
    create();
    add(3, a);
    print(a[0], "one\n\ntw");
    output_poll(output, 0);
    ck_assert_str_eq(seen(out[0]), "(total pid=103, rank 2) one\n(total pid=103, rank 2) \n");
    output_label(output, 3, "norm2");
    output_label(output, 99, "nobody");
    print(a[0], "o\n");
    output_poll(output, 0);
    ck_assert_str_eq(seen(out[0]), "(norm2 pid=103, rank 2) two\n");
    ck_assert(output_destroy(output, 0));
}
END_TEST

START_TEST(what_a_dead_process_printed_comes_out)
{
    int a[2], b[2];

    create();
    add(0, a);
    print(a[0], "before the kill\nlast words");
    close(a[0]);
    close(a[1]);
    output_finish(output, 0, 2, 0); /* another incarnation */
    ck_assert_str_eq(seen(out[0]), "");
    output_finish(output, 0, 1, 0);
    ck_assert_str_eq(seen(out[0]), "before the kill\nlast words\n");
    output_finish(output, 0, 1, 0);
    output_finish(output, 60000, 1, 0);
    add(0, b); /* the slot serves again */
    print(b[0], "next\n");
    output_poll(output, 0);
    ck_assert_str_eq(seen(out[0]), "next\n");
    ck_assert(output_destroy(output, 0));
}
END_TEST

START_TEST(a_child_that_keeps_the_pipe_open_holds_nobody_up)
{
    int a[2];

    create();
    add(0, a);
    print(a[0], "mine\n");
    output_finish(output, 0, 1, 0); /* a[0] is still open, as in a child of the process */
    ck_assert_str_eq(seen(out[0]), "mine\n");
    signal(SIGPIPE, SIG_IGN);
    ck_assert_int_eq(write(a[0], "x", 1), -1); /* and hears of it */
    ck_assert(output_destroy(output, 0));
}
END_TEST

START_TEST(a_long_line_comes_in_bounded_pieces)
{
    int a[2];

    options.line_bytes_max = 1000;
    create();
    add(0, a);
    for (int i = 0; i < 25; i++)
        print(a[0],
              "0123456789012345678901234567890123456789012345678901234567890123456789012345678"
              "901234567890123456789");
    print(a[0], "\n");
    output_poll(output, 0);
    const char *lines = seen(out[0]);
    ck_assert_uint_eq(strlen(lines), 2500 + 3);
    ck_assert_ptr_eq(strchr(lines, '\n'), lines + 1000);
    ck_assert(output_destroy(output, 0));
}
END_TEST

/* The rank's stdout takes nothing: the agent goes on, the printer waits, and nothing is lost. */
START_TEST(a_stuck_stdout_stops_the_printer_only)
{
    enum { LINES = 40000 };
    int a[2], status;
    size_t lines = 0, bytes = 0;

    options.pending_bytes_max = 100000;
    create();
    add(0, a);
    pid_t pid = fork();
    if (!pid) {
        FILE *file = fdopen(a[0], "w");
        for (int i = 0; i < LINES; i++)
            fprintf(file, "line %6d\n", i);
        fclose(file);
        _exit(0);
    }
    close(a[0]);
    close(a[1]);
    for (int i = 0; i < 200; i++) { /* nobody reads: this must return each time */
        output_poll(output, 0);
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
    ck_assert_int_eq(waitpid(pid, &status, WNOHANG), 0); /* it waits */
    ck_assert(!is_readable(output_fd(output)));          /* and nobody spins meanwhile */
    for (int i = 0; i < 20000 && lines < LINES; i++) {
        const char *piece = seen(out[0]);
        bytes += strlen(piece);
        for (const char *p = piece; (p = strchr(p, '\n')); p++)
            lines++;
        output_poll(output, 0);
    }
    ck_assert_uint_eq(lines, LINES);
    ck_assert_uint_eq(bytes, LINES * strlen("line 123456\n"));
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(output_destroy(output, 0));
}
END_TEST

START_TEST(a_closed_stdout_is_no_death)
{
    int a[2];

    create();
    add(0, a);
    close(out[0]);
    print(a[0], "nobody reads\n");
    output_poll(output, 0);
    print(a[0], "this\n");
    print(a[1], "but here\n");
    output_poll(output, 0);
    ck_assert_str_eq(seen(err[0]), "but here\n");
    ck_assert(!output_destroy(output, 0));
}
END_TEST

START_TEST(a_stuck_stdout_ends_with_the_limit)
{
    int a[2];
    struct timespec from, to;
    static char much[60000];

    create();
    add(0, a);
    memset(much, 'x', sizeof(much) - 2);
    much[sizeof(much) - 2] = '\n';
    for (int i = 0; i < 3; i++) {
        print(a[0], much);
        output_poll(output, 0);
    }
    clock_gettime(CLOCK_MONOTONIC, &from);
    ck_assert(!output_destroy(output, 200));
    clock_gettime(CLOCK_MONOTONIC, &to);
    ck_assert_int_le(to.tv_sec - from.tv_sec, 3);
}
END_TEST

/* mpirun gives a rank a pseudo-terminal, srun a pipe, other launchers a socket or a file. */
START_TEST(every_kind_of_stdout_works)
{
    int ends[2], a[2];
    char path[] = "/tmp/moray-test-XXXXXX";
    char got[64] = "";

    if (_i == 0) {
        ck_assert_int_eq(openpty(&ends[0], &ends[1], NULL, NULL, NULL), 0);
    } else if (_i == 1) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    } else {
        ends[1] = mkstemp(path);
        ends[0] = open(path, O_RDONLY);
        unlink(path);
        print(ends[1], "driver\n"); /* the position of the file is shared with the driver's */
    }
    options.out_fd = ends[1];
    create();
    add(0, a);
    print(a[0], "hello\n");
    output_poll(output, 0);
    if (_i == 2)
        print(ends[1], "driver\n");
    ck_assert_int_eq(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0); /* the given one is as it was */
    ck_assert_int_gt(read(ends[0], got, sizeof(got) - 1), 0);
    ck_assert_str_eq(got, _i == 0 ? "hello\r\n" : _i == 1 ? "hello\n" : "driver\nhello\ndriver\n");
    ck_assert(output_destroy(output, 0));
}
END_TEST

/* As whole lines of many writers: each line in one write, none mixed. */
START_TEST(lines_of_many_processes_do_not_mix)
{
    enum { PROCESSES = 8, EACH = 500 };
    int next[PROCESSES] = {0}, done = 0;
    FILE *lines;
    char line[64];

    create();
    for (int i = 0; i < PROCESSES; i++) {
        int a[2];
        add((uint16_t)i, a);
        if (!fork()) {
            for (int k = 0; k < EACH; k++) {
                dprintf(a[0], "%d", i);
                dprintf(a[0], " says %d\n", k);
            }
            _exit(0);
        }
        close(a[0]);
        close(a[1]);
    }
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    lines = fdopen(out[0], "r");
    for (int spins = 0; done < PROCESSES * EACH && spins < 100000; spins++) {
        int who, what;
        output_poll(output, 0);
        while (fgets(line, sizeof(line), lines)) {
            ck_assert_msg(sscanf(line, "%d says %d\n", &who, &what) == 2, "%s", line);
            ck_assert_int_eq(what, next[who]);
            next[who]++;
            done++;
        }
        clearerr(lines);
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    ck_assert_int_eq(done, PROCESSES * EACH);
    ck_assert(output_destroy(output, 0));
    while (wait(NULL) > 0)
        continue;
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node/output");
    TCase *laws = tcase_create("laws");
    SRunner *runner = srunner_create(suite);

    tcase_set_timeout(laws, 30);
    tcase_add_checked_fixture(laws, setup, NULL);
    tcase_add_test(laws, only_whole_lines_come_out);
    tcase_add_test(laws, the_epoll_tells_when_to_poll);
    tcase_add_test(laws, the_rest_of_a_line_comes_after_a_second);
    tcase_add_test(laws, lines_are_marked_on_request);
    tcase_add_test(laws, what_a_dead_process_printed_comes_out);
    tcase_add_test(laws, a_child_that_keeps_the_pipe_open_holds_nobody_up);
    tcase_add_test(laws, a_long_line_comes_in_bounded_pieces);
    tcase_add_test(laws, a_stuck_stdout_stops_the_printer_only);
    tcase_add_test(laws, a_closed_stdout_is_no_death);
    tcase_add_test(laws, a_stuck_stdout_ends_with_the_limit);
    tcase_add_loop_test(laws, every_kind_of_stdout_works, 0, 3);
    tcase_add_test(laws, lines_of_many_processes_do_not_mix);
    suite_add_tcase(suite, laws);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
