/**
 *  process 0 ─ reads the files ─ fork ┬─ shards 0 2 4 … ─┬─ parts 0 2 ─┬─ its half ─┬─ …
 *                                     │                gate          gate         gate
 *  process 1                          └─ shards 1 3 5 … ─┴─ parts 1 3 ─┴─ its half ─┴─ …
 *
 * All share one mapping. Between two gates nobody writes what another one reads.
 * A gate is a barrier and has no limit of its own; it ends because a process that dies takes the
 * others along (PR_SET_PDEATHSIG downwards, SIGCHLD upwards).
 */
#include "plain.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "optimiser.h"
#include "random.h"
#include "say.h"
#include "shard.h"

struct shared {
    pthread_barrier_t gate;
    struct pixel_sums sums[SHARDS_MAX];
    struct score scores[SHARDS_MAX];
    struct weights weights;
    struct optimiser optimiser;
    struct gradient parts[STEP_PARTS];
    struct shard shards[]; /* training's, then the test's */
};

/* One process's view of the work. */
struct hand {
    const struct options *options;
    struct extent extent;
    struct dataset train, test;
    uint32_t *images_order; /* owned; of the training images */
    uint32_t *parts_order;  /* owned; of this epoch */
    struct shared *shared;  /* borrowed */
    uint32_t me, processes;
    struct net_scratch scratch;
};

static void pass_gate(struct hand *hand)
{
    pthread_barrier_wait(&hand->shared->gate);
}

static uint32_t shards_of(const struct extent *extent)
{
    return extent->train_shards + extent->test_shards;
}

/* Takes shard `number` of training's, then the test's, out of the data sets. */
static void take_shard(const struct hand *hand, uint32_t number, struct raw_shard *raw)
{
    if (number < hand->extent.train_shards)
        shard_take(&hand->train, hand->images_order, number, raw);
    else
        shard_take(&hand->test, NULL, number - hand->extent.train_shards, raw);
}

static int make_shards(struct hand *hand)
{
    struct raw_shard *raw = malloc(sizeof *raw);
    struct pixel_sums total = {0};

    if (!raw)
        return say_error("no memory for a shard");
    for (uint32_t i = hand->me; i < hand->extent.train_shards; i += hand->processes) {
        take_shard(hand, i, raw);
        hand->shared->sums[i] = shard_measure(raw);
    }
    pass_gate(hand);
    for (uint32_t i = 0; i < hand->extent.train_shards; i++)
        shard_add(&total, &hand->shared->sums[i]);
    struct pixel_scale scale = shard_scale(&total);
    for (uint32_t i = hand->me; i < shards_of(&hand->extent); i += hand->processes) {
        take_shard(hand, i, raw);
        shard_normalise(raw, &scale, &hand->shared->shards[i]);
    }
    free(raw);
    return 0;
}

static void train_step(struct hand *hand, uint32_t step, double rate, double *loss)
{
    struct shared *shared = hand->shared;
    const struct gradient *parts[STEP_PARTS];
    uint32_t half = NET_PARAMETERS / hand->processes, first = half * hand->me;
    uint32_t end = hand->me + 1 == hand->processes ? NET_PARAMETERS : first + half;

    for (uint32_t i = hand->me; i < STEP_PARTS; i += hand->processes) {
        uint32_t part = hand->parts_order[step * STEP_PARTS + i];
        const struct shard *shard = &shared->shards[part / SHARD_PARTS];
        uint32_t row = part % SHARD_PARTS * PART_ROWS;
        net_gradient(&shared->weights, shard->images + row, shard->labels + row, PART_ROWS,
                     1.0f / (PART_ROWS * STEP_PARTS), &hand->scratch, &shared->parts[i]);
    }
    if (hand->me == 0)
        optimiser_begin(&shared->optimiser, rate);
    pass_gate(hand);
    for (uint32_t i = 0; i < STEP_PARTS; i++)
        parts[i] = &shared->parts[i];
    optimiser_move(&shared->optimiser, parts, STEP_PARTS, first, end, &shared->weights,
                   &shared->weights);
    *loss += optimiser_loss(parts, STEP_PARTS);
    pass_gate(hand);
}

static void evaluate(struct hand *hand)
{
    for (uint32_t i = hand->me; i < hand->extent.test_shards; i += hand->processes) {
        const struct shard *shard = &hand->shared->shards[hand->extent.train_shards + i];
        struct score *score = &hand->shared->scores[i];

        memset(score, 0, sizeof *score);
        net_score(&hand->shared->weights, shard->images, shard->labels, shard->rows, &hand->scratch,
                  score);
    }
    pass_gate(hand);
}

static int train_epoch(struct hand *hand, uint32_t epoch, struct report *report)
{
    const struct plan *plan = &hand->options->plan;
    uint64_t steps = (uint64_t)hand->extent.steps * plan->epochs;
    struct score score = {0};
    double loss = 0;

    if (random_order(plan->seed, RANDOM_PARTS, epoch, hand->parts_order, hand->extent.parts))
        return -1;
    for (uint32_t step = 0; step < hand->extent.steps; step++) {
        double rate = plan_rate(plan, (uint64_t)epoch * hand->extent.steps + step, steps);
        train_step(hand, step, rate, &loss);
        if (hand->me == 0)
            say_progress("epoch %u of %u: step %u of %u", epoch + 1, plan->epochs, step + 1,
                         hand->extent.steps);
    }
    evaluate(hand);
    if (hand->me == 0) {
        for (uint32_t i = 0; i < hand->extent.test_shards; i++)
            net_add_score(&score, &hand->shared->scores[i]);
        report_add(report, loss, &score);
    }
    return 0;
}

/* What every process does; only process 0 reports. */
static int work(struct hand *hand, struct report *report)
{
    if (make_shards(hand))
        return -1;
    if (hand->me == 0) {
        net_start(hand->options->plan.seed, &hand->shared->weights);
        optimiser_start(&hand->shared->optimiser);
    }
    pass_gate(hand);
    if (hand->me == 0)
        report_ready(report, &hand->extent, hand->test.rows);
    for (uint32_t epoch = 0; epoch < hand->options->plan.epochs; epoch++)
        if (train_epoch(hand, epoch, report))
            return -1;
    if (hand->me == 0)
        report_end(report, &hand->shared->weights);
    return 0;
}

static void on_child(int signal)
{
    int status;

    (void)signal;
    while (waitpid(-1, &status, WNOHANG) > 0)
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            static const char text[] = "train: a process of --plain died\n";
            if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
                _exit(2); /* nobody reads; the status still tells */
            _exit(1);
        }
}

static int start_hands(struct hand *hand)
{
    struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART | SA_NOCLDSTOP};
    pid_t parent = getpid();

    sigaction(SIGCHLD, &action, NULL);
    for (uint32_t i = 1; i < hand->processes; i++) {
        pid_t child = fork();
        if (child < 0)
            return say_error("cannot fork: %s", strerror(errno));
        if (child > 0)
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1); /* it died before the line above */
        hand->me = i;
        _exit(work(hand, NULL) ? 1 : 0);
    }
    return 0;
}

static int open_shared(struct hand *hand, size_t *bytes)
{
    pthread_barrierattr_t attribute;

    *bytes = sizeof *hand->shared + shards_of(&hand->extent) * sizeof(struct shard);
    hand->shared = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (hand->shared == MAP_FAILED) {
        hand->shared = NULL;
        return say_error("cannot map %zu bytes: %s", *bytes, strerror(errno));
    }
    pthread_barrierattr_init(&attribute);
    pthread_barrierattr_setpshared(&attribute, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&hand->shared->gate, &attribute, hand->processes);
    pthread_barrierattr_destroy(&attribute);
    return 0;
}

static int prepare(struct hand *hand)
{
    if (dataset_read(hand->options->data, "train", &hand->train) ||
        dataset_read(hand->options->data, "t10k", &hand->test) ||
        extent_measure(hand->train.rows, hand->test.rows, &hand->extent))
        return -1;
    hand->images_order = malloc(hand->train.rows * sizeof *hand->images_order);
    hand->parts_order = malloc(hand->extent.parts * sizeof *hand->parts_order);
    if (!hand->images_order || !hand->parts_order)
        return say_error("no memory for the order of the images");
    return random_order(hand->options->plan.seed, RANDOM_IMAGES, 0, hand->images_order,
                        hand->train.rows);
}

int plain_train(const struct options *options, struct report *report)
{
    struct hand *hand = calloc(1, sizeof *hand);
    size_t bytes = 0;
    int code = -1;

    if (!hand)
        return say_error("no memory to start");
    hand->options = options;
    hand->processes = options->processes;
    if (prepare(hand) == 0 && open_shared(hand, &bytes) == 0 && start_hands(hand) == 0)
        code = work(hand, report);
    report->ranks = 1;
    report->workers = hand->processes;
    if (hand->shared)
        munmap(hand->shared, bytes);
    dataset_free(&hand->train);
    dataset_free(&hand->test);
    free(hand->images_order);
    free(hand->parts_order);
    free(hand);
    return code;
}
