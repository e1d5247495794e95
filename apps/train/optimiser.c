#include "optimiser.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { BLOCK = 512 }; /* floats: sums, moments and weights of a block stay in the first cache */

static const double decay_1 = 0.9, decay_2 = 0.999;
static const float smallest = 1e-8f;

void optimiser_start(struct optimiser *optimiser)
{
    memset(optimiser, 0, sizeof *optimiser);
    optimiser->power_1 = optimiser->power_2 = 1;
}

void optimiser_begin(struct optimiser *optimiser, double rate)
{
    optimiser->power_1 *= decay_1;
    optimiser->power_2 *= decay_2;
    optimiser->rate = rate;
}

/* sum[0 … length - 1] = the parts' values from `first` on, left half + right half, and so down. */
static void tree_sum(const struct gradient *const *parts, uint32_t count, uint32_t first,
                     uint32_t length, float *sum)
{
    if (count == 1) {
        memcpy(sum, parts[0]->values + first, length * sizeof *sum);
    } else if (count == 2) {
        const float *left = parts[0]->values + first, *right = parts[1]->values + first;
        for (uint32_t i = 0; i < length; i++)
            sum[i] = left[i] + right[i];
    } else {
        uint32_t half = (count + 1) / 2;
        float right[BLOCK];
        tree_sum(parts, half, first, length, sum);
        tree_sum(parts + half, count - half, first, length, right);
        for (uint32_t i = 0; i < length; i++)
            sum[i] += right[i];
    }
}

void optimiser_move(struct optimiser *optimiser, const struct gradient *const *parts,
                    uint32_t count, uint32_t first, uint32_t end, const struct weights *before,
                    struct weights *after)
{
    const float keep_1 = (float)decay_1, keep_2 = (float)decay_2;
    const float rate = (float)(optimiser->rate / (1 - optimiser->power_1));
    const float scale = (float)(1 / (1 - optimiser->power_2));
    float sum[BLOCK], values[BLOCK]; /* of its own, so that before == after costs no speed */

    assert(count >= 1 && count <= STEP_PARTS && end <= NET_PARAMETERS);
    for (; first < end; first += BLOCK) {
        uint32_t length = end - first < BLOCK ? end - first : BLOCK;
        float *moment_1 = optimiser->moment_1 + first, *moment_2 = optimiser->moment_2 + first;

        tree_sum(parts, count, first, length, sum);
        memcpy(values, before->values + first, length * sizeof *values);
        for (uint32_t i = 0; i < length; i++) {
            moment_1[i] = keep_1 * moment_1[i] + (1 - keep_1) * sum[i];
            moment_2[i] = keep_2 * moment_2[i] + (1 - keep_2) * sum[i] * sum[i];
            values[i] -= rate * moment_1[i] / (sqrtf(moment_2[i] * scale) + smallest);
        }
        memcpy(after->values + first, values, length * sizeof *values);
    }
}

double optimiser_loss(const struct gradient *const *parts, uint32_t count)
{
    uint32_t half = (count + 1) / 2;

    if (count == 1)
        return parts[0]->loss;
    return optimiser_loss(parts, half) + optimiser_loss(parts + half, count - half);
}
