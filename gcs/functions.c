#include "gcs/functions.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/index.h"

enum { TEXTS = 3 }; /* name, types, file */

struct functions {
    const struct functions_table *ours; /* borrowed */
    uint64_t digest;
    uint32_t rank_count;
    uint32_t same_count; /* ranks that answered, and are the same */
    bool answered[];     /* by rank */
};

/* What a table looks like on the wire: the count, then for each entry this and its three texts. */
struct wire_entry {
    uint32_t line, argument_bytes, result_bytes, state_bytes;
    uint32_t text_bytes[TEXTS];
};

uint64_t functions_identity(const struct functions_entry *entry)
{
    uint64_t sizes = (uint64_t)entry->argument_bytes << 32 | entry->result_bytes;
    uint64_t hash = index_hash(entry->state_bytes, entry->name, strlen(entry->name));

    return index_hash(hash ^ index_mix(sizes), entry->types, strlen(entry->types));
}

uint64_t functions_digest(const struct functions_table *table)
{
    uint64_t sum = index_mix(table->count + 1);

    for (size_t i = 0; i < table->count; i++) /* a sum does not mind the order */
        sum += index_mix(functions_identity(&table->entries[i]));
    return sum;
}

static int by_name(const void *a, const void *b)
{
    const struct functions_entry *const *one = a, *const *two = b;

    return strcmp((*one)->name, (*two)->name);
}

/* Pointers to the entries, by name; the caller frees them. NULL: no memory. */
static const struct functions_entry **sorted(const struct functions_table *table)
{
    const struct functions_entry **entries = malloc((table->count + 1) * sizeof(*entries));

    if (!entries)
        return NULL;
    for (size_t i = 0; i < table->count; i++)
        entries[i] = &table->entries[i];
    qsort(entries, table->count, sizeof(*entries), by_name);
    return entries;
}

enum moray_code functions_check(const struct functions_table *table, struct moray_error *error)
{
    const struct functions_entry **entries = sorted(table);
    enum moray_code code = MORAY_OK;

    if (!entries)
        return error_set(error, MORAY_NO_MEMORY, "no memory to check %zu functions", table->count);
    for (size_t i = 1; i < table->count && code == MORAY_OK; i++)
        if (strcmp(entries[i - 1]->name, entries[i]->name) == 0)
            code = error_set(error, MORAY_EXISTS,
                             "the function %.100s is defined twice: at %.100s:%u and at %.100s:%u; "
                             "give one of them another name",
                             entries[i]->name, entries[i - 1]->file, entries[i - 1]->line,
                             entries[i]->file, entries[i]->line);
    free(entries);
    return code;
}

static bool same(const struct functions_entry *a, const struct functions_entry *b)
{
    return strcmp(a->types, b->types) == 0 && a->argument_bytes == b->argument_bytes &&
           a->result_bytes == b->result_bytes && a->state_bytes == b->state_bytes;
}

/* One difference: the entries of both sides; NULL on the side that lacks the function. */
struct difference {
    const struct functions_entry *ours, *theirs;
    size_t count; /* how many there are in all; ours and theirs are the first */
};

/* Walks along both sorted tables like a merge. */
static struct difference find_difference(const struct functions_entry **ours, size_t our_count,
                                         const struct functions_entry **theirs, size_t their_count)
{
    struct difference found = {0};

    for (size_t i = 0, j = 0; i < our_count || j < their_count;) {
        int order = i == our_count     ? 1
                    : j == their_count ? -1
                                       : strcmp(ours[i]->name, theirs[j]->name);
        const struct functions_entry *one = order <= 0 ? ours[i++] : NULL;
        const struct functions_entry *two = order >= 0 ? theirs[j++] : NULL;
        if (one && two && same(one, two))
            continue;
        if (found.count++ == 0) {
            found.ours = one;
            found.theirs = two;
        }
    }
    return found;
}

static enum moray_code tell(const struct difference *found, uint32_t our_rank, uint32_t their_rank,
                            struct moray_error *error)
{
    const struct functions_entry *one = found->ours, *two = found->theirs;

    if (!one || !two) {
        const struct functions_entry *entry = one ? one : two;
        return error_set(error, MORAY_INVALID,
                         "the function %.80s (%.100s:%u) is in the program of rank %u and not in "
                         "that of rank %u (%zu differences): start the same binary on all ranks",
                         entry->name, entry->file, entry->line, one ? our_rank : their_rank,
                         one ? their_rank : our_rank, found->count);
    }
    return error_set(error, MORAY_INVALID,
                     "the function %.60s differs: rank %u has %.60s (%u+%u+%u bytes) at %.60s:%u, "
                     "rank %u has %.60s (%u+%u+%u bytes) at %.60s:%u (%zu differences): start the "
                     "same binary on all ranks",
                     one->name, our_rank, one->types, one->argument_bytes, one->result_bytes,
                     one->state_bytes, one->file, one->line, their_rank, two->types,
                     two->argument_bytes, two->result_bytes, two->state_bytes, two->file, two->line,
                     found->count);
}

enum moray_code functions_compare(const struct functions_table *ours, uint32_t our_rank,
                                  const struct functions_table *theirs, uint32_t their_rank,
                                  struct moray_error *error)
{
    const struct functions_entry **one = sorted(ours), **two = sorted(theirs);
    enum moray_code code;

    if (!one || !two) {
        code = error_set(error, MORAY_NO_MEMORY, "no memory to compare %zu functions", ours->count);
    } else {
        struct difference found = find_difference(one, ours->count, two, theirs->count);
        code = found.count ? tell(&found, our_rank, their_rank, error) : MORAY_OK;
    }
    free(one);
    free(two);
    return code;
}

/* Writes at `*at` as far as there is room, and counts all the same. */
static void emit(char *out, size_t room, size_t *at, const void *data, size_t bytes)
{
    if (*at <= room && bytes <= room - *at && bytes)
        memcpy(out + *at, data, bytes);
    *at += bytes;
}

size_t functions_encode(const struct functions_table *table, void *out, size_t room)
{
    uint32_t count = (uint32_t)table->count;
    size_t at = 0;

    emit(out, room, &at, &count, sizeof(count));
    for (size_t i = 0; i < table->count; i++) {
        const struct functions_entry *entry = &table->entries[i];
        const char *texts[TEXTS] = {entry->name, entry->types, entry->file};
        struct wire_entry wire = {.line = entry->line,
                                  .argument_bytes = entry->argument_bytes,
                                  .result_bytes = entry->result_bytes,
                                  .state_bytes = entry->state_bytes};
        for (int text = 0; text < TEXTS; text++)
            wire.text_bytes[text] = (uint32_t)strlen(texts[text]);
        emit(out, room, &at, &wire, sizeof(wire));
        for (int text = 0; text < TEXTS; text++)
            emit(out, room, &at, texts[text], wire.text_bytes[text]);
    }
    return at;
}

/* Reads one entry at `*at`; its texts go to `*text`, each with its end. Returns false if the bytes
 * are no entry. */
static bool decode_entry(const char *data, size_t bytes, size_t *at, struct functions_entry *entry,
                         char **text)
{
    const char *texts[TEXTS];
    struct wire_entry wire;

    if (bytes - *at < sizeof(wire))
        return false;
    memcpy(&wire, data + *at, sizeof(wire));
    *at += sizeof(wire);
    for (int i = 0; i < TEXTS; i++) {
        if (bytes - *at < wire.text_bytes[i] || memchr(data + *at, 0, wire.text_bytes[i]))
            return false;
        texts[i] = *text;
        memcpy(*text, data + *at, wire.text_bytes[i]);
        (*text)[wire.text_bytes[i]] = 0;
        *text += wire.text_bytes[i] + 1;
        *at += wire.text_bytes[i];
    }
    *entry = (struct functions_entry){.name = texts[0],
                                      .types = texts[1],
                                      .file = texts[2],
                                      .line = wire.line,
                                      .argument_bytes = wire.argument_bytes,
                                      .result_bytes = wire.result_bytes,
                                      .state_bytes = wire.state_bytes};
    return true;
}

enum moray_code functions_decode(const void *data, size_t bytes, struct functions_table *out,
                                 struct moray_error *error)
{
    struct functions_entry *entries;
    size_t at = sizeof(uint32_t);
    uint32_t count;
    char *text;

    *out = (struct functions_table){0};
    if (bytes < sizeof(count))
        return error_set(error, MORAY_PROTOCOL, "a function table of %zu bytes", bytes);
    memcpy(&count, data, sizeof(count));
    if (count > (bytes - at) / sizeof(struct wire_entry))
        return error_set(error, MORAY_PROTOCOL, "%zu bytes cannot hold %u functions", bytes, count);
    /* Bounded by what came: each entry took sizeof(wire_entry) bytes, each text its own. */
    entries = malloc((count + 1) * sizeof(*entries) + bytes);
    if (!entries)
        return error_set(error, MORAY_NO_MEMORY, "no memory for %u functions", count);
    text = (char *)(entries + count);
    for (uint32_t i = 0; i < count; i++)
        if (!decode_entry(data, bytes, &at, &entries[i], &text)) {
            free(entries);
            return error_set(error, MORAY_PROTOCOL, "function %u of %u is malformed", i, count);
        }
    if (at != bytes) {
        free(entries);
        return error_set(error, MORAY_PROTOCOL, "%zu bytes too many behind %u functions",
                         bytes - at, count);
    }
    *out = (struct functions_table){entries, count};
    return MORAY_OK;
}

enum functions_answer functions_heard(struct functions *functions, uint32_t rank, uint64_t digest)
{
    if (rank >= functions->rank_count)
        return FUNCTIONS_WAIT;
    if (digest != functions->digest)
        return FUNCTIONS_ASK;
    functions->same_count += !functions->answered[rank];
    functions->answered[rank] = true;
    return functions->same_count == functions->rank_count ? FUNCTIONS_SAME : FUNCTIONS_WAIT;
}

enum moray_code functions_table_came(struct functions *functions, uint32_t rank,
                                     const struct functions_table *theirs,
                                     struct moray_error *error)
{
    enum moray_code code = functions_compare(functions->ours, 0, theirs, rank, error);

    if (code == MORAY_OK)
        return error_set(error, MORAY_PROTOCOL,
                         "rank %u said that its functions differ, and sent the same ones", rank);
    return code;
}

enum moray_code functions_create(const struct functions_table *ours, uint32_t rank_count,
                                 struct functions **out, struct moray_error *error)
{
    struct functions *functions;

    *out = NULL;
    if (rank_count == 0)
        return error_set(error, MORAY_INVALID, "rank_count is 0; a job has at least one rank");
    functions = calloc(1, sizeof(*functions) + rank_count * sizeof(bool));
    if (!functions)
        return error_set(error, MORAY_NO_MEMORY, "no memory for %u ranks", rank_count);
    functions->ours = ours;
    functions->digest = functions_digest(ours);
    functions->rank_count = rank_count;
    functions->answered[0] = true; /* rank 0's own */
    functions->same_count = 1;
    *out = functions;
    return MORAY_OK;
}

void functions_destroy(struct functions *functions)
{
    free(functions);
}
