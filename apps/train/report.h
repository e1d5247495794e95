/**
 * What a training was like: a line an epoch, and at the end the confusion table, a drawing of the
 * curve (SVG) and the figures as JSON.
 *
 * Both ways of training, plain and with Moray, report through here, so their figures are counted
 * alike: seconds from the start of main(), images/s over the epochs with their evaluation.
 * Threads: one caller at a time.
 */
#ifndef TRAIN_REPORT_H
#define TRAIN_REPORT_H

#include "net.h"
#include "options.h"

struct report_epoch {
    double train_loss, test_loss, accuracy; /* losses: the mean over the images */
    double seconds;                         /* of this epoch */
};

struct report {
    double started;        /* say_clock() when main() began */
    double epochs_started; /* when the data were ready */
    uint64_t images;       /* trained on in an epoch */
    uint32_t epochs_count;
    struct report_epoch epochs[EPOCHS_MAX];
    struct score score; /* of the test images, after the last epoch */
    double seconds, images_per_second;
    char digest[65]; /* of the final weights, hexadecimal */
    uint32_t ranks, workers;
    uint64_t retries; /* attempts of tasks beyond the first */
};

/** Begins the report; allocates nothing. */
void report_start(struct report *report);

/** Whether the files that were asked for can be written: said before the training, not after it.
 *  Errors: -1, told to the user. */
int report_check(const struct options *options);

/** Says what was read and prepared, and starts the clock of the epochs. */
void report_ready(struct report *report, const struct extent *extent, uint64_t test_images);

/** Ends an epoch: takes the summed loss of training and the score of the test images, says them. */
void report_add(struct report *report, double train_loss, const struct score *score);

/** Ends the training: takes the weights' digest and stops the clock. */
void report_end(struct report *report, const struct weights *weights);

/** Says the table and the figures and writes the files that were asked for.
 *  Errors: -1, told to the user, if a file that was asked for cannot be written. */
int report_write(const struct report *report, const struct options *options);

/** Draws the curve of a report into a file.
 *  Errors: -1, and errno. */
int curve_write(const struct report *report, const char *path);

#endif
