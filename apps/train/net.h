/**
 * The network: 784 pixels, two hidden layers of rectifiers, 10 classes by softmax.
 *
 *     images[rows][784] ─ W1 + b1 ─ relu ─ W2 + b2 ─ relu ─ W3 + b3 ─ softmax ─ cross entropy
 *
 * All matrices are row-major and lie one behind the other in one array of NET_PARAMETERS floats, so
 * weights and gradients are plain objects that are read where they lie. The products are CBLAS's.
 * Pure: no clock, file or runtime; the same input gives the same bits, provided one BLAS thread and
 * one BLAS kernel (blas.h). Threads: any, each with a scratch of its own.
 * Cost: a gradient of 250 images is 0.25 G floating-point operations and no allocation.
 */
#ifndef TRAIN_NET_H
#define TRAIN_NET_H

#include "plan.h"

enum {
    NET_LAYERS = 3,
    NET_HIDDEN_1 = 256,
    NET_HIDDEN_2 = 128,
    NET_PARAMETERS = (IMAGE_PIXELS + 1) * NET_HIDDEN_1 + (NET_HIDDEN_1 + 1) * NET_HIDDEN_2 +
                     (NET_HIDDEN_2 + 1) * CLASSES,
};

struct weights {
    float values[NET_PARAMETERS];
};

struct gradient {
    double loss; /* summed over the images */
    float values[NET_PARAMETERS];
};

/** How well weights do on some images. Counts are whole numbers: they add up in any order. */
struct score {
    double loss;                      /* summed over the images */
    uint32_t table[CLASSES][CLASSES]; /* [what it is][what the network says] */
};

/** What lies between the layers while one part is worked on. */
struct net_scratch {
    float hidden_1[PART_ROWS][NET_HIDDEN_1], hidden_2[PART_ROWS][NET_HIDDEN_2];
    float output[PART_ROWS][CLASSES];
    float back_1[PART_ROWS][NET_HIDDEN_1], back_2[PART_ROWS][NET_HIDDEN_2];
};

/** Draws the first weights from the seed (uniform, He's limits); biases are 0. */
void net_start(uint64_t seed, struct weights *weights);

/** Writes to `out` the gradient of the summed loss × `scale` over `rows` images, at most
 *  PART_ROWS. Every value of `out` is written. */
void net_gradient(const struct weights *weights, const float (*images)[IMAGE_PIXELS],
                  const uint8_t *labels, uint32_t rows, float scale, struct net_scratch *scratch,
                  struct gradient *out);

/** Adds to `score` what the network makes of `rows` images, any number. */
void net_score(const struct weights *weights, const float (*images)[IMAGE_PIXELS],
               const uint8_t *labels, uint32_t rows, struct net_scratch *scratch,
               struct score *score);

/** Adds one score to another. For the same bits add in the order of the shards. */
void net_add_score(struct score *total, const struct score *score);

/** The share of images named rightly, 0 to 1; and how many images were scored. */
double net_accuracy(const struct score *score);
uint64_t net_scored(const struct score *score);

#endif
