#include "node/launch.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Slurm's numbers of steps that no srun of the user made: batch script, extern, interactive shell. */
static const char *const slurm_shell_steps[] = {"4294967291", "4294967292", "4294967290",
                                                "batch",      "extern",     "interactive"};

/* ---- Variables ---- */

static const char *variable(char *const *environment, const char *name)
{
    size_t length = strlen(name);

    for (char *const *entry = environment ? environment : environ; entry && *entry; entry++)
        if (!strncmp(*entry, name, length) && (*entry)[length] == '=')
            return *entry + length + 1;
    return NULL;
}

/* Reads a number below `limit`; `missing` when the variable is not there and may be missing. */
static enum moray_code number(char *const *environment, const char *name, const uint32_t *missing,
                              uint32_t *out, struct moray_error *error)
{
    const char *text = variable(environment, name);
    char *end;

    if (!text && missing) {
        *out = *missing;
        return MORAY_OK;
    }
    errno = 0;
    unsigned long value = text ? strtoul(text, &end, 10) : 0;
    if (!text || *text < '0' || *text > '9' || *end || errno || value > INT32_MAX)
        return error_set(error, MORAY_INVALID,
                         "the launcher's variable %s %s%s; start through "
                         "mpirun, srun --mpi=pmix, or with no launcher at all",
                         name, text ? "is no number: " : "is missing", text ? text : "");
    *out = (uint32_t)value;
    return MORAY_OK;
}

static void copy(char *out, size_t out_bytes, const char *text)
{
    snprintf(out, out_bytes, "%s", text);
}

static void host_name(char *out, size_t out_bytes)
{
    if (gethostname(out, out_bytes))
        copy(out, out_bytes, "localhost");
    out[out_bytes - 1] = 0;
}

/* ---- mpirun ---- */

/* The number behind "PE=" in a mapping such as "slot:PE=2"; 0 without one. */
static uint32_t cores_of_mapping(const char *mapping)
{
    const char *pe = mapping ? strcasestr(mapping, "pe=") : NULL;
    unsigned long count = pe ? strtoul(pe + 3, NULL, 10) : 0;

    return count <= UINT16_MAX ? (uint32_t)count : 0;
}

static void mpirun_binding(char *const *environment, struct launch *out)
{
    static const char *const asked[] = {"OMPI_MCA_hwloc_base_cpu_list",
                                        "OMPI_MCA_hwloc_base_cpu_set", "OMPI_MCA_orte_rankfile",
                                        "OMPI_MCA_rmaps_rank_file_path"};
    const char *policy = variable(environment, "OMPI_MCA_hwloc_base_binding_policy");
    const char *per_rank = variable(environment, "OMPI_MCA_rmaps_base_cpus_per_rank");
    bool by_user = false;

    out->cores_asked =
        cores_of_mapping(variable(environment, "OMPI_MCA_rmaps_base_mapping_policy"));
    if (per_rank && strtoul(per_rank, NULL, 10) <= UINT16_MAX)
        out->cores_asked = (uint32_t)strtoul(per_rank, NULL, 10);
    for (size_t i = 0; i < sizeof(asked) / sizeof(*asked); i++)
        by_user |= variable(environment, asked[i]) != NULL;
    by_user |= out->cores_asked > 0 || (policy && strncmp(policy, "none", 4));

    const char *bound = variable(environment, "OMPI_MCA_orte_bound_at_launch");
    if (!bound || strcmp(bound, "1"))
        out->binding = LAUNCH_UNBOUND;
    else
        out->binding = by_user ? LAUNCH_BOUND_BY_USER : LAUNCH_BOUND_BY_DEFAULT;
}

/* Which of mpirun's daemons started this rank: the number in "2037972992.1;tcp://…". Each node of a
 * job has one, so it tells nodes apart even where host names repeat. */
static unsigned long mpirun_daemon(char *const *environment)
{
    const char *uri = variable(environment, "OMPI_MCA_orte_local_daemon_uri");
    const char *dot = uri ? strchr(uri, '.') : NULL;

    return dot ? strtoul(dot + 1, NULL, 10) : 0;
}

static enum moray_code read_mpirun(char *const *environment, struct launch *out,
                                   struct moray_error *error)
{
    enum moray_code code;
    const char *oversubscribe = variable(environment, "OMPI_MCA_mpi_oversubscribe");
    const char *job = variable(environment, "PMIX_NAMESPACE");
    const char *node = variable(environment, "PMIX_HOSTNAME");

    if ((code = number(environment, "OMPI_COMM_WORLD_RANK", NULL, &out->rank, error)) ||
        (code = number(environment, "OMPI_COMM_WORLD_SIZE", NULL, &out->rank_count, error)) ||
        (code = number(environment, "OMPI_COMM_WORLD_LOCAL_RANK", NULL, &out->local_rank, error)) ||
        (code = number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE", NULL, &out->local_count, error)))
        return code;
    mpirun_binding(environment, out);
    out->oversubscribed = oversubscribe && !strcmp(oversubscribe, "1");
    if (!job)
        job = variable(environment, "OMPI_MCA_ess_base_jobid");
    copy(out->job, sizeof(out->job), job ? job : "mpirun");
    if (node)
        copy(out->node, sizeof(out->node), node);
    else
        host_name(out->node, sizeof(out->node));
    snprintf(out->node_key, sizeof(out->node_key), "%s.%lu", out->node, mpirun_daemon(environment));
    return MORAY_OK;
}

/* ---- srun ---- */

static bool is_srun(char *const *environment)
{
    const char *step = variable(environment, "SLURM_STEP_ID");

    if (!step || !variable(environment, "SLURM_PROCID") ||
        !variable(environment, "SLURM_STEP_TASKS_PER_NODE"))
        return false;
    for (size_t i = 0; i < sizeof(slurm_shell_steps) / sizeof(*slurm_shell_steps); i++)
        if (!strcmp(step, slurm_shell_steps[i]))
            return false;
    return true;
}

/* The entry of node `index` in Slurm's "2(x3),1": two tasks on each of three nodes, one on the next.
 * 0 when the text has no such entry. */
static uint32_t tasks_of_node(const char *text, uint32_t index)
{
    while (*text >= '0' && *text <= '9') {
        char *end;
        unsigned long tasks = strtoul(text, &end, 10), times = 1;
        if (!strncmp(end, "(x", 2)) {
            times = strtoul(end + 2, &end, 10);
            end += *end == ')';
        }
        if (index < times)
            return tasks <= INT32_MAX ? (uint32_t)tasks : 0;
        index -= (uint32_t)times;
        text = end + (*end == ',');
    }
    return 0;
}

/* Slurm's affinity plugin binds only where the user or the site asked for it. */
static enum launch_binding srun_binding(char *const *environment)
{
    const char *type = variable(environment, "SLURM_CPU_BIND_TYPE");

    if (!type || !*type || strstr(type, "none"))
        return LAUNCH_UNBOUND;
    return LAUNCH_BOUND_BY_USER;
}

static enum moray_code read_srun(char *const *environment, struct launch *out,
                                 struct moray_error *error)
{
    enum moray_code code;
    uint32_t one = 1, none = 0, node_index;
    const char *job = variable(environment, "SLURM_JOB_ID");
    const char *node = variable(environment, "SLURMD_NODENAME");

    if ((code = number(environment, "SLURM_PROCID", NULL, &out->rank, error)) ||
        (code = number(environment, "SLURM_STEP_NUM_TASKS", &one, &out->rank_count, error)) ||
        (code = number(environment, "SLURM_LOCALID", &none, &out->local_rank, error)) ||
        (code = number(environment, "SLURM_NODEID", &none, &node_index, error)) ||
        (code = number(environment, "SLURM_CPUS_PER_TASK", &none, &out->cores_asked, error)))
        return code;
    if (out->rank_count > 1 && !variable(environment, "PMIX_RANK"))
        return error_set(error, MORAY_INVALID,
                         "srun started %" PRIu32 " tasks without PMIx, so MPI "
                         "cannot join them; use srun --mpi=pmix",
                         out->rank_count);
    out->local_count =
        tasks_of_node(variable(environment, "SLURM_STEP_TASKS_PER_NODE"), node_index);
    out->binding = srun_binding(environment);
    snprintf(out->job, sizeof(out->job), "%s.%s", job ? job : "0",
             variable(environment, "SLURM_STEP_ID"));
    if (node)
        copy(out->node, sizeof(out->node), node);
    else
        host_name(out->node, sizeof(out->node));
    snprintf(out->node_key, sizeof(out->node_key), "%s.%" PRIu32, out->node, node_index);
    return MORAY_OK;
}

static void read_nothing(struct launch *out)
{
    out->rank_count = out->local_count = 1;
    snprintf(out->job, sizeof(out->job), "alone-%d", (int)getpid());
    host_name(out->node, sizeof(out->node));
    snprintf(out->node_key, sizeof(out->node_key), "%s.0", out->node);
}

enum moray_code launch_read(char *const *environment, struct launch *out, struct moray_error *error)
{
    enum moray_code code = MORAY_OK;

    *out = (struct launch){.kind = LAUNCH_NONE};
    if (variable(environment, "OMPI_COMM_WORLD_RANK")) {
        out->kind = LAUNCH_MPIRUN;
        code = read_mpirun(environment, out, error);
    } else if (is_srun(environment)) {
        out->kind = LAUNCH_SRUN;
        code = read_srun(environment, out, error);
    } else {
        read_nothing(out);
    }
    if (code)
        return code;
    if (out->rank >= out->rank_count || out->local_rank >= out->local_count ||
        out->local_count > out->rank_count)
        return error_set(error, MORAY_INVALID,
                         "the launcher's variables contradict each other: rank "
                         "%" PRIu32 " of %" PRIu32 ", local rank %" PRIu32 " of %" PRIu32
                         "; start through mpirun, srun --mpi=pmix, or with no launcher at all",
                         out->rank, out->rank_count, out->local_rank, out->local_count);
    if (out->local_count > LAUNCH_LOCAL_RANKS_MAX)
        return error_set(error, MORAY_INVALID,
                         "%" PRIu32 " ranks on node %s, but Moray takes at most "
                         "%d a node; start fewer (one a node or a NUMA domain is enough)",
                         out->local_count, out->node, LAUNCH_LOCAL_RANKS_MAX);
    return MORAY_OK;
}

bool launch_secret(char *const *environment, uint8_t secret[LAUNCH_SECRET_BYTES])
{
    static const unsigned char purpose[] = "moray: the job's secret";
    const char *key = variable(environment, "OMPI_MCA_orte_precondition_transports");

    if (!variable(environment, "OMPI_COMM_WORLD_RANK") || !key || strlen(key) < 32)
        return false;
    return !crypto_generichash(secret, LAUNCH_SECRET_BYTES, (const unsigned char *)key, strlen(key),
                               purpose, sizeof(purpose) - 1);
}

const char *launch_kind_name(enum launch_kind kind)
{
    return kind == LAUNCH_MPIRUN ? "mpirun" : kind == LAUNCH_SRUN ? "srun" : "none";
}
