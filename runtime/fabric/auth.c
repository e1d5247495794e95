#include "fabric/auth.h"

#include <assert.h>
#include <string.h>
#include <sodium.h>

static_assert(crypto_shorthash_siphashx24_KEYBYTES == sizeof(struct auth_key), "keys of SipHash");
static_assert(crypto_shorthash_siphashx24_BYTES == AUTH_TAG_BYTES, "tags of SipHash");

enum moray_code auth_start(struct moray_error *error)
{
    if (sodium_init() < 0)
        return error_set(error, MORAY_SYSTEM,
                         "libsodium cannot start: the system gives no random bytes");
    return MORAY_OK;
}

void auth_random(void *bytes, size_t count)
{
    randombytes_buf(bytes, count);
}

/* The length of the label goes in before it, so that no label with its data reads as another's. */
static void hash_start(crypto_generichash_state *state, const uint8_t *secret, const char *label,
                       size_t out_bytes)
{
    uint64_t label_bytes = strlen(label);

    crypto_generichash_init(state, secret, AUTH_SECRET_BYTES, out_bytes);
    crypto_generichash_update(state, (const uint8_t *)&label_bytes, sizeof(label_bytes));
    crypto_generichash_update(state, (const uint8_t *)label, label_bytes);
}

void auth_derive(const uint8_t *secret, const char *label, uint32_t from, uint32_t to,
                 const void *salt, size_t salt_bytes, struct auth_key *out)
{
    crypto_generichash_state state;
    uint32_t ranks[2] = {from, to};

    hash_start(&state, secret, label, sizeof(*out));
    crypto_generichash_update(&state, (const uint8_t *)ranks, sizeof(ranks));
    if (salt_bytes)
        crypto_generichash_update(&state, salt, salt_bytes);
    crypto_generichash_final(&state, out->bytes, sizeof(out->bytes));
    sodium_memzero(&state, sizeof(state));
}

void auth_prove(const uint8_t *secret, const char *label, const void *said, size_t said_bytes,
                uint8_t proof[AUTH_PROOF_BYTES])
{
    crypto_generichash_state state;

    hash_start(&state, secret, label, AUTH_PROOF_BYTES);
    crypto_generichash_update(&state, said, said_bytes);
    crypto_generichash_final(&state, proof, AUTH_PROOF_BYTES);
    sodium_memzero(&state, sizeof(state));
}

bool auth_proof_equal(const uint8_t a[AUTH_PROOF_BYTES], const uint8_t b[AUTH_PROOF_BYTES])
{
    return sodium_memcmp(a, b, AUTH_PROOF_BYTES) == 0;
}

void auth_tag(const struct auth_key *key, const void *bytes, size_t count,
              uint8_t tag[AUTH_TAG_BYTES])
{
    crypto_shorthash_siphashx24(tag, bytes, count, key->bytes);
}

bool auth_check(const struct auth_key *key, const void *bytes, size_t count,
                const uint8_t tag[AUTH_TAG_BYTES])
{
    uint8_t right[AUTH_TAG_BYTES];

    auth_tag(key, bytes, count, right);
    return sodium_memcmp(right, tag, AUTH_TAG_BYTES) == 0;
}
