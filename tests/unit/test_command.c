/** The line that moray run makes: the right launcher, the right flags, nothing of the user's overruled. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tools/command.h"

static struct command command;
static struct moray_error error;
static char line[4096];

static char *const program[] = {"./app", "x y", NULL};
static char *const nowhere[] = {"PATH=/bin", NULL};
static char *const allocation[] = {"SLURM_JOB_ID=7", "SLURM_JOB_NUM_NODES=3",
                                   "SLURM_CPUS_PER_TASK=8", NULL};

/* The line for `options` on a machine of two cores. */
static const char *line_of(struct command_options options, char *const *environment, bool is_root)
{
    options.program = program;
    ck_assert_int_eq(command_make(&options, environment, 2, is_root, &command, &error), MORAY_OK);
    ck_assert_int_lt(command_print(&command, line, sizeof line), (int)sizeof line);
    return line;
}

static void refused(struct command_options options, const char *named)
{
    options.program = options.program ? options.program : program;
    ck_assert_int_eq(command_make(&options, nowhere, 2, false, &command, &error), MORAY_INVALID);
    ck_assert_msg(strstr(error.text, named), "'%s' does not name %s", error.text, named);
}

START_TEST(one_rank_needs_no_launcher)
{
    ck_assert_str_eq(line_of((struct command_options){0}, nowhere, true), "./app 'x y'");
    ck_assert_str_eq(line_of((struct command_options){.rank_count = 1}, allocation, true),
                     "./app 'x y'");
    ck_assert_int_eq(command.launcher, COMMAND_NONE);
}
END_TEST

START_TEST(several_ranks_go_by_mpirun)
{
    ck_assert_str_eq(line_of((struct command_options){.rank_count = 2}, nowhere, false),
                     "mpirun -n 2 --mca pml ob1 ./app 'x y'");
}
END_TEST

START_TEST(more_ranks_than_cores_are_allowed)
{
    ck_assert_str_eq(line_of((struct command_options){.rank_count = 3}, nowhere, false),
                     "mpirun -n 3 --oversubscribe --mca pml ob1 ./app 'x y'");
}
END_TEST

START_TEST(settings_reach_other_hosts)
{
    static char *const settings[] = {"MORAY_QUEUE_MAX=64", "PATH=/bin", "MORAY_SHARE=0", NULL};
    static char *const own[] = {"MORAY_SHARE=0", "OMPI_MCA_mca_base_env_list=A", NULL};

    ck_assert_str_eq(
        line_of((struct command_options){.rank_count = 2, .chaos = "worker=1s"}, settings, false),
        "MORAY_CHAOS=worker=1s mpirun -n 2 --mca pml ob1 -x MORAY_QUEUE_MAX -x MORAY_SHARE "
        "-x MORAY_CHAOS ./app 'x y'");
    ck_assert_str_eq(line_of((struct command_options){.rank_count = 2}, own, false),
                     "mpirun -n 2 --mca pml ob1 ./app 'x y'");
}
END_TEST

START_TEST(root_is_meant)
{
    ck_assert_str_eq(line_of((struct command_options){.rank_count = 2}, nowhere, true),
                     "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
                     "mpirun -n 2 --mca pml ob1 ./app 'x y'");
}
END_TEST

START_TEST(what_the_user_chose_stays)
{
    static char *const own[] = {"OMPI_MCA_pml=cm", "OMPI_MCA_rmaps_base_oversubscribe=1",
                                "OMPI_ALLOW_RUN_AS_ROOT=1", NULL};

    ck_assert_str_eq(line_of((struct command_options){.rank_count = 9}, own, true),
                     "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun -n 9 ./app 'x y'");
    ck_assert_str_eq(
        line_of((struct command_options){.rank_count = 2, .launcher_options = "--mca pml cm  -x A"},
                nowhere, false),
        "mpirun -n 2 --mca pml cm -x A ./app 'x y'");
}
END_TEST

START_TEST(an_allocation_of_slurm_goes_by_srun)
{
    ck_assert_str_eq(line_of((struct command_options){0}, allocation, true),
                     "OMPI_MCA_pml=ob1 srun --mpi=pmix --kill-on-bad-exit=1 -n 3 -c 8 ./app 'x y'");
    ck_assert_str_eq(line_of((struct command_options){.rank_count = 2}, allocation, true),
                     "OMPI_MCA_pml=ob1 srun --mpi=pmix --kill-on-bad-exit=1 -n 2 -c 8 ./app 'x y'");
    ck_assert_str_eq(line_of((struct command_options){.rank_count = 2, .launcher = COMMAND_MPIRUN},
                             allocation, false),
                     "mpirun -n 2 --mca pml ob1 ./app 'x y'");
}
END_TEST

START_TEST(chaos_reaches_the_program)
{
    ck_assert_str_eq(
        line_of((struct command_options){.chaos = "worker=100ms,seed=7"}, nowhere, false),
        "MORAY_CHAOS=worker=100ms,seed=7 ./app 'x y'");
}
END_TEST

START_TEST(chaos_is_checked)
{
    refused((struct command_options){.chaos = ""}, "--chaos");
    refused((struct command_options){.chaos = "100ms"}, "--chaos");
    refused((struct command_options){.chaos = "worker=1ms,seed=7x"}, "--chaos");
}
END_TEST

START_TEST(what_cannot_be_is_refused)
{
    static char *const none[] = {NULL};
    static char long_options[20000];

    refused((struct command_options){.program = none}, "no program");
    refused((struct command_options){.rank_count = 2, .launcher = COMMAND_NONE}, "-n 2");
    refused((struct command_options){.launcher = COMMAND_NONE, .launcher_options = "-x A"},
            "launcher options");
    memset(long_options, 'x', sizeof long_options - 1);
    refused((struct command_options){.rank_count = 2, .launcher_options = long_options},
            "too long");
}
END_TEST

START_TEST(a_printed_line_can_be_typed)
{
    static char *const words[] = {"./it's", "", "$HOME", "a=b", NULL};
    struct command_options options = {.program = words};

    ck_assert_int_eq(command_make(&options, nowhere, 2, false, &command, &error), MORAY_OK);
    int length = command_print(&command, line, sizeof line);
    ck_assert_str_eq(line, "'./it'\\''s' '' '$HOME' a=b");
    ck_assert_int_eq(length, (int)strlen(line));
    ck_assert_int_eq(command_print(&command, line, 5), length);
    ck_assert_str_eq(line, "'./i");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("command");
    TCase *laws = tcase_create("laws");

    tcase_add_test(laws, one_rank_needs_no_launcher);
    tcase_add_test(laws, several_ranks_go_by_mpirun);
    tcase_add_test(laws, more_ranks_than_cores_are_allowed);
    tcase_add_test(laws, settings_reach_other_hosts);
    tcase_add_test(laws, root_is_meant);
    tcase_add_test(laws, what_the_user_chose_stays);
    tcase_add_test(laws, an_allocation_of_slurm_goes_by_srun);
    tcase_add_test(laws, chaos_reaches_the_program);
    tcase_add_test(laws, chaos_is_checked);
    tcase_add_test(laws, what_cannot_be_is_refused);
    tcase_add_test(laws, a_printed_line_can_be_typed);
    suite_add_tcase(suite, laws);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
