#include "dataset.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "plan.h"
#include "say.h"

enum { KIND_LABELS = 0x801, KIND_IMAGES = 0x803, ROWS_MAX = SHARDS_MAX * SHARD_ROWS };

static int read_exactly(gzFile file, const char *path, void *bytes, uint32_t size)
{
    int got = gzread(file, bytes, size);
    int code;

    if (got == (int)size)
        return 0;
    const char *why = gzerror(file, &code);
    if (code == Z_OK)
        why = "it ends too early";
    else if (code == Z_ERRNO)
        why = strerror(errno);
    return say_error("%s: cannot read %u bytes: %s", path, size, why);
}

static int read_number(gzFile file, const char *path, uint32_t *number)
{
    uint8_t bytes[4];

    if (read_exactly(file, path, bytes, sizeof bytes))
        return -1;
    *number =
        (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
    return 0;
}

/* Reads the head of a file and, for images, that they are 28 by 28. */
static int read_head(gzFile file, const char *path, uint32_t kind, uint32_t *rows)
{
    uint32_t found, side[2] = {IMAGE_SIDE, IMAGE_SIDE};

    if (read_number(file, path, &found) || read_number(file, path, rows))
        return -1;
    if (found != kind)
        return say_error("%s: not the IDX file expected (kind %#x, not %#x)", path, found, kind);
    if (*rows == 0 || *rows > ROWS_MAX)
        return say_error("%s: %u rows; between 1 and %d are possible", path, *rows, ROWS_MAX);
    if (kind == KIND_IMAGES &&
        (read_number(file, path, &side[0]) || read_number(file, path, &side[1])))
        return -1;
    if (side[0] != IMAGE_SIDE || side[1] != IMAGE_SIDE)
        return say_error("%s: images of %u × %u pixels; they must be %d × %d", path, side[0],
                         side[1], IMAGE_SIDE, IMAGE_SIDE);
    return 0;
}

/* Reads a whole file of rows of `row_bytes`; *bytes is the caller's. */
static int read_file(const char *folder, const char *name, const char *ending, uint32_t kind,
                     uint32_t row_bytes, uint32_t *rows, uint8_t **bytes)
{
    char path[PATH_MAX];
    int code = -1;

    if ((size_t)snprintf(path, sizeof path, "%s/%s-%s.gz", folder, name, ending) >= sizeof path)
        return say_error("%s: the folder's name is too long", folder);
    gzFile file = gzopen(path, "rb");
    if (!file)
        return say_error("%s: %s; install the Debian package dataset-fashion-mnist or name a "
                         "folder with --data",
                         path, strerror(errno ? errno : ENOMEM));
    gzbuffer(file, 1 << 18);
    if (read_head(file, path, kind, rows) == 0) {
        *bytes = malloc((size_t)*rows * row_bytes);
        if (*bytes)
            code = read_exactly(file, path, *bytes, *rows * row_bytes);
        else
            say_error("%s: no memory for %u rows", path, *rows);
    }
    gzclose(file);
    return code;
}

static int check_labels(const char *folder, const char *name, const struct dataset *dataset)
{
    for (uint32_t i = 0; i < dataset->rows; i++)
        if (dataset->labels[i] >= CLASSES)
            return say_error("%s/%s: label %u of image %u is not below %d", folder, name,
                             dataset->labels[i], i, CLASSES);
    return 0;
}

int dataset_read(const char *folder, const char *name, struct dataset *out)
{
    uint32_t labels = 0;

    *out = (struct dataset){0};
    if (read_file(folder, name, "images-idx3-ubyte", KIND_IMAGES, IMAGE_PIXELS, &out->rows,
                  &out->pixels) ||
        read_file(folder, name, "labels-idx1-ubyte", KIND_LABELS, 1, &labels, &out->labels))
        goto failed;
    if (labels != out->rows) {
        say_error("%s/%s: %u images but %u labels", folder, name, out->rows, labels);
        goto failed;
    }
    if (check_labels(folder, name, out))
        goto failed;
    return 0;
failed:
    dataset_free(out);
    return -1;
}

void dataset_free(struct dataset *dataset)
{
    free(dataset->labels);
    free(dataset->pixels);
    *dataset = (struct dataset){0};
}
