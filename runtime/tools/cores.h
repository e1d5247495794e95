/**
 * How many slots mpirun counts on this host: cores, not their threads, that this process may use.
 * Reads /sys. Threads: any. Cost: a file a core.
 */
#ifndef MORAY_TOOLS_CORES_H
#define MORAY_TOOLS_CORES_H

/** At least 1. Where /sys tells nothing, every processor counts as a core. */
unsigned cores_here(void);

#endif
