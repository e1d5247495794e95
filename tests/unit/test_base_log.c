#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/futex.h"
#include "base/log.h"
#include "base/time.h"
#include "tests/unit/law.h"

static char text[1 << 20];
static int ends[2];

static void setup(void)
{
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) >= 1 << 16);
    log_to(ends[1]);
}

static void teardown(void)
{
    log_to(STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
}

static const char *said(void)
{
    ssize_t bytes;

    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    bytes = read(ends[0], text, sizeof(text) - 1);
    text[bytes < 0 ? 0 : bytes] = '\0';
    return text;
}

START_TEST(a_line_says_who_speaks)
{
    char host[64], line[256];

    log_start(LOG_WARNING, 3);
    gethostname(host, sizeof(host));
    errno = ENOENT;
    log_warning("%d things", 2);
    ck_assert_int_eq(errno, ENOENT);
    snprintf(line, sizeof(line), "moray: rank 3 host %s pid %d: warning: 2 things\n", host,
             (int)getpid());
    ck_assert_str_eq(said(), line);
}
END_TEST

START_TEST(quiet_from_info_on_unless_asked)
{
    int computed = 0;

    log_start(LOG_WARNING, 0);
    log_info("%d", ++computed);
    log_debug("%d", ++computed);
    ck_assert_str_eq(said(), "");
    ck_assert_int_eq(computed, 0);
    log_start(LOG_DEBUG, 0);
    log_debug("%d", ++computed);
    ck_assert(strstr(said(), ": 1\n") != NULL);
}
END_TEST

START_TEST(a_text_stays_one_line_and_is_cut)
{
    char large[5000];

    memset(large, 'a', sizeof(large));
    large[sizeof(large) - 1] = '\0';
    log_start(LOG_WARNING, 0);
    log_error("two\nlines");
    ck_assert(strstr(said(), "error: two lines\n") != NULL);
    log_error("%s", large);
    said();
    ck_assert_uint_lt(strlen(text), 2200);
    ck_assert_ptr_eq(strchr(text, '\n'), text + strlen(text) - 1);
}
END_TEST

/* Four processes write 200 lines each; every line arrives whole. */
START_TEST(lines_of_many_processes_do_not_mix)
{
    for (int child = 0; child < 4; child++)
        if (fork() == 0) {
            log_start(LOG_ERROR, child);
            for (int i = 0; i < 200; i++)
                log_error("line %03d of %d end", i, child);
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    int count = 0;
    char *rest = NULL;
    said();
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        int rank, number, of;
        const char *body = strstr(line, "line ");
        ck_assert(body != NULL);
        ck_assert_int_eq(sscanf(line, "moray: rank %d", &rank), 1);
        ck_assert_msg(sscanf(body, "line %d of %d end", &number, &of) == 2 && of == rank, "%s",
                      line);
        count++;
    }
    ck_assert_int_eq(count, 800);
}
END_TEST

START_TEST(time_goes_on_and_limits_do_not_wrap)
{
    uint64_t before = time_ns();

    ck_assert_uint_ge(time_ns(), before);
    ck_assert(time_after(5, 10) == 15);
    ck_assert(time_after(5, TIME_NEVER) == TIME_NEVER);
    ck_assert(time_after(UINT64_MAX - 1, 10) == TIME_NEVER);
    ck_assert(time_left(5, 15) == 10);
    ck_assert(time_left(15, 5) == 0);
    ck_assert(time_left(5, TIME_NEVER) == TIME_NEVER);
}
END_TEST

START_TEST(a_futex_wait_ends_by_value_limit_or_wake)
{
    _Atomic uint32_t *word =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t start;

    ck_assert_ptr_ne((void *)word, MAP_FAILED);
    atomic_store(word, 1);
    errno = EPERM;
    ck_assert(futex_wait(word, 0, TIME_NS_PER_S)); /* another value: at once */
    ck_assert_int_eq(errno, EPERM);
    start = time_ns();
    ck_assert(!futex_wait(word, 1, 20 * TIME_NS_PER_MS));
    ck_assert_uint_ge(time_ns() - start, 20 * TIME_NS_PER_MS);
    ck_assert_int_eq(futex_wake(word, INT_MAX), 0);

    pid_t child = fork(); /* another process: the futex is not private */
    if (child == 0) {
        while (atomic_load(word) == 1)
            futex_wait(word, 1, TIME_NEVER);
        _exit(atomic_load(word) == 2 ? 0 : 1);
    }
    usleep(20000);
    atomic_store(word, 2);
    futex_wake(word, 1);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_uint_lt(time_ns() - start, TIME_NS_PER_S); /* by the wake, not by the look a second */
    munmap((void *)word, 4096);
}
END_TEST

START_TEST(each_code_has_a_name_and_a_meaning)
{
    struct moray_error error;

    ck_assert_str_eq(error_name(MORAY_OK), "MORAY_OK");
    ck_assert_str_eq(error_name(MORAY_LOST), "MORAY_LOST");
    ck_assert_str_eq(error_meaning(MORAY_STALE), "stale reference");
    ck_assert_str_eq(error_name((enum moray_code)9999), "MORAY_UNKNOWN");
    ck_assert_int_eq(error_set(&error, MORAY_FULL, "%d of %d", 1, 2), MORAY_FULL);
    ck_assert_str_eq(error.text, "1 of 2");
    ck_assert_int_eq(error.code, MORAY_FULL);
    ck_assert_int_eq(error_set(NULL, MORAY_FULL, "no room for a story"), MORAY_FULL);
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("log");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, a_line_says_who_speaks);
    tcase_add_test(laws, quiet_from_info_on_unless_asked);
    tcase_add_test(laws, a_text_stays_one_line_and_is_cut);
    tcase_add_test(laws, lines_of_many_processes_do_not_mix);
    tcase_add_test(laws, time_goes_on_and_limits_do_not_wrap);
    tcase_add_test(laws, a_futex_wait_ends_by_value_limit_or_wake);
    tcase_add_test(laws, each_code_has_a_name_and_a_meaning);
    return law_run("log", laws);
}
