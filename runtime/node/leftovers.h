/**
 * What Open MPI leaves on a host when its launcher (mpirun, or orted on the other hosts) is killed:
 * a session directory, and segments in /dev/shm that carry the job's number in hexadecimal.
 *
 *     $TMPDIR/ompi.HOST.UID/pid.PID    mpirun's        …/jf.FAMILY    an orted's
 *     /dev/shm/vader_segment.HOST.UID.JOB.RANK, osc_sm.…, osc_rdma.…
 *
 * JOB is 32 bits; its upper half, the family, belongs to one launcher. So both names are those of one
 * launcher, and what is removed here is never another job's: nothing happens while the launcher
 * lives, and the directory above goes only when it is empty.
 * Who calls: the last process of a job on a host (the zygote, after its rank's death), and moray run.
 * Threads: one caller at a time; several processes may do the same work at once. Cost: ~1 ms.
 */
#ifndef MORAY_NODE_LEFTOVERS_H
#define MORAY_NODE_LEFTOVERS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct leftovers {
    char session[PATH_MAX];  /* the launcher's directory; "" = nothing to remove */
    uint32_t family;         /* upper half of the job's number; 0 = read from the directory */
    pid_t launcher;          /* 0 = unknown: nothing is ever removed */
    uint64_t launcher_start; /* its start time in clock ticks: a pid may be used again */
};

/** Reads what this rank's launcher would leave, from `environment` (NULL = environ) and its ancestors.
 *  Returns false, and nothing to remove, where Open MPI's launcher did not start this process.
 *  Called early in moray_init, before the launcher can have died. */
bool leftovers_of_rank(char *const *environment, struct leftovers *out);

/** The same for an mpirun that this process has just started as `pid`. */
void leftovers_of_mpirun(pid_t pid, struct leftovers *out);

/** Waits up to `limit_ms` for the launcher's end, then removes what it left, if it left anything.
 *  Returns false, with nothing removed, if the launcher lives or is unknown. Errors are not told: the
 *  job is over, and what cannot be removed has no reader. */
bool leftovers_remove(const struct leftovers *leftovers, unsigned limit_ms);

#endif
