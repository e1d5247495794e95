/**
 * What MORAY_CHAOS and `moray run --chaos` take: worker=TIME[,seed=S], as in worker=100ms,seed=7.
 *
 * The one parser of that text: the command checks with it what it hands on, the settings what they are
 * given, and the agent reads with it what it is to do.
 */
#ifndef MORAY_BASE_CHAOS_H
#define MORAY_BASE_CHAOS_H

#include <stdbool.h>
#include <stdint.h>

/* For the end of a sentence: "it takes …". */
#define CHAOS_TAKES                                                     \
    "worker=TIME[,seed=S], as in worker=100ms,seed=7; TIME is a whole " \
    "number of us, ms or s, from 1us to 1000000s, S one below 2^32"

struct chaos {
    uint64_t mean_ns; /* between two kills of a worker; 0: none is killed */
    uint32_t seed;    /* 1 if not said */
};

/** Reads the text into `*out`; an empty one gives zeros. Returns false, and leaves `*out` alone, if it
 *  is not understood. Threads: any. */
bool chaos_read(const char *text, struct chaos *out);

#endif
