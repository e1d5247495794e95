/**
 * The laws of the computing core: what the training is right by, whoever runs it.
 */
#include <check.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sodium.h>
#include <zlib.h>

#include "dataset.h"
#include "optimiser.h"
#include "random.h"
#include "shard.h"

enum { ROWS = 20 };

static struct weights weights, moved;
static struct gradient gradients[STEP_PARTS];
static struct net_scratch scratch;
static float images[ROWS][IMAGE_PIXELS];
static uint8_t labels[ROWS];
static struct optimiser optimiser;

static void draw_images(void)
{
    static uint32_t draws[ROWS][IMAGE_PIXELS];

    random_fill(7, RANDOM_IMAGES, 1, draws, sizeof draws);
    for (int i = 0; i < ROWS; i++) {
        labels[i] = (uint8_t)(i % CLASSES);
        for (int j = 0; j < IMAGE_PIXELS; j++)
            images[i][j] = (float)(draws[i][j] % 1000) / 500 - 1;
    }
}

static double loss_of(const struct weights *weights)
{
    struct score score = {0};

    net_score(weights, (const float(*)[IMAGE_PIXELS])images, labels, ROWS, &scratch, &score);
    return score.loss;
}

START_TEST(gradient_is_the_slope_of_the_loss)
{
    draw_images();
    net_start(3, &weights);
    net_gradient(&weights, (const float(*)[IMAGE_PIXELS])images, labels, ROWS, 1, &scratch,
                 &gradients[0]);
    ck_assert_double_eq_tol(gradients[0].loss, loss_of(&weights), 1e-6);
    for (uint32_t i = 11; i < NET_PARAMETERS; i += NET_PARAMETERS / 97) {
        const float step = 1e-2f;
        float kept = weights.values[i];
        weights.values[i] = kept + step;
        double above = loss_of(&weights);
        weights.values[i] = kept - step;
        double slope = (above - loss_of(&weights)) / (2 * step);
        weights.values[i] = kept;
        ck_assert_msg(fabs(slope - gradients[0].values[i]) < 0.02 + 0.05 * fabs(slope),
                      "parameter %u: slope %g, gradient %g", i, slope, gradients[0].values[i]);
    }
}
END_TEST

START_TEST(parts_are_summed_in_the_tree_of_their_numbers)
{
    const struct gradient *parts[STEP_PARTS];
    const float values[STEP_PARTS] = {1e8f, -1e8f, 1, 3}; /* another order gives another sum */

    ck_assert_int_eq(STEP_PARTS, 4);
    memset(gradients, 0, sizeof gradients);
    for (int i = 0; i < STEP_PARTS; i++) {
        parts[i] = &gradients[i];
        gradients[i].values[1000] = values[i];
        gradients[i].loss = values[i];
    }
    memset(&moved, 0, sizeof moved);
    optimiser_start(&optimiser);
    optimiser_begin(&optimiser, 0.1);
    optimiser_move(&optimiser, parts, STEP_PARTS, 0, NET_PARAMETERS, &moved, &moved);
    ck_assert_float_eq_tol(optimiser.moment_1[1000], 0.4f, 1e-6f); /* (1e8 - 1e8) + (1 + 3) */
    ck_assert_double_eq(optimiser_loss(parts, STEP_PARTS), 4);
    ck_assert_float_eq_tol(moved.values[1000], -0.1f, 1e-4f); /* Adam's first step is the rate */
    ck_assert_float_eq(moved.values[999], 0);
}
END_TEST

START_TEST(moving_in_ranges_gives_the_same_bits)
{
    static struct optimiser other;
    static struct weights whole;
    const struct gradient *parts[] = {&gradients[0], &gradients[1]};

    draw_images();
    net_start(5, &moved);
    whole = moved;
    for (int i = 0; i < 2; i++)
        net_gradient(&moved, (const float(*)[IMAGE_PIXELS])(images + 10 * i), labels + 10 * i, 10,
                     0.05f, &scratch, &gradients[i]);
    optimiser_start(&optimiser);
    optimiser_start(&other);
    for (int step = 0; step < 3; step++) {
        optimiser_begin(&optimiser, 0.01);
        optimiser_begin(&other, 0.01);
        optimiser_move(&optimiser, parts, 2, 0, NET_PARAMETERS, &whole, &whole);
        optimiser_move(&other, parts, 2, 77777, NET_PARAMETERS, &moved, &moved);
        optimiser_move(&other, parts, 2, 0, 77777, &moved, &moved);
    }
    ck_assert_mem_eq(&whole, &moved, sizeof whole);
}
END_TEST

START_TEST(an_order_is_a_permutation_of_its_seed)
{
    uint32_t order[1000], again[1000], other[1000];
    bool seen[1000] = {false};

    ck_assert_int_eq(random_order(1, RANDOM_PARTS, 4, order, 1000), 0);
    ck_assert_int_eq(random_order(1, RANDOM_PARTS, 4, again, 1000), 0);
    ck_assert_int_eq(random_order(1, RANDOM_PARTS, 5, other, 1000), 0);
    ck_assert_mem_eq(order, again, sizeof order);
    ck_assert_mem_ne(order, other, sizeof order);
    for (int i = 0; i < 1000; i++) {
        ck_assert(order[i] < 1000 && !seen[order[i]]);
        seen[order[i]] = true;
    }
}
END_TEST

START_TEST(normalised_pixels_have_mean_0_and_deviation_1)
{
    static struct raw_shard raw;
    static struct shard shard;
    double sum = 0, squares = 0;

    raw.rows = 100;
    random_fill(2, RANDOM_IMAGES, 0, raw.pixels, sizeof raw.pixels);
    raw.labels[99] = 7;
    struct pixel_sums sums = shard_measure(&raw);
    struct pixel_scale scale = shard_scale(&sums);
    shard_normalise(&raw, &scale, &shard);
    for (int i = 0; i < 100; i++)
        for (int j = 0; j < IMAGE_PIXELS; j++) {
            sum += (double)shard.images[i][j];
            squares += (double)shard.images[i][j] * (double)shard.images[i][j];
        }
    ck_assert_double_eq_tol(sum / (100 * IMAGE_PIXELS), 0, 1e-4);
    ck_assert_double_eq_tol(squares / (100 * IMAGE_PIXELS), 1, 1e-4);
    ck_assert_uint_eq(shard.labels[99], 7);
}
END_TEST

static void write_file(const char *folder, const char *ending, const void *bytes, unsigned size)
{
    char path[256];

    snprintf(path, sizeof path, "%s/t-%s.gz", folder, ending);
    gzFile file = gzopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(gzwrite(file, bytes, size), (int)size);
    ck_assert_int_eq(gzclose(file), Z_OK);
}

/* Writes a set of two images, with one byte of one of the files changed or its end cut off. */
static int read_set(int file, int byte, int value, int cut)
{
    static uint8_t bytes[2][16 + 2 * IMAGE_PIXELS];
    const uint8_t heads[2][16] = {{0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28},
                                  {0, 0, 8, 1, 0, 0, 0, 2, 9, 0}};
    unsigned sizes[2] = {sizeof bytes[0], 10};
    const char *endings[2] = {"images-idx3-ubyte", "labels-idx1-ubyte"};
    char folder[] = "/tmp/moray-train-XXXXXX", path[256];
    struct dataset dataset;

    ck_assert_ptr_nonnull(mkdtemp(folder));
    for (int i = 0; i < 2; i++) {
        memcpy(bytes[i], heads[i], 16);
        if (i == file && byte >= 0)
            bytes[i][byte] = (uint8_t)value;
        write_file(folder, endings[i], bytes[i], sizes[i] - (i == file ? (unsigned)cut : 0));
    }
    int code = dataset_read(folder, "t", &dataset);
    ck_assert(code == 0 ? dataset.rows == 2 && dataset.labels[0] == 9 : !dataset.pixels);
    dataset_free(&dataset);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/t-%s.gz", folder, endings[i]);
        ck_assert_int_eq(unlink(path), 0);
    }
    ck_assert_int_eq(rmdir(folder), 0);
    return code;
}

START_TEST(a_malformed_set_is_refused)
{
    ck_assert_int_eq(read_set(0, -1, 0, 0), 0);    /* well formed */
    ck_assert_int_eq(read_set(0, 3, 1, 0), -1);    /* labels where images should be */
    ck_assert_int_eq(read_set(0, 11, 27, 0), -1);  /* 27 rows of pixels */
    ck_assert_int_eq(read_set(0, 4, 255, 0), -1);  /* four thousand million images */
    ck_assert_int_eq(read_set(0, 7, 3, 0), -1);    /* more images than bytes */
    ck_assert_int_eq(read_set(0, 7, 0, 0), -1);    /* none */
    ck_assert_int_eq(read_set(0, 7, 1, 0), -1);    /* images and labels differ in number */
    ck_assert_int_eq(read_set(0, -1, 0, 100), -1); /* cut off */
    ck_assert_int_eq(read_set(1, 8, 10, 0), -1);   /* a label of 10 */
    ck_assert_int_eq(read_set(1, -1, 0, 1), -1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train");
    TCase *laws = tcase_create("core");

    if (sodium_init() < 0)
        return 1;
    tcase_set_timeout(laws, 60);
    tcase_add_test(laws, gradient_is_the_slope_of_the_loss);
    tcase_add_test(laws, parts_are_summed_in_the_tree_of_their_numbers);
    tcase_add_test(laws, moving_in_ranges_gives_the_same_bits);
    tcase_add_test(laws, an_order_is_a_permutation_of_its_seed);
    tcase_add_test(laws, normalised_pixels_have_mean_0_and_deviation_1);
    tcase_add_test(laws, a_malformed_set_is_refused);
    suite_add_tcase(suite, laws);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
