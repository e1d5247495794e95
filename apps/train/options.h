/**
 * The command line of train.
 */
#ifndef TRAIN_OPTIONS_H
#define TRAIN_OPTIONS_H

#include <stdbool.h>

#include "plan.h"

struct options {
    struct plan plan;
    const char *data;   /* folder of the data set; borrowed from argv, as the next two */
    const char *json;   /* file for the figures; NULL: none */
    const char *svg;    /* file for the curve; NULL: none */
    bool svg_asked;     /* by the user: then it is an error if it cannot be written */
    bool plain;         /* two plain processes, without the runtime */
    uint32_t processes; /* of --plain */
    bool help;
};

/** Reads the command line; `out` is then complete.
 *  Errors: -1, told to the user, with the option's name. */
int options_parse(int argc, char **argv, struct options *out);

/** Prints what the options are. */
void options_help(void);

#endif
