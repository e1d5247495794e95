/** What launchers say, on recorded environments; and whether a process may be forked. */
#include <check.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/launch.h"
#include "launch_environments.h"

static struct moray_error error;
static struct launch launch;

static void expect(char *const *environment)
{
    ck_assert_msg(!launch_read(environment, &launch, &error), "%s", error.text);
}

START_TEST(no_launcher_is_one_rank)
{
    expect(environment_none);
    ck_assert_int_eq(launch.kind, LAUNCH_NONE);
    ck_assert(launch.rank == 0 && launch.rank_count == 1);
    ck_assert(launch.local_rank == 0 && launch.local_count == 1);
    ck_assert_int_eq(launch.binding, LAUNCH_UNBOUND);
    ck_assert_str_ne(launch.node, "");
    ck_assert_str_ne(launch.job, "");
    ck_assert_str_eq(launch_kind_name(launch.kind), "none");
}
END_TEST

START_TEST(plain_mpirun_binds_by_default)
{
    expect(environment_mpirun_n2);
    ck_assert_int_eq(launch.kind, LAUNCH_MPIRUN);
    ck_assert(launch.rank == 1 && launch.rank_count == 2);
    ck_assert(launch.local_rank == 1 && launch.local_count == 2);
    ck_assert_int_eq(launch.binding, LAUNCH_BOUND_BY_DEFAULT);
    ck_assert(!launch.oversubscribed);
    ck_assert_str_eq(launch.job, "2037121025");
    ck_assert_str_eq(launch.node, "vm");
    ck_assert_str_eq(launch.node_key, "vm.0");
}
END_TEST

START_TEST(oversubscribed_and_listed_hosts_do_not_bind)
{
    expect(environment_mpirun_oversubscribe_n4);
    ck_assert_int_eq(launch.binding, LAUNCH_UNBOUND);
    ck_assert(launch.oversubscribed);
    ck_assert_uint_eq(launch.rank_count, 4);
    expect(environment_mpirun_host_n4);
    ck_assert_int_eq(launch.binding, LAUNCH_UNBOUND);
    ck_assert(!launch.oversubscribed);
}
END_TEST

START_TEST(a_binding_that_was_asked_for_is_the_users)
{
    expect(environment_mpirun_bind_core_n2);
    ck_assert_int_eq(launch.binding, LAUNCH_BOUND_BY_USER);
    expect(environment_mpirun_bind_none_n2);
    ck_assert_int_eq(launch.binding, LAUNCH_UNBOUND);
    expect(environment_mpirun_pe);
    ck_assert_int_eq(launch.binding, LAUNCH_BOUND_BY_USER);
    ck_assert_uint_eq(launch.cores_asked, 2);
    expect(environment_mpirun_cpus_per_rank);
    ck_assert_int_eq(launch.binding, LAUNCH_BOUND_BY_USER);
    ck_assert_uint_eq(launch.cores_asked, 1);
}
END_TEST

START_TEST(nodes_of_one_name_differ_by_their_daemon)
{
    struct launch first;

    expect(environment_mpirun_two_nodes_a);
    first = launch;
    expect(environment_mpirun_two_nodes_b);
    ck_assert_str_eq(first.node, launch.node);
    ck_assert_str_ne(first.node_key, launch.node_key);
    ck_assert_str_eq(first.job, launch.job);
    ck_assert_uint_eq(launch.local_count, 1);
}
END_TEST

START_TEST(mpirun_within_slurm_is_mpirun)
{
    expect(environment_mpirun_in_slurm);
    ck_assert_int_eq(launch.kind, LAUNCH_MPIRUN);
    ck_assert_uint_eq(launch.rank, 2);
}
END_TEST

START_TEST(srun_with_pmix)
{
    expect(environment_srun);
    ck_assert_int_eq(launch.kind, LAUNCH_SRUN);
    ck_assert(launch.rank == 6 && launch.rank_count == 8);
    ck_assert(launch.local_rank == 0 && launch.local_count == 1); /* node 3 of "2(x3),1,1" */
    ck_assert_int_eq(launch.binding, LAUNCH_UNBOUND);
    ck_assert_uint_eq(launch.cores_asked, 2);
    ck_assert_str_eq(launch.node, "n4");
    ck_assert_str_eq(launch.job, "17.0");
}
END_TEST

START_TEST(srun_with_affinity_is_the_users_binding)
{
    expect(environment_srun_bound);
    ck_assert_int_eq(launch.binding, LAUNCH_BOUND_BY_USER);
}
END_TEST

START_TEST(srun_without_pmix_is_refused)
{
    ck_assert_int_eq(launch_read(environment_srun_no_pmix, &launch, &error), MORAY_INVALID);
    ck_assert(strstr(error.text, "--mpi=pmix"));
}
END_TEST

START_TEST(the_shell_of_a_batch_script_is_no_launcher)
{
    expect(environment_sbatch_shell);
    ck_assert_int_eq(launch.kind, LAUNCH_NONE);
    ck_assert_uint_eq(launch.rank_count, 1);
}
END_TEST

START_TEST(nonsense_is_refused)
{
    char *const *const all[] = {environment_bad_number, environment_bad_rank,
                                environment_bad_missing, environment_bad_huge};

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        ck_assert_msg(launch_read(all[i], &launch, &error) == MORAY_INVALID, "environment %zu", i);
        ck_assert_msg(strstr(error.text, "start"), "says what to do: %s", error.text);
    }
}
END_TEST

START_TEST(mpirun_gives_all_ranks_one_secret)
{
    uint8_t a[LAUNCH_SECRET_BYTES], b[LAUNCH_SECRET_BYTES], other[LAUNCH_SECRET_BYTES];

    ck_assert(launch_secret(environment_mpirun_two_nodes_a, a));
    ck_assert(launch_secret(environment_mpirun_two_nodes_b, b));
    ck_assert(launch_secret(environment_mpirun_n2, other));
    ck_assert_mem_eq(a, b, sizeof(a));
    ck_assert_mem_ne(a, other, sizeof(a));
    ck_assert(!launch_secret(environment_srun, a));
    ck_assert(!launch_secret(environment_none, a));
}
END_TEST

/* ---- The fork ---- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void *wait_at_gate(void *argument)
{
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    return argument;
}

static void do_nothing(void *argument)
{
    (void)argument;
}

START_TEST(one_thread_may_be_forked)
{
    ck_assert_uint_eq(launch_thread_count(), 1);
    ck_assert_msg(!launch_check_fork(&error), "%s", error.text);
}
END_TEST

START_TEST(a_thread_of_the_program_is_named)
{
    pthread_t thread;

    pthread_mutex_lock(&gate);
    ck_assert_int_eq(pthread_create(&thread, NULL, wait_at_gate, NULL), 0);
    pthread_setname_np(thread, "my-thread");
    ck_assert_uint_eq(launch_thread_count(), 2);
    ck_assert_int_eq(launch_check_fork(&error), MORAY_WRONG_STATE);
    ck_assert_msg(strstr(error.text, "my-thread") && strstr(error.text, "test_launch") &&
                      strstr(error.text, "call moray_init first"),
                  "%s", error.text);
    pthread_mutex_unlock(&gate);
    pthread_join(thread, NULL);
}
END_TEST

/* Libraries are loaded in the test's own process: what Check's parent had would be gone after a fork. */
START_TEST(threads_of_openblas_are_fine)
{
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_GLOBAL);

    if (!library) {
        printf("not tried: OpenBLAS is not here\n");
        return;
    }
    void (*set)(int) = (void (*)(int))dlsym(library, "openblas_set_num_threads");
    if (set)
        set(3);
    if (launch_thread_count() == 1)
        printf("not tried: this OpenBLAS has no threads of its own\n");
    ck_assert_msg(!launch_check_fork(&error), "%s", error.text);

    /* and the promise: a child of such a process can use it */
    double (*dot)(int, const double *, int, const double *, int) =
        (double (*)(int, const double *, int, const double *, int))dlsym(library, "cblas_ddot");
    static double ones[200000];
    for (int i = 0; i < 200000; i++)
        ones[i] = 1;
    pid_t pid = fork();
    if (!pid)
        _exit(dot(200000, ones, 1, ones, 1) == 200000 ? 0 : 1);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(threads_of_openmp_are_refused_by_name)
{
    void *library = dlopen("libgomp.so.1", RTLD_NOW | RTLD_GLOBAL);

    if (!library) {
        printf("not tried: libgomp is not here\n");
        return;
    }
    void (*parallel)(void (*)(void *), void *, unsigned, unsigned) =
        (void (*)(void (*)(void *), void *, unsigned, unsigned))dlsym(library, "GOMP_parallel");
    parallel(do_nothing, NULL, 3, 0);
    ck_assert_uint_eq(launch_thread_count(), 3);
    ck_assert_int_eq(launch_check_fork(&error), MORAY_WRONG_STATE);
    ck_assert_msg(strstr(error.text, "libgomp") && strstr(error.text, "call moray_init first"),
                  "%s", error.text);
}
END_TEST

/* Stands for Open MPI's, which this program is not linked with. */
static int mpi_is_started;
__attribute__((visibility("default"))) int MPI_Initialized(int *flag);
int MPI_Initialized(int *flag)
{
    *flag = mpi_is_started;
    return 0;
}

START_TEST(a_started_mpi_is_refused)
{
    if (!dlsym(RTLD_DEFAULT, "MPI_Initialized")) {
        printf("not tried: the program does not export its symbols\n");
        return;
    }
    mpi_is_started = 1;
    ck_assert_int_eq(launch_check_fork(&error), MORAY_WRONG_STATE);
    ck_assert(strstr(error.text, "MPI") && strstr(error.text, "call moray_init first"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node/launch");
    TCase *environments = tcase_create("environments"), *forks = tcase_create("forks");
    SRunner *runner = srunner_create(suite);

    tcase_add_test(environments, no_launcher_is_one_rank);
    tcase_add_test(environments, plain_mpirun_binds_by_default);
    tcase_add_test(environments, oversubscribed_and_listed_hosts_do_not_bind);
    tcase_add_test(environments, a_binding_that_was_asked_for_is_the_users);
    tcase_add_test(environments, nodes_of_one_name_differ_by_their_daemon);
    tcase_add_test(environments, mpirun_within_slurm_is_mpirun);
    tcase_add_test(environments, srun_with_pmix);
    tcase_add_test(environments, srun_with_affinity_is_the_users_binding);
    tcase_add_test(environments, srun_without_pmix_is_refused);
    tcase_add_test(environments, the_shell_of_a_batch_script_is_no_launcher);
    tcase_add_test(environments, nonsense_is_refused);
    tcase_add_test(environments, mpirun_gives_all_ranks_one_secret);
    suite_add_tcase(suite, environments);
    tcase_set_timeout(forks, 30);
    tcase_add_test(forks, one_thread_may_be_forked);
    tcase_add_test(forks, a_thread_of_the_program_is_named);
    tcase_add_test(forks, threads_of_openblas_are_fine);
    tcase_add_test(forks, threads_of_openmp_are_refused_by_name);
    tcase_add_test(forks, a_started_mpi_is_refused);
    suite_add_tcase(suite, forks);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
