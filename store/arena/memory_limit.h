/**
 * How much memory this process may use: the host's, or the least limit of the cgroups it is in.
 *
 * Both versions of cgroups are read, from the process's own group up to the root, since a limit of
 * any level holds. All files are read below `root`, so that tests run on recorded machines.
 * Threads: any. Cost: ~100 us; asked once at start.
 */
#ifndef MORAY_STORE_ARENA_MEMORY_LIMIT_H
#define MORAY_STORE_ARENA_MEMORY_LIMIT_H

#include <stdint.h>

/** Bytes; `root` is "" for this machine. `*whose` gets "the cgroup's limit" or "the host's memory"
 *  (static; may be NULL). Never 0: a host that tells nothing counts as 1 GiB. */
uint64_t memory_limit_at(const char *root, const char **whose);

#endif
