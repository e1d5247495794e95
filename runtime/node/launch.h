/**
 * What the launcher says of this rank, read from the environment before MPI is started, and whether
 * the process is still small enough to be forked (decisions.md, 13).
 *
 *     mpirun   OMPI_COMM_WORLD_*, PMIX_HOSTNAME, OMPI_MCA_orte_*     (also inside a Slurm allocation)
 *     srun     SLURM_PROCID, SLURM_STEP_*, PMIX_RANK                 (needs --mpi=pmix above one rank)
 *     none     ./app: one rank
 *
 * Nothing here calls MPI (MPI_Initialized is asked for by name, only if the program is linked with
 * it), allocates or keeps anything. Who calls: moray_init, once, from main().
 * Cost: ~20 us, most of it the look into /proc/self/task.
 */
#ifndef MORAY_NODE_LAUNCH_H
#define MORAY_NODE_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { LAUNCH_LOCAL_RANKS_MAX = 256, LAUNCH_SECRET_BYTES = 32 };

enum launch_kind { LAUNCH_NONE, LAUNCH_MPIRUN, LAUNCH_SRUN };

enum launch_binding {
    LAUNCH_UNBOUND,          /* the launcher did not touch the mask */
    LAUNCH_BOUND_BY_DEFAULT, /* mpirun bound the rank and nobody asked for it: may be widened */
    LAUNCH_BOUND_BY_USER,    /* the mask is what the user asked for: keep within it */
};

struct launch {
    enum launch_kind kind;
    uint32_t rank, rank_count;        /* of the job */
    uint32_t local_rank, local_count; /* among the ranks that the launcher put on this node */
    enum launch_binding binding;
    uint32_t cores_asked; /* srun -c N, mpirun --map-by X:PE=N: cores a rank; 0 = not said */
    bool oversubscribed;  /* mpirun --oversubscribe */
    char node[64];        /* name of this node for people: "n1" */
    char node_key[96];    /* the launcher's identity of this node, unique in the job: "n1.0" */
    char job[64];         /* the launcher's name of the job (and step), unique on a host */
};

/** Reads `environment` (a list like environ, ended by NULL; NULL = environ itself).
 *  Owner: `*out` is the caller's, no pointer in it.
 *  Errors: MORAY_INVALID when the launcher's variables contradict each other or are no numbers, and
 *  for srun with several ranks but without PMIx; the story says what to change.
 *  Threads: one caller, before threads. */
MORAY_MUST_CHECK enum moray_code launch_read(char *const *environment, struct launch *out,
                                             struct moray_error *error);

/** The job's secret, where the launcher already gave all ranks a private random key (mpirun: 128
 *  random bits in OMPI_MCA_orte_precondition_transports; environments are readable by their user
 *  only). Writes 32 bytes hashed from it and returns true. Returns false where there is none (srun,
 *  no launcher): then rank 0 makes one and hands it on through PMIx or MPI.
 *  Threads: any; needs no MPI. */
bool launch_secret(char *const *environment, uint8_t secret[LAUNCH_SECRET_BYTES]);

/** Whether this process may be forked now: MPI not started, no open GPU device, and no threads but
 *  the caller's and those of libraries with fork handlers from the tested list (OpenBLAS).
 *  Errors: MORAY_WRONG_STATE; the story names the thread, its library and says "call moray_init
 *  first".
 *  Threads: main thread. */
MORAY_MUST_CHECK enum moray_code launch_check_fork(struct moray_error *error);

/** Threads of this process at this moment, the caller's included. */
uint32_t launch_thread_count(void);

/** "none", "mpirun", "srun". */
const char *launch_kind_name(enum launch_kind kind);

#endif
