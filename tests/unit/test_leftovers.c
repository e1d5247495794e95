/** What Open MPI leaves is removed: of a dead launcher, and of no other. */
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "node/leftovers.h"

static char base[64]; /* a temporary directory */
static pid_t launcher;

/* A process that is called mpirun, sleeps, and may have a child that runs `inside`. */
static void start_launcher(int (*inside)(void))
{
    launcher = fork();
    if (launcher)
        return;
    launcher = getpid();
    prctl(PR_SET_NAME, "mpirun");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (inside) {
        pid_t shell = fork(); /* a shell between the two */
        if (!shell) {
            prctl(PR_SET_NAME, "sh");
            pid_t rank = fork();
            if (!rank)
                _exit(inside());
            int status;
            waitpid(rank, &status, 0);
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 99);
        }
        int status;
        waitpid(shell, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 99);
    }
    for (;;)
        pause();
}

static int end_launcher(void)
{
    int status;

    ck_assert_int_eq(waitpid(launcher, &status, 0), launcher);
    return status;
}

static void make_file(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0600);

    ck_assert_msg(fd >= 0, "%s", path);
    close(fd);
}

static bool is_there(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

/* ompi.HOST.UID/pid.PID with a store of job 0x7a5b0001 in it, as mpirun makes it. */
static void make_session(const char *session)
{
    char path[PATH_MAX + 64];

    snprintf(path, sizeof path, "%s", session);
    *strrchr(path, '/') = 0;
    mkdir(path, 0700);
    ck_assert_int_eq(mkdir(session, 0700), 0);
    snprintf(path, sizeof path, "%s/pmix_dstor_1", session);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/pmix_dstor_1/smseg-2052784129-0", session);
    make_file(path);
    snprintf(path, sizeof path, "%s/link", session);
    ck_assert_int_eq(symlink(base, path), 0);
}

static void set_up(void)
{
    strcpy(base, "/tmp/moray-leftovers.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(base));
    setenv("TMPDIR", base, 1);
    unsetenv("OMPI_MCA_orte_tmpdir_base");
    unsetenv("OMPI_MCA_orte_local_tmpdir_base");
}

static void clean_up(void)
{
    rmdir(base);
}

START_TEST(a_dead_launchers_files_go)
{
    struct leftovers leftovers;
    char own[128], other[128], above[PATH_MAX];

    start_launcher(NULL);
    leftovers_of_mpirun(launcher, &leftovers);
    ck_assert_int_eq(leftovers.launcher, launcher);
    make_session(leftovers.session);
    snprintf(own, sizeof own, "/dev/shm/vader_segment.test-%d.0.7a5b0001.2", (int)getpid());
    snprintf(other, sizeof other, "/dev/shm/vader_segment.test-%d.0.7a5c0001.2", (int)getpid());
    make_file(own);
    make_file(other);

    ck_assert(!leftovers_remove(&leftovers, 20)); /* it lives: nothing happens */
    ck_assert(is_there(leftovers.session) && is_there(own));

    kill(launcher, SIGKILL);
    ck_assert(leftovers_remove(&leftovers, 2000)); /* dead, though not yet reaped */
    end_launcher();
    ck_assert(!is_there(leftovers.session));
    ck_assert(!is_there(own));
    ck_assert_msg(is_there(other), "a segment of another job is gone");
    ck_assert_msg(is_there(base), "it followed a link");
    snprintf(above, sizeof above, "%s", leftovers.session);
    *strrchr(above, '/') = 0;
    ck_assert(!is_there(above));
    unlink(other);
}
END_TEST

START_TEST(the_directory_above_stays_while_another_uses_it)
{
    struct leftovers leftovers;
    char other[PATH_MAX + 16];

    start_launcher(NULL);
    leftovers_of_mpirun(launcher, &leftovers);
    make_session(leftovers.session);
    snprintf(other, sizeof other, "%s9", leftovers.session);
    ck_assert_int_eq(mkdir(other, 0700), 0);
    kill(launcher, SIGKILL);
    ck_assert(leftovers_remove(&leftovers, 2000));
    end_launcher();
    ck_assert(!is_there(leftovers.session));
    ck_assert(is_there(other));
    rmdir(other);
    *strrchr(other, '/') = 0;
    rmdir(other);
}
END_TEST

START_TEST(no_other_directory_is_ever_removed)
{
    struct leftovers leftovers;
    char precious[128];

    snprintf(precious, sizeof precious, "%s/precious", base);
    ck_assert_int_eq(mkdir(precious, 0700), 0);
    start_launcher(NULL);
    leftovers_of_mpirun(launcher, &leftovers);
    strcpy(leftovers.session, precious);
    kill(launcher, SIGKILL);
    ck_assert(leftovers_remove(&leftovers, 2000));
    end_launcher();
    ck_assert(is_there(precious));
    rmdir(precious);
}
END_TEST

START_TEST(a_pid_that_is_used_again_is_no_launcher)
{
    struct leftovers leftovers;

    start_launcher(NULL);
    leftovers_of_mpirun(launcher, &leftovers);
    leftovers.launcher_start++; /* as if the process were a younger one */
    ck_assert(leftovers_remove(&leftovers, 0));
    kill(launcher, SIGKILL);
    end_launcher();
}
END_TEST

static int in_a_rank(void)
{
    static char *const environment[] = {"OMPI_MCA_orte_jobfam_session_dir=/tmp/ompi.n.0/pid.5",
                                        "OMPI_MCA_ess_base_jobid=2052784129", NULL};
    struct leftovers leftovers;

    if (!leftovers_of_rank(environment, &leftovers))
        return 1;
    if (strcmp(leftovers.session, "/tmp/ompi.n.0/pid.5") || leftovers.family != 0x7a5b)
        return 2;
    return leftovers.launcher == launcher && leftovers.launcher_start ? 0 : 3;
}

START_TEST(a_rank_knows_its_launcher_behind_a_shell)
{
    start_launcher(in_a_rank);
    int status = end_launcher();
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

START_TEST(without_open_mpi_there_is_nothing)
{
    static char *const environment[] = {"PATH=/bin", NULL};
    struct leftovers leftovers;

    ck_assert(!leftovers_of_rank(environment, &leftovers));
    ck_assert(!leftovers_remove(&leftovers, 0));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("leftovers");
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, set_up, clean_up);
    tcase_add_test(laws, a_dead_launchers_files_go);
    tcase_add_test(laws, the_directory_above_stays_while_another_uses_it);
    tcase_add_test(laws, no_other_directory_is_ever_removed);
    tcase_add_test(laws, a_pid_that_is_used_again_is_no_launcher);
    tcase_add_test(laws, a_rank_knows_its_launcher_behind_a_shell);
    tcase_add_test(laws, without_open_mpi_there_is_nothing);
    suite_add_tcase(suite, laws);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
