/**
 * The sizes of the training: what is cut into what.
 *
 *     60,000 images ── shards of 1,250 ── parts of 250      240 parts an epoch, in an order drawn
 *                                                           from the seed
 *     a step: 4 parts ── 4 gradients ── summed in one tree ── Adam ── the next weights
 *
 * The numbers are fixed, so the same additions happen in the same order however many processes
 * share the work: that, one BLAS thread a process and a fixed BLAS kernel give the same bits
 * everywhere. A part is about 3.5 ms of work for one core, so a runtime's cost a task vanishes; parts
 * of half the size cost 15 % more in all, since each writes a gradient of 0.9 MB.
 */
#ifndef TRAIN_PLAN_H
#define TRAIN_PLAN_H

#include <stdint.h>

enum {
    IMAGE_SIDE = 28,
    IMAGE_PIXELS = IMAGE_SIDE * IMAGE_SIDE,
    CLASSES = 10,
    PART_ROWS = 250, /* images of one gradient */
    STEP_PARTS = 4,  /* gradients of one step */
    SHARD_PARTS = 5, /* parts of one shard */
    SHARD_ROWS = SHARD_PARTS * PART_ROWS,
    SHARDS_MAX = 1024, /* of training images: 1.28 M */
    EPOCHS_MAX = 1000,
};

/** What the user asked for. Zero has no meaning here: options_parse() fills everything in. */
struct plan {
    uint64_t seed;
    uint32_t epochs;
    double rate; /* of learning, at the start; it falls in a straight line to a tenth of it */
};

/** What the data allow. */
struct extent {
    uint32_t train_shards, test_shards;
    uint32_t parts; /* whole parts of training images; what is left over is not trained on */
    uint32_t steps; /* an epoch */
};

/** The rate of step `step` of `steps` in all. Only + - * /, which every machine rounds alike. */
static inline double plan_rate(const struct plan *plan, uint64_t step, uint64_t steps)
{
    return plan->rate * (1.0 - 0.9 * (double)step / (double)steps);
}

#endif
