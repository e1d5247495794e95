/**
 * The command moray: runs programs, tells settings, starts the benchmarks.
 *
 *     moray run [options] [--] ./app …     job.h, command.h
 *     moray settings [--document]          one line a setting: name, value, where it comes from
 *     moray bench …                        becomes the program bench, which lies beside the command
 *     moray version
 *
 * Exit status: of run and bench that of the program; else 0, or 2 for a line that was not understood.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/settings.h"
#include "base/streams.h"
#include "tools/command.h"
#include "tools/cores.h"
#include "tools/job.h"

#ifndef MORAY_VERSION
#error "the build says which version this is"
#endif
#ifndef MORAY_LIBEXEC
#error "the build says where bench is installed"
#endif

static const char help[] =
    "Usage: moray run [options] [--] PROGRAM [arguments]   start a program, one or several ranks\n"
    "       moray settings [--document]                    list the settings, or explain them\n"
    "       moray bench [--json FILE] [--rows a,b]         run the benchmarks\n"
    "       moray version\n";

static const char run_help[] =
    "Usage: moray run [options] [--] PROGRAM [arguments]\n"
    "Starts PROGRAM with the right flags for the launcher at hand, prints the line that it runs "
    "to\n"
    "stderr, and ends with the program's own exit status (128 + N if signal N ended it).\n"
    "\n"
    "  -n, --ranks N             how many ranks; 1 needs no launcher (1; under Slurm as the\n"
    "                            allocation says)\n"
    "  --launcher NAME           auto, mpirun, srun or none (auto: srun inside a Slurm "
    "allocation)\n"
    "  --launcher-options TEXT   more words for the launcher, as in '--hostfile hosts'\n"
    "  --chaos worker=TIME[,seed=S]  kill a random worker at that mean interval, as in 100ms: the\n"
    "                            results of a right program stay the same\n"
    "  --gdb FUNCTION            stop a worker before it runs that task, and say how to attach "
    "gdb\n"
    "  --quiet                   do not print the line\n"
    "  --help                    this text\n";

static int refuse(const char *what, const char *text)
{
    fprintf(stderr, "moray: %s%s\n", what, text);
    return 2;
}

static int take_launcher(const char *name, enum command_launcher *out)
{
    static const char *const names[] = {"auto", "none", "mpirun", "srun"};

    for (int i = 0; i < 4; i++)
        if (!strcmp(name, names[i])) {
            *out = (enum command_launcher)i;
            return 0;
        }
    return refuse("--launcher must be auto, mpirun, srun or none, not ", name);
}

static int take_ranks(const char *text, unsigned *out)
{
    char *end;

    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || value < 1 || value > COMMAND_RANKS_MAX)
        return refuse("-n must be a whole number from 1 to 1000000, not ", text);
    *out = (unsigned)value;
    return 0;
}

/* Reads the options of run. Returns 0 to go on, else the exit status plus 1. */
static int read_options(int argc, char **argv, struct command_options *out, bool *quiet)
{
    static const struct option options[] = {
        {"ranks", required_argument, NULL, 'n'},
        {"launcher", required_argument, NULL, 'l'},
        {"launcher-options", required_argument, NULL, 'o'},
        {"chaos", required_argument, NULL, 'c'},
        {"gdb", required_argument, NULL, 'g'},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int option, code = 0;

    while (!code && (option = getopt_long(argc, argv, "+n:", options, NULL)) != -1) {
        switch (option) {
        case 'n':
            code = take_ranks(optarg, &out->rank_count);
            break;
        case 'l':
            code = take_launcher(optarg, &out->launcher);
            break;
        case 'o':
            out->launcher_options = optarg;
            break;
        case 'c':
            out->chaos = optarg;
            break;
        case 'g':
            out->gdb = optarg;
            break;
        case 'q':
            *quiet = true;
            break;
        case 'h':
            fputs(run_help, stdout);
            return 1;
        default:
            fputs("Try: moray run --help\n", stderr);
            return 3;
        }
    }
    out->program = argv + optind;
    return code ? code + 1 : 0;
}

static int run(int argc, char **argv)
{
    static struct command command; /* 40 kB: not for the stack of a small command */
    struct command_options options = {0};
    struct moray_error error;
    bool quiet = false;
    char line[16384];

    int code = read_options(argc, argv, &options, &quiet);
    if (code)
        return code - 1;
    if (command_make(&options, environ, cores_here(), geteuid() == 0, &command, &error))
        return refuse(error.text, "");
    const char *program = options.program[0];
    if (strchr(program, '/') && access(program, X_OK)) {
        fprintf(stderr, "moray run: cannot start %s: %s\n", program, strerror(errno));
        return errno == ENOENT ? 127 : 126;
    }
    if (!quiet) {
        command_print(&command, line, sizeof line);
        fprintf(stderr, "moray run: %s\n", line);
    }
    return job_run(&command);
}

/* A setting that cannot be is told with its name, as a program would be told. */
static int settings(int argc, char **argv)
{
    struct settings all;
    struct moray_error error;

    if (argc == 2 && !strcmp(argv[1], "--document")) {
        settings_document(stdout);
        return 0;
    }
    if (argc != 1)
        return refuse("settings takes no argument but --document, not ", argv[1]);
    if (settings_load(NULL, environ, &all, &error))
        return refuse(error.text, "");
    settings_print(&all, stdout);
    return 0;
}

/* The benchmarks lie in the build tree at apps/bench/bench, installed in libexec. */
static int bench(char **argv)
{
    static const char *const places[] = {"apps/bench/bench", "bench"};
    char here[PATH_MAX], path[PATH_MAX + 32];

    ssize_t length = readlink("/proc/self/exe", here, sizeof here - 1);
    if (length < 0)
        return refuse("cannot find the command's own place: ", strerror(errno));
    here[length] = 0;
    *(strrchr(here, '/') + 1) = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s%s", here, places[i]);
        execv(path, argv);
    }
    execv(MORAY_LIBEXEC "/bench", argv);
    fprintf(stderr, "moray: the benchmarks are neither in %sapps/bench nor in " MORAY_LIBEXEC "\n",
            here);
    return 2;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";

    streams_open();
    if (!strcmp(word, "run"))
        return run(argc - 1, argv + 1);
    if (!strcmp(word, "settings"))
        return settings(argc - 1, argv + 1);
    if (!strcmp(word, "bench"))
        return bench(argv + 1);
    if (!strcmp(word, "version") || !strcmp(word, "--version")) {
        puts("moray " MORAY_VERSION);
        return 0;
    }
    if (!strcmp(word, "help") || !strcmp(word, "--help") || !strcmp(word, "-h")) {
        fputs(help, stdout);
        return 0;
    }
    if (*word)
        fprintf(stderr, "moray: there is no command '%s'\n", word);
    fputs(help, stderr);
    return 2;
}
