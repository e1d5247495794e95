/**
 * Keys and values by namespace: a pure state machine of the GCS.
 *
 *     (namespace, key) -> value, version         in order of namespace, then key, byte by byte
 *
 * A key is any bytes, a value is any bytes (none is a value too). Each change makes a new version,
 * one sequence for the whole store, so "what changed since version v" has an answer; who must tell
 * watchers takes the version and the key from the call that made the change.
 * Each bound has a story that names it and the setting. A call that fails changes nothing.
 * Nothing here sends, waits, logs or reads a clock.
 * Threads: one caller at a time (rank 0's agent). Cost: about 2 log2(keys) comparisons a call; memory
 * is one block a key (about 64 bytes more than its bytes).
 */
#ifndef MORAY_GCS_KV_H
#define MORAY_GCS_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct kv;

struct kv_options {         /* zeros are the defaults */
    size_t key_bytes_max;   /* namespace and key together; 0: 4 KiB */
    size_t value_bytes_max; /* 0: 1 MiB; larger values belong in objects */
    size_t total_bytes_max; /* all keys and values, as stored; 0: 64 MiB */
};

struct kv_span {      /* some bytes of somebody else's */
    const void *data; /* may be NULL only if bytes is 0 */
    size_t bytes;
};

struct kv_value {         /* what is there; borrowed until the next call that changes the store */
    struct kv_span value; /* data is NULL: there is no such key */
    uint64_t version;     /* of the change that wrote it; 0: there is no such key */
};

struct kv_entry { /* one line of a list; borrowed until the next call that changes the store */
    struct kv_span key;
    struct kv_span value;
    uint64_t version;
};

enum kv_how { KV_OVERWRITE, KV_IF_ABSENT };

/** Makes an empty store. Owner: the caller, until kv_destroy(); `options` is copied.
 *  Errors: MORAY_NO_MEMORY; then `*out` is NULL. */
MORAY_MUST_CHECK enum moray_code kv_create(const struct kv_options *options, struct kv **out,
                                           struct moray_error *error);

/** Frees the store; NULL is allowed. */
void kv_destroy(struct kv *kv);

/** Writes a value; its bytes are copied. `*version` is that of the change.
 *  Errors: MORAY_EXISTS (KV_IF_ABSENT and the key is there; `*version` is its own), MORAY_INVALID
 *  (over key_bytes_max or value_bytes_max), MORAY_FULL (over total_bytes_max), MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code kv_put(struct kv *kv, struct kv_span space, struct kv_span key,
                                        struct kv_span value, enum kv_how how, uint64_t *version,
                                        struct moray_error *error);

/** Reads a value; a key that is not there gives data NULL and version 0. Never fails. */
struct kv_value kv_get(const struct kv *kv, struct kv_span space, struct kv_span key);

/** Reads `count` values of one namespace, `out[i]` for `keys[i]`; all at one version of the store. */
void kv_get_many(const struct kv *kv, struct kv_span space, const struct kv_span *keys,
                 size_t count, struct kv_value *out);

/** Deletes a key. `*version` is that of the change, or 0 if there was no such key. Never fails. */
void kv_delete(struct kv *kv, struct kv_span space, struct kv_span key, uint64_t *version);

/** Lists keys that begin with `prefix`, in order, at most `room` of them, beginning behind `after`
 *  (NULL: at the first). The last key of a page is `after` of the next; `*more` says whether there
 *  is a next. A key that was there all the while is listed once, whatever changed between pages.
 *  Returns the count. */
size_t kv_list(const struct kv *kv, struct kv_span space, struct kv_span prefix,
               const struct kv_span *after, struct kv_entry *out, size_t room, bool *more);

/** Adds `delta` to the number stored there (int64_t, 8 bytes, the machine's order); a key that is
 *  not there counts as 0. `*sum` is the new number.
 *  Errors: as kv_put(), and MORAY_WRONG_TYPE if what is there is not 8 bytes, MORAY_INVALID if the
 *  sum overflows. */
MORAY_MUST_CHECK enum moray_code kv_add(struct kv *kv, struct kv_span space, struct kv_span key,
                                        int64_t delta, int64_t *sum, uint64_t *version,
                                        struct moray_error *error);

/** Writes `desired` if what is there equals `expected` (NULL: no such key), in one step.
 *  `*swapped` tells; if not, `*now` is what is there (borrowed), and nothing changed.
 *  Errors: as kv_put(). */
MORAY_MUST_CHECK enum moray_code kv_swap(struct kv *kv, struct kv_span space, struct kv_span key,
                                         const struct kv_span *expected, struct kv_span desired,
                                         bool *swapped, struct kv_value *now, uint64_t *version,
                                         struct moray_error *error);

/** The version of the last change, how many keys there are, and their bytes as stored. */
uint64_t kv_version(const struct kv *kv);
size_t kv_key_count(const struct kv *kv);
size_t kv_total_bytes(const struct kv *kv);

#endif
