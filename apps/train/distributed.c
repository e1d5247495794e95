/**
 *   driver          reads the files, submits, waits; touches no image after the start
 *
 *   raw shard ──▶ measure ──▶ sums ──▶ scale
 *       └───────▶ normalise ◀───────────┘        tasks, one a shard
 *                     │
 *                   shard ──────────┐            an object, read in place by every gradient
 *   weights n ──▶ gradient × 4 ◀────┘            tasks
 *       │             │ 0.9 MB each, written in place
 *       └───▶ model.step ──▶ weights n + 1       the actor: moments, rate; sums in the tree of parts
 *
 *   weights ──▶ score ◀── shard of test images   tasks, after each epoch
 *
 * Steps are chained by their references alone: the driver submits up to AHEAD steps before it waits,
 * so no step waits for the driver. A worker may die anywhere: tasks have endless attempts and read
 * only objects, so a second attempt writes the same bits.
 * Cost a step: 5 calls, 5 objects of 0.9 MB, which the store uses again.
 */
#include "distributed.h"

#include <stdlib.h>
#include <string.h>
#include <moray.h>

#include "optimiser.h"
#include "random.h"
#include "say.h"
#include "shard.h"

/* Steps submitted before the driver waits; it then sleeps until half of them are done. Whenever it wakes
 * it takes a core from a worker for a moment, so it should not wake at each step. */
enum { AHEAD = 16 };

typedef struct pixel_scale pixel_scale;
typedef struct optimiser *optimiser_pointer; /* into the actor's own memory */

typedef struct {
    double loss;      /* summed over the images since the last epoch */
    uint64_t retries; /* of gradients since the last epoch */
} training_news;

/* What tasks return: which attempt it was, for the count of retries, and the bits, which are the
 * same for each attempt. */
typedef struct {
    uint32_t attempt;
    struct pixel_sums sums;
} told_sums;

typedef struct {
    uint32_t attempt;
    struct score score;
} told_score;

struct told_gradient {
    uint32_t attempt;
    struct gradient gradient;
};

/* One a process: workers and actors are forked, so this is the memory of one task at a time. */
static struct net_scratch scratch;

/* ---- Tasks ------------------------------------------------------------------------------------- */

MORAY_TASK(told_sums, measure, (moray_view, raw))
{
    return (told_sums){moray_attempt(), shard_measure(raw.data)};
}

MORAY_TASK_RESULTS(normalise, ((moray_buffer, shard), (uint32_t, attempt)), (moray_view, raw),
                   (pixel_scale, scale))
{
    moray_buffer shard = moray_result(sizeof(struct shard));

    if (shard.data)
        shard_normalise(raw.data, &scale, shard.data);
    return (normalise_results){shard, moray_attempt()};
}

MORAY_TASK(moray_buffer, gradient, (moray_view, weights), (moray_view, shard), (uint32_t, place))
{
    const struct shard *images = shard.data;
    uint32_t row = place * PART_ROWS;
    moray_buffer result = moray_result(sizeof(struct told_gradient));
    struct told_gradient *told = result.data;

    if (!told)
        return result;
    told->attempt = moray_attempt();
    net_gradient(weights.data, images->images + row, images->labels + row, PART_ROWS,
                 1.0f / (PART_ROWS * STEP_PARTS), &scratch, &told->gradient);
    return result;
}

MORAY_TASK(told_score, evaluate, (moray_view, weights), (moray_view, shard))
{
    const struct shard *images = shard.data;
    told_score result = {.attempt = moray_attempt()};

    net_score(weights.data, images->images, images->labels, images->rows, &scratch, &result.score);
    return result;
}

/* ---- The actor --------------------------------------------------------------------------------- */

MORAY_ACTOR(model, (optimiser_pointer, optimiser), (training_news, news));

MORAY_METHOD(moray_buffer, model, start, (uint64_t, seed))
{
    moray_buffer weights = moray_result(sizeof(struct weights));

    self->optimiser = malloc(sizeof *self->optimiser);
    if (!self->optimiser)
        moray_fail(MORAY_NO_MEMORY, "no %zu bytes for the optimiser", sizeof *self->optimiser);
    if (!self->optimiser || !weights.data)
        return weights;
    optimiser_start(self->optimiser);
    net_start(seed, weights.data);
    return weights;
}

MORAY_METHOD(moray_buffer, model, step, (double, rate), (moray_view, before), (moray_view, part_0),
             (moray_view, part_1), (moray_view, part_2), (moray_view, part_3))
{
    const struct told_gradient *told[] = {part_0.data, part_1.data, part_2.data, part_3.data};
    const struct gradient *parts[STEP_PARTS];
    moray_buffer after = moray_result(sizeof(struct weights));

    if (!after.data)
        return after;
    for (uint32_t i = 0; i < STEP_PARTS; i++) {
        parts[i] = &told[i]->gradient;
        self->news.retries += told[i]->attempt - 1;
    }
    optimiser_begin(self->optimiser, rate);
    optimiser_move(self->optimiser, parts, STEP_PARTS, 0, NET_PARAMETERS, before.data, after.data);
    self->news.loss += optimiser_loss(parts, STEP_PARTS);
    return after;
}

MORAY_METHOD(training_news, model, tell)
{
    training_news news = self->news;

    self->news = (training_news){0};
    return news;
}

/* ---- The driver -------------------------------------------------------------------------------- */

struct training {
    const struct options *options;
    struct extent extent;
    uint32_t test_images;
    uint32_t *parts_order;  /* owned; of this epoch */
    moray_ref *shards;      /* owned, and each held; training's, then the test's */
    model_actor model;      /* held */
    moray_ref weights;      /* of the last step submitted; borrowed from the ring */
    moray_ref ring[AHEAD];  /* weights of the last steps, held; weights n lie at n % AHEAD */
    uint64_t weights_count; /* so many went into the ring */
    uint64_t retries;       /* attempts of tasks beyond the first, as far as told */
};

/* Waits until the object is there; tells the story of the task that failed. */
static int await(moray_ref ref)
{
    if (moray_get_bytes(ref, NULL, 0, 0) == MORAY_OK)
        return 0;
    return say_error("%s", moray_error(ref));
}

/* Puts one shard's images into the store as bytes; the null reference if there is no room. */
static moray_ref put_raw(const struct dataset *dataset, const uint32_t *order, uint32_t number)
{
    moray_buffer raw = moray_create(sizeof(struct raw_shard));
    moray_ref none = {0};

    if (!raw.data)
        return none;
    shard_take(dataset, order, number, raw.data);
    return moray_seal(raw);
}

/* Submits what makes the shards out of `raws`; on the way the pixels are measured. */
static void submit_shards(struct training *training, const moray_ref *raws, const moray_ref *sums,
                          moray_ref *attempts)
{
    uint32_t train_shards = training->extent.train_shards;
    struct pixel_sums total = {0};

    for (uint32_t i = 0; i < train_shards; i++) {
        told_sums told = moray_take_as(told_sums, sums[i]);
        training->retries += told.attempt - 1;
        shard_add(&total, &told.sums);
    }
    pixel_scale scale = shard_scale(&total);
    for (uint32_t i = 0; i < train_shards + training->extent.test_shards; i++) {
        normalise_refs refs =
            moray_call_with((.attempts = MORAY_ENDLESS), normalise, raws[i], scale);
        training->shards[i] = refs.shard;
        attempts[i] = refs.attempt;
        moray_release(raws[i]);
    }
}

/* From the data sets to shards. The driver cuts, the workers measure what is cut already. */
static int make_shards(struct training *training, const struct dataset *train,
                       const struct dataset *test, const uint32_t *images_order)
{
    uint32_t train_shards = training->extent.train_shards;
    uint32_t count = train_shards + training->extent.test_shards;
    moray_ref raws[SHARDS_MAX], sums[SHARDS_MAX], attempts[SHARDS_MAX];

    for (uint32_t i = 0; i < count; i++) {
        raws[i] = i < train_shards ? put_raw(train, images_order, i)
                                   : put_raw(test, NULL, i - train_shards);
        if (i < train_shards)
            sums[i] = moray_call_with((.attempts = MORAY_ENDLESS), measure, raws[i]);
    }
    submit_shards(training, raws, sums, attempts);
    for (uint32_t i = 0; i < count; i++) {
        if (await(training->shards[i]))
            return -1;
        training->retries += moray_take_as(uint32_t, attempts[i]) - 1;
    }
    return 0;
}

/* Reads the data and makes the shards. */
static int prepare(struct training *training)
{
    const struct plan *plan = &training->options->plan;
    struct dataset train = {0}, test = {0};
    uint32_t *images_order = NULL;
    int code = -1;

    if (dataset_read(training->options->data, "train", &train) ||
        dataset_read(training->options->data, "t10k", &test) ||
        extent_measure(train.rows, test.rows, &training->extent))
        goto done;
    training->test_images = test.rows;
    uint32_t count = training->extent.train_shards + training->extent.test_shards;
    images_order = malloc(train.rows * sizeof *images_order);
    training->parts_order = malloc(training->extent.parts * sizeof *training->parts_order);
    training->shards = calloc(count, sizeof *training->shards);
    if (!images_order || !training->parts_order || !training->shards) {
        say_error("no memory for the order of the images");
        goto done;
    }
    if (random_order(plan->seed, RANDOM_IMAGES, 0, images_order, train.rows) == 0)
        code = make_shards(training, &train, &test, images_order);
done:
    dataset_free(&train);
    dataset_free(&test);
    free(images_order);
    return code;
}

/* Makes `weights` the latest. Once the ring is full it waits for its older half, all at once, and then
 * lets one of them go for each that comes. */
static int push_weights(struct training *training, moray_ref weights)
{
    uint64_t count = training->weights_count++;
    moray_ref *place = &training->ring[count % AHEAD];
    int code = 0;

    if (count >= AHEAD) {
        if (count % (AHEAD / 2) == 0)
            code = await(training->ring[(count + AHEAD / 2 - 1) % AHEAD]);
        moray_release(*place);
    }
    *place = training->weights = weights;
    return code;
}

static int submit_step(struct training *training, uint32_t step, double rate)
{
    moray_ref parts[STEP_PARTS], before = training->weights;

    for (uint32_t i = 0; i < STEP_PARTS; i++) {
        uint32_t part = training->parts_order[step * STEP_PARTS + i];
        parts[i] = moray_call_with((.attempts = MORAY_ENDLESS), gradient, before,
                                   training->shards[part / SHARD_PARTS], part % SHARD_PARTS);
    }
    moray_ref after = moray_call(model_step, training->model, rate, before, parts[0], parts[1],
                                 parts[2], parts[3]);
    for (uint32_t i = 0; i < STEP_PARTS; i++)
        moray_release(parts[i]);
    return push_weights(training, after);
}

/* Scores the latest weights on all test images, a task a shard, added in the order of shards. */
static int score_all(struct training *training, struct score *total)
{
    moray_ref refs[SHARDS_MAX];

    for (uint32_t i = 0; i < training->extent.test_shards; i++)
        refs[i] = moray_call_with((.attempts = MORAY_ENDLESS), evaluate, training->weights,
                                  training->shards[training->extent.train_shards + i]);
    if (await(training->weights))
        return -1;
    for (uint32_t i = 0; i < training->extent.test_shards; i++) {
        told_score told = moray_take_as(told_score, refs[i]);
        training->retries += told.attempt - 1;
        net_add_score(total, &told.score);
    }
    return 0;
}

static int train_epoch(struct training *training, uint32_t epoch, struct report *report)
{
    const struct plan *plan = &training->options->plan;
    uint64_t steps = (uint64_t)training->extent.steps * plan->epochs;
    struct score total = {0};

    if (random_order(plan->seed, RANDOM_PARTS, epoch, training->parts_order,
                     training->extent.parts))
        return -1;
    for (uint32_t step = 0; step < training->extent.steps; step++) {
        double rate = plan_rate(plan, (uint64_t)epoch * training->extent.steps + step, steps);
        if (submit_step(training, step, rate))
            return -1;
        say_progress("epoch %u of %u: step %u of %u", epoch + 1, plan->epochs, step + 1,
                     training->extent.steps);
    }
    if (score_all(training, &total))
        return -1;
    training_news news = moray_take_as(training_news, moray_call(model_tell, training->model));
    report->retries = training->retries += news.retries;
    report_add(report, news.loss, &total);
    return 0;
}

/* Lets everything go that the training held. */
static void let_go(struct training *training)
{
    uint32_t shards = training->extent.train_shards + training->extent.test_shards;

    for (uint64_t i = 0; i < AHEAD && i < training->weights_count; i++)
        moray_release(training->ring[i]);
    for (uint32_t i = 0; training->shards && i < shards; i++)
        moray_release(training->shards[i]);
    moray_actor_release(training->model);
    free(training->shards);
    free(training->parts_order);
}

static int train(struct training *training, struct report *report)
{
    const struct plan *plan = &training->options->plan;
    moray_view weights;

    training->model = moray_new(model);
    if (push_weights(training, moray_call(model_start, training->model, plan->seed)) ||
        prepare(training))
        return -1;
    report_ready(report, &training->extent, training->test_images);
    for (uint32_t epoch = 0; epoch < plan->epochs; epoch++)
        if (train_epoch(training, epoch, report))
            return -1;
    if (moray_get_view(training->weights, &weights, 0))
        return say_error("%s", moray_error(training->weights));
    report_end(report, weights.data);
    moray_view_release(&weights);
    return 0;
}

int distributed_main(int *argc, char ***argv, const struct options *options, struct report *report)
{
    struct training training = {.options = options};

    moray_init(argc, argv);
    int failed = report_check(options) || train(&training, report); /* other ranks write nothing */
    report->ranks = (uint32_t)moray_ranks();
    report->workers = (uint32_t)moray_workers(); /* now that every rank has joined for long */
    let_go(&training);
    if (!failed)
        failed = report_write(report, options);
    int status = moray_finalize();
    return failed ? 1 : status;
}
