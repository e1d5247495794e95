/**
 * Where the choice of cores meets the machine: masks, the launcher's own mask, hwloc, libraries
 * (topology.h).
 */
#include "node/topology.h"

#include <dlfcn.h>
#include <errno.h>
#include <hwloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PLAIN_CPUS_MAX = 8, ANCESTORS_MAX = 16 };

static bool get_mask(pid_t pid, struct topology_set *out)
{
    *out = (struct topology_set){{0}};
    return !sched_getaffinity(pid, sizeof(out->bits), (cpu_set_t *)out->bits);
}

static int set_mask(const struct topology_set *set)
{
    return sched_setaffinity(0, sizeof(set->bits), (const cpu_set_t *)set->bits);
}

/* What the cgroup allows: the kernel cuts a mask of everything down to it. */
static bool get_cpuset(const struct topology_set *mask, struct topology_set *out)
{
    struct topology_set everything;

    memset(&everything, 0xff, sizeof(everything));
    if (set_mask(&everything))
        return false;
    bool got = get_mask(0, out);
    return !set_mask(mask) && got;
}

/* Name and parent of a process. */
static pid_t parent_of(pid_t pid, char *name, size_t name_bytes)
{
    char path[40], text[256];
    int parent = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    size_t got = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[got] = 0;
    char *open = strchr(text, '('), *close = strrchr(text, ')'); /* the name may have both inside */
    if (!open || !close || sscanf(close + 1, " %*c %d", &parent) != 1)
        return 0;
    *close = 0;
    snprintf(name, name_bytes, "%s", open + 1);
    return parent;
}

/* mpirun's mask, or its daemon's on this host: what the user gave it (taskset mpirun …). Ranks may
 * have shells between. */
static bool launcher_mask(struct topology_set *out)
{
    static const char *const launchers[] = {"mpirun", "mpiexec", "orterun",
                                            "orted",  "prterun", "prted"};
    char name[64];
    pid_t pid = getpid();

    for (int i = 0; i < ANCESTORS_MAX && pid > 1; i++) {
        pid_t parent = parent_of(pid, name, sizeof(name));
        for (size_t k = 0; i > 0 && k < sizeof(launchers) / sizeof(*launchers); k++)
            if (!strcmp(name, launchers[k]))
                return get_mask(pid, out);
        pid = parent;
    }
    return false;
}

static void limit(struct topology_set *set, const struct topology_set *to)
{
    struct topology_set both;

    for (size_t i = 0; i < sizeof(both.bits) / sizeof(*both.bits); i++)
        both.bits[i] = set->bits[i] & to->bits[i];
    if (topology_set_count(&both))
        *set = both;
}

enum moray_code topology_gather(const struct launch *launch, struct topology_input *out,
                                struct moray_error *error)
{
    struct topology_set launchers;

    *out = (struct topology_input){.binding = launch->binding, .cores_asked = launch->cores_asked};
    if (!get_mask(0, &out->mask))
        return error_set(error, MORAY_SYSTEM, "cannot read the cpus of this process: %s",
                         strerror(errno));
    out->cpuset = out->mask;
    /* without a launcher, or where it did not touch the mask, the mask is all that we were given */
    if (launch->binding != LAUNCH_UNBOUND && !get_cpuset(&out->mask, &out->cpuset))
        return error_set(error, MORAY_SYSTEM, "cannot read the cpuset: %s", strerror(errno));
    if (launch->binding == LAUNCH_BOUND_BY_DEFAULT && launcher_mask(&launchers))
        limit(&out->cpuset, &launchers);
    return MORAY_OK;
}

enum moray_code topology_load(struct hwloc_topology **out, struct moray_error *error)
{
    static const hwloc_obj_type_t wanted[] = {HWLOC_OBJ_CORE, HWLOC_OBJ_L3CACHE, HWLOC_OBJ_PACKAGE};

    *out = NULL;
    if (hwloc_topology_init(out))
        return error_set(error, MORAY_SYSTEM, "hwloc does not start");
    hwloc_topology_set_all_types_filter(*out, HWLOC_TYPE_FILTER_KEEP_NONE);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
        hwloc_topology_set_type_filter(*out, wanted[i], HWLOC_TYPE_FILTER_KEEP_ALL);
    if (!hwloc_topology_load(*out))
        return MORAY_OK;
    hwloc_topology_destroy(*out);
    *out = NULL;
    return error_set(error, MORAY_SYSTEM, "hwloc cannot read this machine's topology");
}

void topology_unload(struct hwloc_topology *machine)
{
    if (machine)
        hwloc_topology_destroy(machine);
}

enum moray_code topology_settle(const struct launch *launch, const char *setting,
                                uint32_t node_index, uint32_t node_count,
                                struct topology_choice *out, struct moray_error *error)
{
    struct topology_input input;
    enum moray_code code = topology_gather(launch, &input, error);

    *out = (struct topology_choice){0};
    if (code)
        return code;
    input.setting = setting;
    input.node_index = node_index;
    input.node_count = node_count;
    if (topology_set_count(&input.cpuset) > PLAIN_CPUS_MAX &&
        topology_load(&input.machine, error)) /* the order of /sys will do */
        input.machine = NULL;
    code = topology_choose(&input, out, error);
    topology_unload(input.machine);
    return code;
}

int topology_bind(const struct topology_choice *choice, int place)
{
    if (place < 0 || !choice->place_count)
        return set_mask(&choice->all);
    return set_mask(&choice->places[(uint32_t)place % choice->place_count]);
}

void topology_set_library_threads(uint32_t thread_count)
{
    static const char *const variables[] = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                                            "MKL_NUM_THREADS", "BLIS_NUM_THREADS"};
    static const char *const functions[] = {"omp_set_num_threads", "openblas_set_num_threads",
                                            "MKL_Set_Num_Threads"};
    char text[16];

    snprintf(text, sizeof(text), "%u", thread_count);
    for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++)
        setenv(variables[i], text, 1);
    for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
        void (*set)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, functions[i]);
        if (set)
            set((int)thread_count);
    }
}
