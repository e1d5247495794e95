/**
 * The command line that starts a program under the launcher at hand: a pure function of the options
 * and of the environment.
 *
 *     inside a Slurm allocation    srun --mpi=pmix …
 *     else, several ranks          mpirun …
 *     else, one rank               the program itself, with no launcher at all
 *
 * What the user has set (OMPI_MCA_…, launcher options) is never overruled. Under mpirun all MORAY_
 * variables are passed on by -x: a rank on another host needs some before it hears of rank 0.
 * Nothing here starts anything. Threads: one caller at a time.
 */
#ifndef MORAY_TOOLS_COMMAND_H
#define MORAY_TOOLS_COMMAND_H

#include <stdbool.h>

#include "base/error.h"

enum { COMMAND_WORDS_MAX = 4096, COMMAND_VARIABLES_MAX = 8, COMMAND_RANKS_MAX = 1000000 };

enum command_launcher { COMMAND_AUTO, COMMAND_NONE, COMMAND_MPIRUN, COMMAND_SRUN };

struct command_options {
    unsigned rank_count; /* 0 = not said: one, or under Slurm what the allocation says */
    enum command_launcher launcher;
    const char *launcher_options; /* more words for the launcher, split at blanks; may be NULL */
    const char *chaos;            /* as in "worker=100ms,seed=7"; may be NULL */
    const char *gdb;              /* a function's name; may be NULL */
    char *const *program;         /* the program and its arguments, ended by NULL */
};

struct command {
    enum command_launcher launcher;       /* never COMMAND_AUTO */
    const char *words[COMMAND_WORDS_MAX]; /* ended by NULL; borrowed from options and from `text` */
    const char *variables[COMMAND_VARIABLES_MAX]; /* NAME=VALUE to be added; ended by NULL */
    unsigned word_count, variable_count;
    char text[8192]; /* what was made here: numbers, split options */
    unsigned text_length;
};

/** Works out the command. `environment` as in environ; `core_count` is how many cores this process
 *  may use, `is_root` whether mpirun must be told that root is meant.
 *  Owner: `*out` is the caller's; it borrows from `options`.
 *  Errors: MORAY_INVALID, naming the option. */
MORAY_MUST_CHECK enum moray_code command_make(const struct command_options *options,
                                              char *const *environment, unsigned core_count,
                                              bool is_root, struct command *out,
                                              struct moray_error *error);

/** Writes the line as one could type it into a shell, variables first. Returns its length as
 *  snprintf() does. */
int command_print(const struct command *command, char *out, unsigned out_bytes);

#endif
