#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "say.h"

enum { PROCESSES_MAX = STEP_PARTS }; /* more would have no part of a step */

static const char help[] =
    "Usage: train [options]\n"
    "Trains a small network on the 60,000 images of Fashion-MNIST, with tasks, actors and "
    "objects.\n"
    "Start it alone, or with mpirun, srun or moray run on several ranks: the result is the same.\n"
    "\n"
    "  --epochs E     passes over the images (20)\n"
    "  --seed S       of everything that is drawn; one seed, one result (1)\n"
    "  --rate R       of learning, at the start (0.002)\n"
    "  --data DIR     folder of the data set (" TRAIN_DATA ")\n"
    "  --json FILE    write accuracy, loss, time and digest there\n"
    "  --svg FILE     draw the curve there; 'none' for no drawing (train.svg)\n"
    "  --plain        the same computation in plain processes, without Moray\n"
    "  --processes N  of --plain (2)\n"
    "  --help         this text\n"
    "\n"
    "MORAY_PROGRESS=on or off decides about the progress line; else it appears on a terminal "
    "only.\n";

static int parse_whole(const char *name, const char *text, uint64_t least, uint64_t most,
                       uint64_t *out)
{
    char *end;

    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || strchr(text, '-') || value < least || value > most)
        return say_error("--%s %s: it must be a whole number from %llu to %llu", name, text,
                         (unsigned long long)least, (unsigned long long)most);
    *out = value;
    return 0;
}

static int parse_rate(const char *text, double *out)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !isfinite(value) || value <= 0 || value > 1)
        return say_error("--rate %s: it must be a number above 0, at most 1", text);
    *out = value;
    return 0;
}

static int take(struct options *options, int option)
{
    uint64_t number = 0;
    int code = 0;

    switch (option) {
    case 'e':
        code = parse_whole("epochs", optarg, 1, EPOCHS_MAX, &number);
        options->plan.epochs = (uint32_t)number;
        return code;
    case 's':
        return parse_whole("seed", optarg, 0, UINT64_MAX, &options->plan.seed);
    case 'r':
        return parse_rate(optarg, &options->plan.rate);
    case 'n':
        code = parse_whole("processes", optarg, 1, PROCESSES_MAX, &number);
        options->processes = (uint32_t)number;
        return code;
    case 'd':
        options->data = optarg;
        return 0;
    case 'j':
        options->json = optarg;
        return 0;
    case 'v':
        options->svg = strcmp(optarg, "none") == 0 ? NULL : optarg;
        options->svg_asked = true;
        return 0;
    case 'p':
        options->plain = true;
        return 0;
    case 'h':
        options->help = true;
        return 0;
    default:
        return -1;
    }
}

int options_parse(int argc, char **argv, struct options *out)
{
    static const struct option names[] = {
        {"epochs", required_argument, NULL, 'e'},
        {"seed", required_argument, NULL, 's'},
        {"rate", required_argument, NULL, 'r'},
        {"data", required_argument, NULL, 'd'},
        {"json", required_argument, NULL, 'j'},
        {"svg", required_argument, NULL, 'v'},
        {"processes", required_argument, NULL, 'n'},
        {"plain", no_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;

    *out = (struct options){
        .plan = {.seed = 1, .epochs = 20, .rate = 0.002},
        .data = TRAIN_DATA,
        .svg = "train.svg",
        .processes = 2,
    };
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", names, NULL)) != -1) {
        if (option == '?')
            return say_error("%s: no such option; --help lists them", argv[optind - 1]);
        if (option == ':')
            return say_error("%s needs a value; --help lists the options", argv[optind - 1]);
        if (take(out, option))
            return -1;
    }
    if (optind < argc)
        return say_error("%s: not an option; --help lists them", argv[optind]);
    return 0;
}

void options_help(void)
{
    say_text(help);
}
