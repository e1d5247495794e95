/* A job whose rank 1 garbles some of what it says: before a message is proven and sent, a number in it
 * is changed, or its end is cut off. (The linker puts the function below in the place of fabric_send.)
 * What rank 0 gets is proven and wrong: it must say so and end, or go on; garbled.sh runs it.
 *
 *     garbled SEED EVERY      about one message in EVERY is garbled
 */
#include <moray.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/fabric.h"
#include "node/message.h"

enum { ROUNDS = 30, LIMIT_MS = 1000, LARGE_BYTES = 300000 };

/* ---- Rank 1 ---- */

static unsigned seed, every;

/* Any number, heads of items too. */
static void change(uint32_t *words, size_t count)
{
    static const uint32_t absurd[] = {0, 1, 7, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff};
    size_t at = (size_t)rand_r(&seed) % count;

    if (rand_r(&seed) % 2)
        words[at] = absurd[(size_t)rand_r(&seed) % (sizeof(absurd) / sizeof(*absurd))];
    else
        words[at] ^= 1u << rand_r(&seed) % 32;
}

/* A number inside an item, by a little, or to another number of the message: what is said then is well
 * formed, and about something else. */
static void lie(char *bytes, size_t count)
{
    struct item item;
    size_t at = 0, chosen = 0, seen = 0;

    for (; at + sizeof(item) <= count; at += sizeof(item) + item.bytes) {
        memcpy(&item, bytes + at, sizeof(item));
        if (item.bytes && (size_t)rand_r(&seed) % ++seen == 0)
            chosen = at;
    }
    if (!seen)
        return;
    memcpy(&item, bytes + chosen, sizeof(item));
    uint32_t *word =
        (uint32_t *)(bytes + chosen + sizeof(item)) + (size_t)rand_r(&seed) % (item.bytes / 4);
    if (rand_r(&seed) % 2)
        *word ^= 1u << rand_r(&seed) % 8;
    else
        memcpy(word, bytes + (size_t)rand_r(&seed) % (count / 4) * 4, 4);
}

enum moray_code __real_fabric_send(struct fabric *fabric, uint32_t rank, const void *bytes,
                                   size_t count);
enum moray_code __wrap_fabric_send(struct fabric *fabric, uint32_t rank, const void *bytes,
                                   size_t count);
enum moray_code __wrap_fabric_send(struct fabric *fabric, uint32_t rank, const void *bytes,
                                   size_t count)
{
    const char *me = getenv("OMPI_COMM_WORLD_RANK");

    if (!me || strcmp(me, "1") != 0 || (unsigned)rand_r(&seed) % every || count < 16)
        return __real_fabric_send(fabric, rank, bytes, count);
    char *copy = malloc(count);
    if (!copy)
        abort();
    memcpy(copy, bytes, count);
    if (rand_r(&seed) % 3)
        lie(copy, count);
    else if (rand_r(&seed) % 2)
        change((uint32_t *)copy, count / 4);
    else
        count = (size_t)rand_r(&seed) % (count / 8) * 8 + 8;
    enum moray_code code = __real_fabric_send(fabric, rank, copy, count);
    free(copy);
    return code;
}

/* ---- The job ---- */

MORAY_TASK(int64_t, add, (int64_t, a), (int64_t, b))
{
    return a + b;
}

MORAY_TASK(moray_buffer, large, (int64_t, fill))
{
    moray_buffer buffer = moray_result(LARGE_BYTES);
    memset(buffer.data, (int)fill, LARGE_BYTES);
    return buffer;
}

MORAY_TASK(int64_t, first_byte, (moray_view, bytes))
{
    return bytes.size ? ((const char *)bytes.data)[0] : -1;
}

MORAY_TASK_RESULTS(divide, ((int64_t, quot), (int64_t, rem)), (int64_t, a), (int64_t, b))
{
    return (divide_results){b ? a / b : 0, b ? a % b : 0}; /* b may have been garbled */
}

MORAY_TASK(int64_t, parent, (int64_t, n))
{
    int64_t sum = 0, value;

    for (int64_t i = 0; i < n; i++) {
        moray_ref ref = moray_call_with((.on_rank = 1 + (int)(i % 2)), add, i, 1);
        sum += moray_get_bytes(ref, &value, sizeof(value), LIMIT_MS) == MORAY_OK ? value : 0;
        moray_release(ref);
    }
    (void)moray_kv_put("garbled", "key", &sum, sizeof(sum), 0);
    return sum;
}

MORAY_ACTOR(counter, (int64_t, value));
MORAY_METHOD(int64_t, counter, increment, (int64_t, by))
{
    return self->value += by;
}

static int late; /* something never came: what it was is garbled away, and the job may end */

static void look_at(moray_ref ref)
{
    moray_view view;
    enum moray_code code = MORAY_INVALID;

    if (ref.owner && !late)
        code = moray_get_view(ref, &view, LIMIT_MS);
    if (code == MORAY_OK)
        moray_view_release(&view);
    late |= code == MORAY_TIMEOUT;
    if (ref.owner)
        moray_release(ref);
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? (unsigned)atoi(argv[1]) : 1;
    every = argc > 2 ? (unsigned)atoi(argv[2]) : 10;
    moray_init(&argc, &argv);
    counter_actor actor = moray_new_with((.on_rank = 2), counter);
    for (int i = 0; i < ROUNDS && !late; i++) {
        moray_ref three = moray_call_with((.on_rank = 2), add, 1, 2);
        moray_ref bytes = moray_call_with((.on_rank = 2), large, i);
        divide_refs both = moray_call_with((.on_rank = 2), divide, 17, three);
        look_at(moray_call(counter_increment, actor, three));
        look_at(moray_call_with((.on_rank = 2), first_byte, bytes));
        look_at(moray_call_with((.on_rank = 2), parent, 4));
        look_at(moray_call(first_byte, bytes));
        look_at(both.quot);
        look_at(both.rem);
        look_at(three);
        look_at(bytes);
    }
    puts("over");
    return moray_finalize();
}
