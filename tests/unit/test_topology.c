/** The choice of cores, on recorded masks and synthetic machines. */
#include <check.h>
#include <dlfcn.h>
#include <hwloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/topology.h"

static const char laptop[] = "pack:1 core:2 pu:1";

/* Two packages of two NUMA nodes of 32 cores with two threads each, numbered as Linux does: the
 * threads of core 0 are 0 and 128. Filled in by main(). */
static char big[2048];

static void describe_big(void)
{
    size_t used = (size_t)sprintf(big, "pack:2 numa:2 core:32 pu:2(indexes=");

    for (int core = 0; core < 128; core++)
        used += (size_t)sprintf(big + used, core ? ",%d,%d" : "%d,%d", core, core + 128);
    strcpy(big + used, ")");
}

static struct hwloc_topology *machine;
static struct topology_input input;
static struct topology_choice choice;
static struct moray_error error;

static void load(const char *synthetic)
{
    if (machine)
        hwloc_topology_destroy(machine);
    ck_assert_int_eq(hwloc_topology_init(&machine), 0);
    ck_assert_int_eq(hwloc_topology_set_synthetic(machine, synthetic), 0);
    ck_assert_int_eq(hwloc_topology_load(machine), 0);
}

/* One node rank that may use `cpuset` and whose launcher left it `mask`. */
static void given(const char *synthetic, const char *cpuset, const char *mask)
{
    load(synthetic);
    input = (struct topology_input){.node_count = 1, .machine = machine};
    ck_assert(topology_set_parse(cpuset, &input.cpuset));
    ck_assert(topology_set_parse(mask, &input.mask));
}

static void choose(uint32_t index, uint32_t count)
{
    input.node_index = index;
    input.node_count = count;
    topology_drop(&choice);
    ck_assert_msg(!topology_choose(&input, &choice, &error), "%s", error.text);
}

static void expect_place(uint32_t place, const char *list)
{
    char text[128];

    ck_assert_uint_lt(place, choice.place_count);
    topology_set_print(&choice.places[place], text, sizeof(text));
    ck_assert_str_eq(text, list);
}

static void expect_all(const char *list)
{
    char text[128];

    topology_set_print(&choice.all, text, sizeof(text));
    ck_assert_str_eq(text, list);
}

static void drop(void)
{
    topology_drop(&choice);
    if (machine)
        hwloc_topology_destroy(machine);
    machine = NULL;
}

/* ---- Laptop: two cores ---- */

START_TEST(plain_mpirun_n1_widens_the_default_binding)
{
    given(laptop, "0-1", "0");
    input.binding = LAUNCH_BOUND_BY_DEFAULT;
    choose(0, 1);
    ck_assert_uint_eq(choice.core_count, 2);
    expect_place(0, "0");
    expect_place(1, "1");
    ck_assert(choice.widen && choice.may_spin);
    ck_assert_uint_eq(choice.host_core_count, 2);
    ck_assert_str_eq(choice.reason,
                     "2 cores (0-1): the cpuset, shared evenly by 1 node rank of this host");
}
END_TEST

/* Rank 0 is a head alone, rank 1 the only node rank. */
START_TEST(plain_mpirun_n2_gives_all_cores_to_the_node)
{
    given(laptop, "0-1", "1");
    input.binding = LAUNCH_BOUND_BY_DEFAULT;
    choose(0, 1);
    ck_assert_uint_eq(choice.core_count, 2);
    ck_assert(choice.widen);
    given(laptop, "0-1", "0");
    input.binding = LAUNCH_BOUND_BY_DEFAULT;
    choose(TOPOLOGY_HEAD, 1);
    ck_assert_uint_eq(choice.core_count, 0);
    ck_assert_uint_eq(choice.place_count, 0);
    ck_assert(choice.widen && choice.may_spin);
    expect_all("0-1");
}
END_TEST

/* --oversubscribe -n 4, and --host localhost:4 -n 4: a head alone and three node ranks. */
START_TEST(more_node_ranks_than_cores_offer_one_each_unbound)
{
    given(laptop, "0-1", "0-1");
    for (uint32_t index = 0; index < 3; index++) {
        choose(index, 3);
        ck_assert_uint_eq(choice.core_count, 1);
        ck_assert_uint_eq(choice.place_count, 0);
        ck_assert(!choice.may_spin && !choice.widen);
        expect_all("0-1");
    }
    choose(TOPOLOGY_HEAD, 3);
    ck_assert(!choice.may_spin);
}
END_TEST

START_TEST(bind_to_none_shares_evenly)
{
    given(laptop, "0-1", "0-1");
    choose(0, 2);
    expect_all("0");
    choose(1, 2);
    expect_all("1");
    ck_assert(!choice.widen && choice.may_spin);
}
END_TEST

START_TEST(a_binding_that_was_asked_for_is_kept)
{
    given(laptop, "0-1", "1");
    input.binding = LAUNCH_BOUND_BY_USER;
    choose(0, 1);
    ck_assert_uint_eq(choice.core_count, 1);
    expect_place(0, "1");
    ck_assert(!choice.widen);
    ck_assert_str_eq(choice.reason, "1 core (1): the binding that the launcher was asked for");
    choose(TOPOLOGY_HEAD, 1);
    expect_all("1");
}
END_TEST

/* srun -c 2 with TaskPlugin=none on a node of four: nothing bound, two a task. */
START_TEST(srun_c_gives_as_many_as_asked)
{
    given("pack:1 core:4 pu:1", "0-3", "0-3");
    input.cores_asked = 2;
    choose(0, 1);
    ck_assert_uint_eq(choice.core_count, 2);
    expect_all("0-1");
    choose(1, 2);
    expect_all("2-3");
    choose(1, 3); /* 6 do not fit: share evenly */
    expect_all("1");
}
END_TEST

/* ---- 256 hardware threads ---- */

START_TEST(a_big_machine_is_shared_in_the_order_of_its_topology)
{
    given(big, "0-255", "0-255");
    choose(0, 1);
    ck_assert_uint_eq(choice.core_count, 128);
    expect_place(0, "0,128");
    expect_place(127, "127,255");
    choose(1, 2); /* the second package, nothing of the first */
    ck_assert_uint_eq(choice.core_count, 64);
    expect_all("64-127,192-255");
    choose(3, 4); /* the last NUMA node */
    expect_all("96-127,224-255");
}
END_TEST

START_TEST(uneven_shares_cover_all_and_overlap_nowhere)
{
    static const uint32_t counts[] = {1, 3, 7, 100, 128};

    given(big, "0-255", "0-255");
    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        struct topology_set seen = {{0}};
        uint32_t sum = 0;
        for (uint32_t index = 0; index < counts[i]; index++) {
            choose(index, counts[i]);
            ck_assert_uint_ge(choice.core_count, 128 / counts[i]);
            for (int word = 0; word < TOPOLOGY_CPUS_MAX / 64; word++) {
                ck_assert_uint_eq(seen.bits[word] & choice.all.bits[word], 0);
                seen.bits[word] |= choice.all.bits[word];
            }
            sum += choice.core_count;
        }
        ck_assert_uint_eq(sum, 128);
        ck_assert_uint_eq(topology_set_count(&seen), 256);
    }
}
END_TEST

/* mpirun binds to a NUMA node above two ranks unless told otherwise. */
START_TEST(the_default_binding_of_many_ranks_is_widened)
{
    given(big, "0-255", "0-31,128-159");
    input.binding = LAUNCH_BOUND_BY_DEFAULT;
    choose(0, 2);
    ck_assert_uint_eq(choice.core_count, 64);
    ck_assert(choice.widen);
}
END_TEST

START_TEST(a_part_of_a_machine_is_all_there_is)
{
    given(big, "4-7,130", "4-7,130");
    choose(0, 1);
    ck_assert_uint_eq(choice.core_count, 5);
    expect_place(0, "130"); /* the second thread of core 2 comes first in the topology */
    expect_place(1, "4");
}
END_TEST

START_TEST(packages_to_every_other_number)
{
    given("pack:2 core:2 pu:1(indexes=0,2,1,3)", "0-3", "0-3");
    choose(0, 2);
    expect_all("0,2");
    choose(1, 2);
    expect_all("1,3");
}
END_TEST

/* ---- Settings ---- */

START_TEST(a_count_is_for_each_rank)
{
    given(big, "0-255", "0-255");
    input.setting = "4";
    choose(2, 3);
    ck_assert_uint_eq(choice.core_count, 4);
    expect_place(0, "8,136");
    ck_assert(choice.may_spin);
    given(laptop, "0-1", "0-1");
    input.setting = "8";
    choose(1, 2);
    ck_assert_uint_eq(choice.core_count, 8);
    ck_assert_uint_eq(choice.place_count, 0);
    ck_assert(!choice.may_spin);
    expect_all("0-1");
}
END_TEST

START_TEST(a_list_is_shared_by_the_host)
{
    given(big, "0-255", "0");
    input.binding = LAUNCH_BOUND_BY_USER; /* a setting goes before it */
    input.setting = "2,0,128-129";
    choose(0, 1);
    ck_assert_uint_eq(choice.core_count, 3);
    expect_place(0, "0,128");
    expect_place(1, "129");
    expect_place(2, "2");
    ck_assert(choice.widen);
    input.setting = "5-5";
    choose(0, 1);
    ck_assert_uint_eq(choice.core_count, 1);
    expect_all("5");
    input.setting = "";
    choose(0, 1);
    expect_all("0");
}
END_TEST

START_TEST(absurd_settings_are_errors)
{
    static const char *const absurd[] = {"0",   "-1",      "two",  "1025", "99999999999999999999",
                                         "0-",  "3-1",     "0,,1", "0-9",  "4096-4097",
                                         "1.5", "0-1 and", " 1"};

    given(laptop, "0-1", "0-1");
    for (size_t i = 0; i < sizeof(absurd) / sizeof(*absurd); i++) {
        input.setting = absurd[i];
        error.text[0] = 0;
        ck_assert_msg(topology_choose(&input, &choice, &error) == MORAY_INVALID, "%s", absurd[i]);
        ck_assert_msg(strstr(error.text, "MORAY_CORES"), "%s: %s", absurd[i], error.text);
        ck_assert_ptr_null(choice.places);
    }
}
END_TEST

START_TEST(lists_are_read_and_printed)
{
    struct topology_set set;
    char text[64], tiny[4];

    ck_assert(topology_set_parse("0-3,8,4095\n", &set));
    ck_assert_uint_eq(topology_set_count(&set), 6);
    topology_set_print(&set, text, sizeof(text));
    ck_assert_str_eq(text, "0-3,8,4095");
    topology_set_print(&set, tiny, sizeof(tiny));
    ck_assert_str_eq(tiny, "0-3");
    ck_assert(!topology_set_parse("", &set));
    ck_assert(!topology_set_parse("4096", &set));
    ck_assert(!topology_set_parse("1,", &set));
}
END_TEST

/* ---- This machine ---- */

START_TEST(this_machine_with_and_without_hwloc_agree)
{
    struct launch launch = {.rank_count = 1, .local_count = 1};
    struct topology_choice plain;

    ck_assert_msg(!topology_settle(&launch, NULL, 0, 1, &plain, &error), "%s", error.text);
    ck_assert_uint_ge(plain.core_count, 1);
    ck_assert_uint_eq(plain.core_count, plain.place_count);
    ck_assert_int_eq(topology_gather(&launch, &input, &error), MORAY_OK);
    ck_assert_int_eq(topology_load(&machine, &error), MORAY_OK);
    input.machine = machine;
    choose(0, 1);
    ck_assert_uint_eq(choice.core_count, plain.core_count);
    ck_assert_mem_eq(&choice.all, &plain.all, sizeof(plain.all));
    topology_drop(&plain);
}
END_TEST

START_TEST(a_synthetic_machine_is_loaded_on_request)
{
    setenv("HWLOC_SYNTHETIC", "pack:2 numa:4 core:16 pu:2", 1);
    ck_assert_int_eq(topology_load(&machine, &error), MORAY_OK);
    input = (struct topology_input){.machine = machine, .node_count = 1};
    ck_assert(topology_set_parse("0-255", &input.cpuset));
    input.mask = input.cpuset;
    choose(0, 1);
    ck_assert_uint_eq(choice.core_count, 128);
}
END_TEST

/* A default binding is undone up to the cpuset, not beyond what the launcher itself was given: here
 * nobody of that name is above us, so it is the cpuset. The mask is as before afterwards. */
START_TEST(gathering_leaves_the_mask_alone)
{
    struct launch launch = {.binding = LAUNCH_BOUND_BY_DEFAULT, .local_count = 1, .rank_count = 1};
    cpu_set_t all, one, after;
    int cpu = 0;

    ck_assert_int_eq(sched_getaffinity(0, sizeof(all), &all), 0);
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    ck_assert_int_eq(topology_gather(&launch, &input, &error), MORAY_OK);
    ck_assert_uint_eq(topology_set_count(&input.mask), 1);
    ck_assert_uint_ge(topology_set_count(&input.cpuset), (unsigned)CPU_COUNT(&all));
    ck_assert_int_eq(sched_getaffinity(0, sizeof(after), &after), 0);
    ck_assert(CPU_EQUAL(&one, &after));
    launch.binding = LAUNCH_UNBOUND; /* taskset ./app: the mask is the user's word */
    ck_assert_int_eq(topology_gather(&launch, &input, &error), MORAY_OK);
    ck_assert_uint_eq(topology_set_count(&input.cpuset), 1);
}
END_TEST

START_TEST(binding_takes_the_place_and_gives_it_back)
{
    struct launch launch = {.rank_count = 1, .local_count = 1};
    cpu_set_t mask;

    ck_assert_int_eq(topology_settle(&launch, NULL, 0, 1, &choice, &error), MORAY_OK);
    for (uint32_t place = 0; place < 2 * choice.place_count; place++) {
        ck_assert_int_eq(topology_bind(&choice, (int)place), 0);
        ck_assert_int_eq(sched_getaffinity(0, sizeof(mask), &mask), 0);
        ck_assert_int_eq(CPU_COUNT(&mask),
                         (int)topology_set_count(&choice.places[place % choice.place_count]));
    }
    ck_assert_int_eq(topology_bind(&choice, -1), 0);
    ck_assert_int_eq(sched_getaffinity(0, sizeof(mask), &mask), 0);
    ck_assert_int_eq(CPU_COUNT(&mask), (int)topology_set_count(&choice.all));
}
END_TEST

START_TEST(libraries_hear_of_their_threads)
{
    void *openmp = dlopen("libgomp.so.1", RTLD_NOW | RTLD_GLOBAL);
    void *blas = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_GLOBAL);

    topology_set_library_threads(3);
    ck_assert_str_eq(getenv("OMP_NUM_THREADS"), "3");
    ck_assert_str_eq(getenv("OPENBLAS_NUM_THREADS"), "3");
    if (openmp)
        ck_assert_int_eq(((int (*)(void))dlsym(openmp, "omp_get_max_threads"))(), 3);
    topology_set_library_threads(1);
    if (blas)
        ck_assert_int_eq(((int (*)(void))dlsym(blas, "openblas_get_num_threads"))(), 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node/topology");
    TCase *recorded = tcase_create("recorded"), *here = tcase_create("this machine");
    SRunner *runner = srunner_create(suite);

    describe_big();
    tcase_set_timeout(recorded, 30);
    tcase_add_checked_fixture(recorded, NULL, drop);
    tcase_add_test(recorded, plain_mpirun_n1_widens_the_default_binding);
    tcase_add_test(recorded, plain_mpirun_n2_gives_all_cores_to_the_node);
    tcase_add_test(recorded, more_node_ranks_than_cores_offer_one_each_unbound);
    tcase_add_test(recorded, bind_to_none_shares_evenly);
    tcase_add_test(recorded, a_binding_that_was_asked_for_is_kept);
    tcase_add_test(recorded, srun_c_gives_as_many_as_asked);
    tcase_add_test(recorded, a_big_machine_is_shared_in_the_order_of_its_topology);
    tcase_add_test(recorded, uneven_shares_cover_all_and_overlap_nowhere);
    tcase_add_test(recorded, the_default_binding_of_many_ranks_is_widened);
    tcase_add_test(recorded, a_part_of_a_machine_is_all_there_is);
    tcase_add_test(recorded, packages_to_every_other_number);
    tcase_add_test(recorded, a_count_is_for_each_rank);
    tcase_add_test(recorded, a_list_is_shared_by_the_host);
    tcase_add_test(recorded, absurd_settings_are_errors);
    tcase_add_test(recorded, lists_are_read_and_printed);
    suite_add_tcase(suite, recorded);
    tcase_set_timeout(here, 30);
    tcase_add_checked_fixture(here, NULL, drop);
    tcase_add_test(here, this_machine_with_and_without_hwloc_agree);
    tcase_add_test(here, a_synthetic_machine_is_loaded_on_request);
    tcase_add_test(here, gathering_leaves_the_mask_alone);
    tcase_add_test(here, binding_takes_the_place_and_gives_it_back);
    tcase_add_test(here, libraries_hear_of_their_threads);
    suite_add_tcase(suite, here);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
