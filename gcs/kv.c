#include "gcs/kv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/index.h"

/* A treap: a search tree by (namespace, key), and a heap by priority, which is a hash of the key. So
 * the tree is the same for the same keys, whatever their history, and needs no random source. */
struct item {
    struct item *left, *right; /* owned */
    uint64_t priority;
    uint64_t version;
    size_t space_bytes, key_bytes, value_bytes;
    char bytes[]; /* namespace, key, value */
};

struct kv {
    struct kv_options options;
    struct item *root; /* owned */
    uint64_t version;
    size_t key_count;
    size_t total_bytes; /* sum of item_bytes() over all items */
};

static size_t item_bytes(const struct item *item)
{
    return sizeof(*item) + item->space_bytes + item->key_bytes + item->value_bytes;
}

static struct kv_span space_of(const struct item *item)
{
    return (struct kv_span){item->bytes, item->space_bytes};
}

static struct kv_span key_of(const struct item *item)
{
    return (struct kv_span){item->bytes + item->space_bytes, item->key_bytes};
}

static struct kv_value value_of(const struct item *item)
{
    if (!item)
        return (struct kv_value){0};
    return (struct kv_value){{item->bytes + item->space_bytes + item->key_bytes, item->value_bytes},
                             item->version};
}

static int compare_spans(struct kv_span a, struct kv_span b)
{
    size_t common = a.bytes < b.bytes ? a.bytes : b.bytes;
    int order = common ? memcmp(a.data, b.data, common) : 0;

    return order ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

static int compare(const struct item *item, struct kv_span space, struct kv_span key)
{
    int order = compare_spans(space_of(item), space);

    return order ? order : compare_spans(key_of(item), key);
}

/* Where the item hangs, or where NULL does in its stead. */
static struct item **find(struct kv *kv, struct kv_span space, struct kv_span key)
{
    struct item **at = &kv->root;
    int order;

    while (*at && (order = compare(*at, space, key)) != 0)
        at = order > 0 ? &(*at)->left : &(*at)->right;
    return at;
}

/* Divides a tree into those before `item` and those behind it. */
static void split(struct item *tree, const struct item *item, struct item **before,
                  struct item **behind)
{
    while (tree) {
        if (compare(tree, space_of(item), key_of(item)) < 0) {
            *before = tree;
            before = &tree->right;
            tree = tree->right;
        } else {
            *behind = tree;
            behind = &tree->left;
            tree = tree->left;
        }
    }
    *before = *behind = NULL;
}

/* Hangs an item in that is not there yet. */
static void insert(struct kv *kv, struct item *item)
{
    struct item **at = &kv->root;

    while (*at && (*at)->priority >= item->priority)
        at = compare(*at, space_of(item), key_of(item)) > 0 ? &(*at)->left : &(*at)->right;
    split(*at, item, &item->left, &item->right);
    *at = item;
    kv->key_count++;
    kv->total_bytes += item_bytes(item);
}

/* Takes the item that hangs at `at` out and frees it. */
static void erase(struct kv *kv, struct item **at)
{
    struct item *item = *at, *before = item->left, *behind = item->right;

    while (before && behind) {
        if (before->priority >= behind->priority) {
            *at = before;
            at = &before->right;
            before = before->right;
        } else {
            *at = behind;
            at = &behind->left;
            behind = behind->left;
        }
    }
    *at = before ? before : behind;
    kv->key_count--;
    kv->total_bytes -= item_bytes(item);
    free(item);
}

static struct item *item_create(struct kv_span space, struct kv_span key, struct kv_span value)
{
    struct item *item = malloc(sizeof(*item) + space.bytes + key.bytes + value.bytes);

    if (!item)
        return NULL;
    *item = (struct item){
        .priority = index_hash(index_hash(0, space.data, space.bytes), key.data, key.bytes),
        .space_bytes = space.bytes,
        .key_bytes = key.bytes,
        .value_bytes = value.bytes};
    if (space.bytes)
        memcpy(item->bytes, space.data, space.bytes);
    if (key.bytes)
        memcpy(item->bytes + space.bytes, key.data, key.bytes);
    if (value.bytes)
        memcpy(item->bytes + space.bytes + key.bytes, value.data, value.bytes);
    return item;
}

static enum moray_code check_bounds(const struct kv *kv, struct kv_span space, struct kv_span key,
                                    struct kv_span value, const struct item *old,
                                    struct moray_error *error)
{
    const struct kv_options *options = &kv->options;
    size_t rest = kv->total_bytes - (old ? item_bytes(old) : 0);

    if (space.bytes > options->key_bytes_max || key.bytes > options->key_bytes_max - space.bytes)
        return error_set(error, MORAY_INVALID,
                         "a namespace of %zu bytes and a key of %zu; together at most %zu "
                         "(key_bytes_max)",
                         space.bytes, key.bytes, options->key_bytes_max);
    if (value.bytes > options->value_bytes_max)
        return error_set(error, MORAY_INVALID,
                         "a value of %zu bytes; at most %zu (value_bytes_max): put a larger one as "
                         "an object",
                         value.bytes, options->value_bytes_max);
    if (rest + sizeof(struct item) + space.bytes + key.bytes + value.bytes >
        options->total_bytes_max)
        return error_set(
            error, MORAY_FULL,
            "the key-value store holds %zu of %zu bytes (total_bytes_max) in %zu keys; "
            "a value of %zu bytes has no room",
            kv->total_bytes, options->total_bytes_max, kv->key_count, value.bytes);
    return MORAY_OK;
}

/* Writes a value where `at` hangs, over what is there. */
static enum moray_code write_at(struct kv *kv, struct item **at, struct kv_span space,
                                struct kv_span key, struct kv_span value, uint64_t *version,
                                struct moray_error *error)
{
    enum moray_code code = check_bounds(kv, space, key, value, *at, error);
    struct item *item;

    if (code != MORAY_OK)
        return code;
    item = item_create(space, key, value); /* before the old one goes: `value` may lie in it */
    if (!item)
        return error_set(error, MORAY_NO_MEMORY, "no memory for a value of %zu bytes", value.bytes);
    *version = item->version = ++kv->version;
    if (*at)
        erase(kv, at);
    insert(kv, item);
    return MORAY_OK;
}

enum moray_code kv_put(struct kv *kv, struct kv_span space, struct kv_span key,
                       struct kv_span value, enum kv_how how, uint64_t *version,
                       struct moray_error *error)
{
    struct item **at = find(kv, space, key);

    if (*at && how == KV_IF_ABSENT) {
        *version = (*at)->version;
        return error_set(error, MORAY_EXISTS, "the key is there already, since version %llu",
                         (unsigned long long)*version);
    }
    return write_at(kv, at, space, key, value, version, error);
}

struct kv_value kv_get(const struct kv *kv, struct kv_span space, struct kv_span key)
{
    return value_of(*find((struct kv *)kv, space, key));
}

void kv_get_many(const struct kv *kv, struct kv_span space, const struct kv_span *keys,
                 size_t count, struct kv_value *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = kv_get(kv, space, keys[i]);
}

void kv_delete(struct kv *kv, struct kv_span space, struct kv_span key, uint64_t *version)
{
    struct item **at = find(kv, space, key);

    *version = *at ? ++kv->version : 0;
    if (*at)
        erase(kv, at);
}

/* The first item at or behind (space, key); with `behind`, the first behind it. */
static const struct item *first_from(const struct kv *kv, struct kv_span space, struct kv_span key,
                                     bool behind)
{
    const struct item *tree = kv->root, *first = NULL;

    while (tree) {
        int order = compare(tree, space, key);
        if (order > 0 || (order == 0 && !behind)) {
            first = tree;
            tree = tree->left;
        } else {
            tree = tree->right;
        }
    }
    return first;
}

static bool listed(const struct item *item, struct kv_span space, struct kv_span prefix)
{
    return item && compare_spans(space_of(item), space) == 0 && item->key_bytes >= prefix.bytes &&
           (prefix.bytes == 0 || memcmp(key_of(item).data, prefix.data, prefix.bytes) == 0);
}

size_t kv_list(const struct kv *kv, struct kv_span space, struct kv_span prefix,
               const struct kv_span *after, struct kv_entry *out, size_t room, bool *more)
{
    bool behind = after && compare_spans(*after, prefix) >= 0;
    const struct item *item = first_from(kv, space, behind ? *after : prefix, behind);
    size_t count = 0;

    while (count < room && listed(item, space, prefix)) {
        struct kv_value value = value_of(item);
        out[count++] = (struct kv_entry){key_of(item), value.value, value.version};
        item = first_from(kv, space, key_of(item), true);
    }
    *more = listed(item, space, prefix);
    return count;
}

enum moray_code kv_add(struct kv *kv, struct kv_span space, struct kv_span key, int64_t delta,
                       int64_t *sum, uint64_t *version, struct moray_error *error)
{
    struct item **at = find(kv, space, key);
    struct kv_value old = value_of(*at);
    int64_t number = 0, result;
    enum moray_code code;

    if (*at && old.value.bytes != sizeof(number))
        return error_set(error, MORAY_WRONG_TYPE,
                         "the value has %zu bytes; only a number of 8 bytes can be added to",
                         old.value.bytes);
    if (*at)
        memcpy(&number, old.value.data, sizeof(number));
    if (__builtin_add_overflow(number, delta, &result))
        return error_set(error, MORAY_INVALID, "%lld + %lld overflows", (long long)number,
                         (long long)delta);
    code = write_at(kv, at, space, key, (struct kv_span){&result, sizeof(result)}, version, error);
    if (code == MORAY_OK)
        *sum = result;
    return code;
}

enum moray_code kv_swap(struct kv *kv, struct kv_span space, struct kv_span key,
                        const struct kv_span *expected, struct kv_span desired, bool *swapped,
                        struct kv_value *now, uint64_t *version, struct moray_error *error)
{
    struct item **at = find(kv, space, key);
    enum moray_code code;

    *now = value_of(*at);
    *swapped = expected ? *at && compare_spans(now->value, *expected) == 0 : !*at;
    if (!*swapped)
        return MORAY_OK;
    code = write_at(kv, at, space, key, desired, version, error);
    *swapped = code == MORAY_OK;
    *now = value_of(*find(kv, space, key));
    return code;
}

uint64_t kv_version(const struct kv *kv)
{
    return kv->version;
}

size_t kv_key_count(const struct kv *kv)
{
    return kv->key_count;
}

size_t kv_total_bytes(const struct kv *kv)
{
    return kv->total_bytes;
}

enum moray_code kv_create(const struct kv_options *options, struct kv **out,
                          struct moray_error *error)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return error_set(error, MORAY_NO_MEMORY, "no memory for the key-value store");
    (*out)->options = *options;
    if (!options->key_bytes_max)
        (*out)->options.key_bytes_max = 4 << 10;
    if (!options->value_bytes_max)
        (*out)->options.value_bytes_max = 1 << 20;
    if (!options->total_bytes_max)
        (*out)->options.total_bytes_max = 64 << 20;
    return MORAY_OK;
}

void kv_destroy(struct kv *kv)
{
    if (!kv)
        return;
    while (kv->root)
        erase(kv, &kv->root);
    assert(kv->key_count == 0 && kv->total_bytes == 0);
    free(kv);
}
