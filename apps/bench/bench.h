/**
 * The benchmarks: a table of rows (rows.c), a harness that runs each (main.c), and programs that are
 * measured. A program is a process, or a job, of its own and answers on its standard output:
 *
 *     bench ── "run\n" ──▶ stdin    program: bench --child NAME …, peers/NAME, train
 *       ◀── "value=3.1 tasks=10000\n" ── stdout        one run, timed by the program itself
 *
 * A program that STAYS serves all runs of its row, its first answer being the warm-up; one that runs
 * ONCE is started for each run. Moray's run and its peers' run alternate, so that what else the
 * machine does hits both, and so do those of two rows of which one is judged by the other; where the
 * machine changes its pace within a run, parts of a run do, each asked for by itself, and the run's value
 * is their mean. A word of the answer with the side's key is the value; the others are shown in the
 * params.
 */
#ifndef MORAY_BENCH_BENCH_H
#define MORAY_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

enum {
    BENCH_RUNS = 7, /* measured, after one that is not */
    BENCH_RUNS_QUICK = 2,
    BENCH_PEERS_MAX = 3,    /* ways to run one peer: the best counts */
    BENCH_TOGETHER_MAX = 2, /* rows */
    BENCH_TEXT = 1024,
};

enum life { STAYS, ONCE };

enum measure {
    ASK,   /* the program tells the value */
    START, /* it tells when it was there, on the monotonic clock: the value is since exec */
    IDLE,  /* the value is the processor time of its job after the answer, a rank */
    WAKES, /* as ASK; with the sleeps of the whole job during the run, a task, in the params */
    TRAIN, /* seconds from exec to exit; loss of one digest is a failure */
    SPEED, /* images/s of train; likewise */
};

/** How to start what is measured. All borrowed, static. */
struct side {
    const char *program;  /* path from the folder of bench; NULL: bench itself, as --child */
    const char *words;    /* arguments; parted by blanks */
    const char *quick;    /* … with --quick; NULL: the same */
    const char *settings; /* variables of the environment, parted by blanks; may be NULL */
    int ranks;            /* 0: without a launcher */
    enum life life;
    enum measure measure;
    const char *key; /* of the value in the answer; NULL: "value" */
    /* of the row, with Moray's side: */
    int parts; /* of a run; 0: it is one */
    int runs;  /* where they differ much; 0: BENCH_RUNS */
    bool
        with_next; /* its runs alternate with those of the next row, of the same name and as many */
};

struct row {
    const char *name, *params, *unit;
    struct side moray;
    const char *peer; /* NULL: none */
    struct side peers[BENCH_PEERS_MAX];
    bool
        divide; /* the value is Moray's ÷ the peer's, run by run; the columns of a peer are empty */
};

extern const struct row bench_rows[];
extern const size_t bench_row_count;

/** One run. */
struct sample {
    double value;
    char extra[BENCH_TEXT]; /* "key=value;…" or "" */
};

/** A side under way: its process, if it stays. */
struct run {
    const struct side *side;
    bool quick;
    pid_t pid; /* leader of its own process group; 0: none */
    int to, from;
    char text[4 * BENCH_TEXT]; /* read, not yet taken */
    size_t text_bytes;
    uint64_t start_ns; /* just before exec */
    char digest[80];   /* of the first training */
};

/** Measures once. Errors: -1, told on stderr; the process is gone. */
int run_measure(struct run *run, struct sample *out);
/** Ends the process, if there is one; waits for it. Returns -1 if it failed. */
int run_end(struct run *run);

/** Ends what runs, without waiting long: bench itself is being ended. Async-signal-safe. */
void run_kill_all(void);

/** What a job uses: `root` and all its descendants, or without `root` itself if it is a launcher. */
struct usage {
    uint64_t processor_ns, sleeps;
    unsigned processes;
};
struct usage usage_of(pid_t root, bool with_root);

/** Runs as the program measured: the loop of questions and answers. Returns the exit status. */
int child_main(int argc, char **argv);

static inline uint64_t bench_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
