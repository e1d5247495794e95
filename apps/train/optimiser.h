/**
 * The optimiser: sums the gradients of a step in one fixed tree and moves the weights by Adam
 * (Kingma and Ba, 2015, algorithm 1).
 *
 *     part  0   1   2   3        the tree goes by the number of the part, never by who
 *            \ /     \ /         computed it or who was ready first
 *             '───┬───'
 *
 * Sum and update are one pass, in blocks that stay in the first cache: 4 gradients, two moments
 * and the weights are read once each.
 * Pure: no clock, file or runtime. Threads: one caller at a time, but disjoint ranges of parameters
 * may be updated by different processes after one optimiser_begin().
 */
#ifndef TRAIN_OPTIMISER_H
#define TRAIN_OPTIMISER_H

#include "net.h"

struct optimiser {
    double power_1, power_2; /* decay_1 and decay_2 to the number of steps: 1 before the first */
    double rate;             /* of the step under way */
    float moment_1[NET_PARAMETERS], moment_2[NET_PARAMETERS];
};

/** Makes it ready for the first step. */
void optimiser_start(struct optimiser *optimiser);

/** Begins a step at this rate of learning. */
void optimiser_begin(struct optimiser *optimiser, double rate);

/** Moves the parameters first … end - 1 by the sum of `count` gradients, 1 to STEP_PARTS: reads
 *  `before`, writes `after`, which may be the same. */
void optimiser_move(struct optimiser *optimiser, const struct gradient *const *parts,
                    uint32_t count, uint32_t first, uint32_t end, const struct weights *before,
                    struct weights *after);

/** The loss of all parts, summed in the same tree. */
double optimiser_loss(const struct gradient *const *parts, uint32_t count);

#endif
