/**
 * Shards: images ready for the network, as they lie in an object.
 *
 *     dataset ──take──▶ raw_shard (1 MB of bytes) ──measure──▶ pixel_sums ─┐
 *                           │                                              ├─▶ pixel_scale
 *                           └──────────────normalise──▶ shard (4 MB) ◀─────┘
 *
 * The sums are whole numbers, so their total does not depend on the order of the shards.
 * Pure but for what extent_measure() tells the user. Threads: any.
 */
#ifndef TRAIN_SHARD_H
#define TRAIN_SHARD_H

#include "dataset.h"
#include "plan.h"

struct raw_shard {
    uint32_t rows; /* at most SHARD_ROWS */
    uint8_t labels[SHARD_ROWS];
    uint8_t pixels[SHARD_ROWS][IMAGE_PIXELS];
};

struct shard {
    uint32_t rows;
    uint8_t labels[SHARD_ROWS];
    float images[SHARD_ROWS][IMAGE_PIXELS];
};

struct pixel_sums {
    uint64_t count, sum, squares;
};

struct pixel_scale {
    float mean, factor; /* a pixel p becomes (p - mean) × factor: mean 0, deviation 1 */
};

/** Cuts the data into shards, parts and steps.
 *  Errors: -1, told to the user, if there are too few images for one step, or too many. */
int extent_measure(uint32_t train_rows, uint32_t test_rows, struct extent *out);

/** Takes the images of shard `number` out of `dataset`, in `order` (NULL: as they lie). */
void shard_take(const struct dataset *dataset, const uint32_t *order, uint32_t number,
                struct raw_shard *out);

/** Sums the pixels; shard_add() adds sums; shard_scale() turns the total into a scale. */
struct pixel_sums shard_measure(const struct raw_shard *raw);
void shard_add(struct pixel_sums *total, const struct pixel_sums *sums);
struct pixel_scale shard_scale(const struct pixel_sums *total);

/** Makes a shard: pixels become reals, labels are copied. */
void shard_normalise(const struct raw_shard *raw, const struct pixel_scale *scale,
                     struct shard *out);

#endif
