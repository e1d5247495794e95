#include "shard.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "say.h"

int extent_measure(uint32_t train_rows, uint32_t test_rows, struct extent *out)
{
    *out = (struct extent){
        .train_shards = (train_rows + SHARD_ROWS - 1) / SHARD_ROWS,
        .test_shards = (test_rows + SHARD_ROWS - 1) / SHARD_ROWS,
        .parts = train_rows / PART_ROWS,
        .steps = train_rows / (PART_ROWS * STEP_PARTS),
    };
    if (out->steps == 0)
        return say_error("%u training images: at least %d are needed", train_rows,
                         PART_ROWS * STEP_PARTS);
    if (out->train_shards + out->test_shards > SHARDS_MAX)
        return say_error("%u images: at most %d shards of %d are possible", train_rows + test_rows,
                         SHARDS_MAX, SHARD_ROWS);
    return 0;
}

void shard_take(const struct dataset *dataset, const uint32_t *order, uint32_t number,
                struct raw_shard *out)
{
    uint32_t first = number * SHARD_ROWS;

    assert(first < dataset->rows);
    out->rows = dataset->rows - first < SHARD_ROWS ? dataset->rows - first : SHARD_ROWS;
    for (uint32_t i = 0; i < out->rows; i++) {
        uint32_t row = order ? order[first + i] : first + i;
        out->labels[i] = dataset->labels[row];
        memcpy(out->pixels[i], dataset->pixels + (size_t)row * IMAGE_PIXELS, IMAGE_PIXELS);
    }
}

struct pixel_sums shard_measure(const struct raw_shard *raw)
{
    struct pixel_sums sums = {.count = (uint64_t)raw->rows * IMAGE_PIXELS};

    for (uint32_t i = 0; i < raw->rows; i++) {
        uint32_t sum = 0, squares = 0; /* 784 × 255² fits */
        for (uint32_t j = 0; j < IMAGE_PIXELS; j++) {
            uint32_t pixel = raw->pixels[i][j];
            sum += pixel;
            squares += pixel * pixel;
        }
        sums.sum += sum;
        sums.squares += squares;
    }
    return sums;
}

void shard_add(struct pixel_sums *total, const struct pixel_sums *sums)
{
    total->count += sums->count;
    total->sum += sums->sum;
    total->squares += sums->squares;
}

struct pixel_scale shard_scale(const struct pixel_sums *total)
{
    double mean = (double)total->sum / (double)total->count;
    double variance = (double)total->squares / (double)total->count - mean * mean;

    return (struct pixel_scale){
        .mean = (float)mean,
        .factor = variance > 0 ? (float)(1.0 / sqrt(variance)) : 1.0f, /* all pixels alike */
    };
}

void shard_normalise(const struct raw_shard *raw, const struct pixel_scale *scale,
                     struct shard *out)
{
    out->rows = raw->rows;
    memcpy(out->labels, raw->labels, sizeof out->labels);
    for (uint32_t i = 0; i < raw->rows; i++)
        for (uint32_t j = 0; j < IMAGE_PIXELS; j++)
            out->images[i][j] = ((float)raw->pixels[i][j] - scale->mean) * scale->factor;
}
