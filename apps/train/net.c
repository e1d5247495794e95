#include "net.h"

#include <assert.h>
#include <math.h>
#include <string.h>
#include <cblas.h>

#include "random.h"

/* Where each layer's matrix and biases lie among the parameters. */
enum {
    WEIGHT_1 = 0,
    BIAS_1 = WEIGHT_1 + IMAGE_PIXELS * NET_HIDDEN_1,
    WEIGHT_2 = BIAS_1 + NET_HIDDEN_1,
    BIAS_2 = WEIGHT_2 + NET_HIDDEN_1 * NET_HIDDEN_2,
    WEIGHT_3 = BIAS_2 + NET_HIDDEN_2,
    BIAS_3 = WEIGHT_3 + NET_HIDDEN_2 * CLASSES,
};
static_assert(BIAS_3 + CLASSES == NET_PARAMETERS, "the layers fill the parameters");

struct layer {
    uint32_t inputs, outputs, weight, bias;
};

static const struct layer layers[NET_LAYERS] = {
    {IMAGE_PIXELS, NET_HIDDEN_1, WEIGHT_1, BIAS_1},
    {NET_HIDDEN_1, NET_HIDDEN_2, WEIGHT_2, BIAS_2},
    {NET_HIDDEN_2, CLASSES, WEIGHT_3, BIAS_3},
};

void net_start(uint64_t seed, struct weights *weights)
{
    uint32_t draws[1024];

    memset(weights, 0, sizeof *weights);
    for (uint32_t number = 0; number < NET_LAYERS; number++) {
        const struct layer *layer = &layers[number];
        float limit = (float)sqrt(6.0 / layer->inputs);
        uint32_t count = layer->inputs * layer->outputs;

        for (uint32_t i = 0; i < count; i++) {
            if (i % 1024 == 0)
                random_fill(seed, RANDOM_WEIGHTS, (uint64_t)number << 32 | i, draws, sizeof draws);
            float unit = (float)(draws[i % 1024] >> 8) * 0x1p-23f - 1.0f; /* -1 to 1 */
            weights->values[layer->weight + i] = unit * limit;
        }
    }
}

/* out[rows][outputs] = in[rows][inputs] × W + b */
static void forward(const struct layer *layer, const float *weights, const float *in, float *out,
                    uint32_t rows)
{
    int outputs = (int)layer->outputs, inputs = (int)layer->inputs;

    for (uint32_t i = 0; i < rows; i++)
        memcpy(out + i * layer->outputs, weights + layer->bias, layer->outputs * sizeof *out);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, outputs, inputs, 1.0f, in,
                inputs, weights + layer->weight, outputs, 1.0f, out, outputs);
}

/* The gradient of W and b from the layer's input and what came back to its output. */
static void backward(const struct layer *layer, const float *in, const float *back, float *gradient,
                     uint32_t rows)
{
    int outputs = (int)layer->outputs, inputs = (int)layer->inputs;
    float *bias = gradient + layer->bias;

    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, inputs, outputs, (int)rows, 1.0f, in,
                inputs, back, outputs, 0.0f, gradient + layer->weight, outputs);
    memset(bias, 0, layer->outputs * sizeof *bias);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < layer->outputs; j++)
            bias[j] += back[i * layer->outputs + j];
}

/* below[rows][inputs] = back × Wᵀ, stopped where the rectifier let nothing through. */
static void backward_below(const struct layer *layer, const float *weights, const float *in,
                           const float *back, float *below, uint32_t rows)
{
    int outputs = (int)layer->outputs, inputs = (int)layer->inputs;

    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, inputs, outputs, 1.0f, back,
                outputs, weights + layer->weight, outputs, 0.0f, below, inputs);
    for (uint32_t i = 0; i < rows * layer->inputs; i++)
        below[i] = in[i] > 0 ? below[i] : 0.0f;
}

static void rectify(float *values, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        values[i] = values[i] > 0 ? values[i] : 0.0f;
}

static void forward_all(const float *weights, const float *images, uint32_t rows,
                        struct net_scratch *scratch)
{
    forward(&layers[0], weights, images, scratch->hidden_1[0], rows);
    rectify(scratch->hidden_1[0], rows * NET_HIDDEN_1);
    forward(&layers[1], weights, scratch->hidden_1[0], scratch->hidden_2[0], rows);
    rectify(scratch->hidden_2[0], rows * NET_HIDDEN_2);
    forward(&layers[2], weights, scratch->hidden_2[0], scratch->output[0], rows);
}

/* Turns outputs into probabilities and returns the cross entropy. exp() is taken in double and
 * rounded once: the C library's variants for different processors then agree. */
static double softmax(float output[CLASSES], uint32_t label)
{
    double powers[CLASSES], sum = 0;
    float top = output[0];

    for (uint32_t j = 1; j < CLASSES; j++)
        top = output[j] > top ? output[j] : top;
    for (uint32_t j = 0; j < CLASSES; j++) {
        powers[j] = (float)exp((double)output[j] - (double)top);
        sum += powers[j];
    }
    double loss = (float)log(sum) - ((double)output[label] - (double)top);
    for (uint32_t j = 0; j < CLASSES; j++)
        output[j] = (float)(powers[j] / sum);
    return loss;
}

void net_gradient(const struct weights *weights, const float (*images)[IMAGE_PIXELS],
                  const uint8_t *labels, uint32_t rows, float scale, struct net_scratch *scratch,
                  struct gradient *out)
{
    const float *values = weights->values;

    assert(rows > 0 && rows <= PART_ROWS);
    forward_all(values, images[0], rows, scratch);
    out->loss = 0;
    for (uint32_t i = 0; i < rows; i++) {
        float *output = scratch->output[i];
        out->loss += softmax(output, labels[i]);
        output[labels[i]] -= 1.0f;
        for (uint32_t j = 0; j < CLASSES; j++)
            output[j] *= scale;
    }
    backward(&layers[2], scratch->hidden_2[0], scratch->output[0], out->values, rows);
    backward_below(&layers[2], values, scratch->hidden_2[0], scratch->output[0], scratch->back_2[0],
                   rows);
    backward(&layers[1], scratch->hidden_1[0], scratch->back_2[0], out->values, rows);
    backward_below(&layers[1], values, scratch->hidden_1[0], scratch->back_2[0], scratch->back_1[0],
                   rows);
    backward(&layers[0], images[0], scratch->back_1[0], out->values, rows);
}

void net_score(const struct weights *weights, const float (*images)[IMAGE_PIXELS],
               const uint8_t *labels, uint32_t rows, struct net_scratch *scratch,
               struct score *score)
{
    for (uint32_t first = 0; first < rows; first += PART_ROWS) {
        uint32_t count = rows - first < PART_ROWS ? rows - first : PART_ROWS;

        forward_all(weights->values, images[first], count, scratch);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t label = labels[first + i], named = 0;
            for (uint32_t j = 1; j < CLASSES; j++)
                if (scratch->output[i][j] > scratch->output[i][named])
                    named = j;
            score->loss += softmax(scratch->output[i], label);
            score->table[label][named]++;
        }
    }
}

void net_add_score(struct score *total, const struct score *score)
{
    total->loss += score->loss;
    for (uint32_t i = 0; i < CLASSES; i++)
        for (uint32_t j = 0; j < CLASSES; j++)
            total->table[i][j] += score->table[i][j];
}

uint64_t net_scored(const struct score *score)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < CLASSES; i++)
        for (uint32_t j = 0; j < CLASSES; j++)
            count += score->table[i][j];
    return count;
}

double net_accuracy(const struct score *score)
{
    uint64_t right = 0, count = net_scored(score);

    for (uint32_t i = 0; i < CLASSES; i++)
        right += score->table[i][i];
    return count ? (double)right / (double)count : 0;
}
