#include "report.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <jansson.h>
#include <sodium.h>

#include "blas.h"
#include "say.h"

static const char *const class_names[CLASSES] = {"T-shirt", "Trouser", "Pullover", "Dress", "Coat",
                                                 "Sandal",  "Shirt",   "Sneaker",  "Bag",   "Boot"};

/* A file that is not there comes to be, and is empty until the end. */
static int check_file(const char *path)
{
    FILE *file = fopen(path, "ae");

    if (!file || fclose(file))
        return say_error("cannot write %s: %s", path, strerror(errno));
    return 0;
}

int report_check(const struct options *options)
{
    if (options->svg && options->svg_asked && check_file(options->svg))
        return -1;
    return options->json ? check_file(options->json) : 0;
}

void report_start(struct report *report)
{
    memset(report, 0, sizeof *report);
    report->started = say_clock();
}

void report_ready(struct report *report, const struct extent *extent, uint64_t test_images)
{
    report->images = (uint64_t)extent->steps * STEP_PARTS * PART_ROWS;
    report->epochs_started = say_clock();
    say_line("%llu training and %llu test images ready after %.2f s; %u steps an epoch, %d "
             "gradients a step; BLAS kernel %s",
             (unsigned long long)report->images, (unsigned long long)test_images,
             report->epochs_started - report->started, extent->steps, STEP_PARTS, blas_kernel());
}

void report_add(struct report *report, double train_loss, const struct score *score)
{
    double now = say_clock(), before = report->epochs_started;
    struct report_epoch *epoch = &report->epochs[report->epochs_count];

    for (uint32_t i = 0; i < report->epochs_count; i++)
        before += report->epochs[i].seconds;
    *epoch = (struct report_epoch){
        .train_loss = train_loss / (double)report->images,
        .test_loss = score->loss / (double)net_scored(score),
        .accuracy = net_accuracy(score),
        .seconds = now - before,
    };
    report->epochs_count++;
    report->score = *score;
    say_line("epoch %2u  loss %.4f  test loss %.4f  accuracy %.2f %%  %.0f images/s",
             report->epochs_count, epoch->train_loss, epoch->test_loss, 100 * epoch->accuracy,
             (double)report->images / epoch->seconds);
}

void report_end(struct report *report, const struct weights *weights)
{
    unsigned char hash[32];
    double now = say_clock();

    crypto_generichash(hash, sizeof hash, (const unsigned char *)weights, sizeof *weights, NULL, 0);
    sodium_bin2hex(report->digest, sizeof report->digest, hash, sizeof hash);
    report->seconds = now - report->started;
    report->images_per_second =
        (double)report->images * report->epochs_count / (now - report->epochs_started);
}

static void say_table(const struct score *score)
{
    say_line(" ");
    say_line("what it is (rows) and what the network says (columns):");
    say_line("%-9s%8s%8s%9s%7s%7s%7s%7s%8s%6s%6s", "", class_names[0], class_names[1],
             class_names[2], class_names[3], class_names[4], class_names[5], class_names[6],
             class_names[7], class_names[8], class_names[9]);
    for (int i = 0; i < CLASSES; i++) {
        const uint32_t *row = score->table[i];
        say_line("%-9s%8u%8u%9u%7u%7u%7u%7u%8u%6u%6u", class_names[i], row[0], row[1], row[2],
                 row[3], row[4], row[5], row[6], row[7], row[8], row[9]);
    }
    say_line(" ");
}

static int write_json(const struct report *report, const char *path)
{
    const struct report_epoch *last = &report->epochs[report->epochs_count - 1];
    json_t *json =
        json_pack("{s:f, s:f, s:f, s:f, s:s, s:i, s:i, s:I}", "accuracy", last->accuracy, "loss",
                  last->test_loss, "seconds", report->seconds, "images_per_second",
                  report->images_per_second, "digest", report->digest, "ranks", (int)report->ranks,
                  "workers", (int)report->workers, "retries", (json_int_t)report->retries);
    int code = json ? json_dump_file(json, path, JSON_INDENT(2)) : -1;

    json_decref(json);
    if (code)
        return say_error("cannot write %s: %s", path, json ? strerror(errno) : "out of memory");
    return 0;
}

int report_write(const struct report *report, const struct options *options)
{
    const struct report_epoch *last = &report->epochs[report->epochs_count - 1];
    int code = 0;

    say_table(&report->score);
    say_line("accuracy %.2f %%, loss %.4f, %.1f s in all, %.0f images/s, %u rank%s, %u worker%s, "
             "%llu retries",
             100 * last->accuracy, last->test_loss, report->seconds, report->images_per_second,
             report->ranks, report->ranks == 1 ? "" : "s", report->workers,
             report->workers == 1 ? "" : "s", (unsigned long long)report->retries);
    say_line("digest of the weights: %s", report->digest);
    if (options->svg && curve_write(report, options->svg) == 0)
        say_line("the curve is drawn in %s", options->svg);
    else if (options->svg && options->svg_asked)
        code = say_error("cannot write %s: %s", options->svg, strerror(errno));
    else if (options->svg)
        say_line("no curve drawn: %s: %s", options->svg, strerror(errno));
    if (options->json && write_json(report, options->json))
        code = -1;
    return code;
}
