/**
 * Reads a data set of the MNIST family: two gzip files of 28 × 28 pixels and of labels 0 to 9, in
 * the IDX form. Debian's dataset-fashion-mnist is one.
 *
 *     images: 00 00 08 03 | count | rows | columns | count × 784 bytes     (numbers big-endian)
 *     labels: 00 00 08 01 | count | count bytes
 *
 * A file is input: every number in it is checked before it is used.
 */
#ifndef TRAIN_DATASET_H
#define TRAIN_DATASET_H

#include <stdint.h>

struct dataset {
    uint32_t rows;
    uint8_t *labels; /* owned; rows of them, each below CLASSES */
    uint8_t *pixels; /* owned; rows × IMAGE_PIXELS */
};

/** Reads FOLDER/NAME-images-idx3-ubyte.gz and FOLDER/NAME-labels-idx1-ubyte.gz.
 *  Owner: the caller, until dataset_free(); empty after a failure.
 *  Errors: -1, told to the user with the file's name. */
int dataset_read(const char *folder, const char *name, struct dataset *out);

/** Frees what the set holds and empties it. */
void dataset_free(struct dataset *dataset);

#endif
