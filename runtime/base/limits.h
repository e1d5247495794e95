/**
 * How much memory and how many processes this process may use: the host's, or the least limit of the
 * cgroups it is in.
 *
 * Both versions of cgroups are read, from the process's own group up to the root, since a limit of
 * any level holds. All files are read below `root` ("" for this machine), so that tests run on
 * recorded machines. Threads: any. Cost: ~100 us each; asked once at start.
 */
#ifndef MORAY_BASE_LIMITS_H
#define MORAY_BASE_LIMITS_H

#include <stdint.h>

/** Bytes. `*whose` gets "the cgroup's limit" or "the host's memory" (static; may be NULL). Never 0:
 *  a host that tells nothing counts as 1 GiB. */
uint64_t limits_memory_at(const char *root, const char **whose);

/** Processes and threads: the least pids.max. UINT64_MAX: no limit. (RLIMIT_NPROC is apart.) */
uint64_t limits_processes_at(const char *root);

#endif
