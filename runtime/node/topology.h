/**
 * Which cores a rank offers, and why (decisions.md, 16).
 *
 *     an explicit setting                                       "MORAY_CORES=4" or "0-3,8"
 *       (a count is for each node rank; a list is the host's, shared evenly among its node ranks)
 *     else the mask, if the user asked for a binding            (srun's affinity too)
 *     else the cpuset, shared evenly among the host's node ranks (mpirun's default mask is widened)
 *
 * topology_gather() asks the machine, topology_choose() is a plain function of its input: tests run
 * it on recorded environments and synthetic machines. A core is a physical one; its hardware threads
 * that lie in the cpuset go with it. Cores are offered in the order of the topology, neighbours first.
 * Where ranks outnumber cores, or more workers are asked for than there are cores, workers are not
 * bound and nobody on the host spins. A head alone is no node rank and takes none.
 * Threads: topology_gather from the main thread before the fork; the rest any.
 */
#ifndef MORAY_NODE_TOPOLOGY_H
#define MORAY_NODE_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "node/launch.h"

enum { TOPOLOGY_CPUS_MAX = 4096, TOPOLOGY_CORES_MAX = 1024 };
#define TOPOLOGY_HEAD UINT32_MAX

/** A set of the machine's hardware threads, by the kernel's numbers. */
struct topology_set {
    uint64_t bits[TOPOLOGY_CPUS_MAX / 64];
};

struct topology_input {
    const char *setting;      /* count ("4") or list of cpus ("0-3,8", "5-5"); NULL = none */
    struct topology_set mask; /* this process's, as the launcher left it */
    struct topology_set
        cpuset; /* what the job may use on this host: the cgroup's cpuset, within the
                                   mask that mpirun itself was given (taskset mpirun …) */
    enum launch_binding binding;
    uint32_t cores_asked;           /* by srun -c; 0 = not said */
    uint32_t node_index;            /* which of the host's node ranks this is, from 0 */
    uint32_t node_count;            /* node ranks on this host; 0 = this rank is a head alone */
    struct hwloc_topology *machine; /* borrowed, loaded; NULL: cores are read from /sys */
};

struct topology_choice {
    uint32_t core_count;  /* workers to run; 0 only for a head alone */
    uint32_t place_count; /* sets in `places`; 0: workers are not bound */
    bool may_spin;        /* false: more ranks or workers than cores, all sleep at once */
    bool widen;           /* the mask is narrower than `all`: topology_bind(choice, -1) before the
                                 zygote's fork, so that driver, agent and zygote have it too */
    uint32_t host_core_count; /* cores in the cpuset, for the host's count of awake processes */
    struct topology_set all; /* the union of what this rank may run on, driver and agent included */
    struct topology_set *places; /* place i: the hardware threads of core i. Owner: the choice */
    char reason[200]; /* one line for people: "2 cores (0-1): the cpuset, shared by 1 rank" */
};

/** All in one, what moray_init calls: gathers, loads hwloc where the machine is big enough that order
 *  matters (more than 8 hardware threads; it takes 4 ms and more), and chooses.
 *  Owner: `*out` is the caller's, topology_drop(). Errors: those of the parts.
 *  Threads: main thread, before the fork. Cost: ~50 us on a small machine. */
MORAY_MUST_CHECK enum moray_code topology_settle(const struct launch *launch, const char *setting,
                                                 uint32_t node_index, uint32_t node_count,
                                                 struct topology_choice *out,
                                                 struct moray_error *error);

/** Fills in mask, cpuset (a few system calls and a look at the launcher's mask), binding and
 *  cores_asked; the rest is the caller's. `machine` stays NULL (see topology_load).
 *  Errors: MORAY_SYSTEM. */
MORAY_MUST_CHECK enum moray_code
topology_gather(const struct launch *launch, struct topology_input *out, struct moray_error *error);

/** Loads hwloc's view of this machine with cores, caches, NUMA nodes and packages only (or
 *  HWLOC_SYNTHETIC / HWLOC_XMLFILE, if set). Milliseconds: the caller loads it only where order
 *  matters (topology_choose without one groups hardware threads by /sys).
 *  Owner: the caller, topology_unload(). Errors: MORAY_SYSTEM. Threads: any. */
MORAY_MUST_CHECK enum moray_code topology_load(struct hwloc_topology **out,
                                               struct moray_error *error);
void topology_unload(struct hwloc_topology *machine); /* NULL is allowed */

/** Chooses. Owner: `*out` is the caller's; topology_drop() frees its places.
 *  Errors: MORAY_INVALID: a setting that is no count or list, zero, or names cpus outside the
 *  cpuset; MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code topology_choose(const struct topology_input *input,
                                                 struct topology_choice *out,
                                                 struct moray_error *error);
void topology_drop(struct topology_choice *choice);

/** Binds the calling thread to place `place` of the choice (modulo place_count), or, with -1 or where
 *  workers are not bound, to all of it. Errors: returns -1 with errno; the mask is as before then. */
int topology_bind(const struct topology_choice *choice, int place);

/** Tells the libraries of this process how many threads to use: OMP_NUM_THREADS and its like for
 *  what it may exec, omp_set_num_threads(), openblas_set_num_threads() and the like where they are
 *  loaded. Threads: the process's main thread. */
void topology_set_library_threads(uint32_t thread_count);

/** "0-3,8" of a set; and back. parse returns false for text that is no list. */
void topology_set_print(const struct topology_set *set, char *text, size_t text_bytes);
bool topology_set_parse(const char *text, struct topology_set *out);
uint32_t topology_set_count(const struct topology_set *set);

#endif
