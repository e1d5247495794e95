#include "fabric/talk.h"

#include <assert.h>
#include <string.h>

enum { MAGIC = 0x79726f6d, VERSION = 1 };

struct answer {
    uint8_t nonce[AUTH_NONCE_BYTES];
    uint8_t proof[AUTH_PROOF_BYTES];
};

struct record {
    uint8_t tag[AUTH_TAG_BYTES]; /* over everything behind it */
    uint64_t sequence;           /* of this direction of this connection, from 0 */
    uint16_t bytes;              /* behind the head */
    uint8_t word, zero[5];
    uint8_t data[];
};

static_assert(sizeof(struct talk_hello) == 32 && sizeof(struct answer) == 48, "no padding");
static_assert(sizeof(((struct talk *)0)->said) == 48, "no padding");
static_assert(sizeof(struct record) == 32, "no padding");
static_assert(sizeof(struct record) + DOORBELL_RECORD_MAX <= TALK_IN_BYTES, "a record fits");

static void out_add(struct talk *talk, const void *bytes, size_t count)
{
    assert(talk->out_count + count <= TALK_OUT_BYTES);
    memcpy(talk->out + talk->out_count, bytes, count);
    talk->out_count += count;
}

static void in_drop(struct talk *talk, size_t count)
{
    talk->in_count -= count;
    memmove(talk->in, talk->in + count, talk->in_count);
}

void talk_dial(struct talk *talk, uint32_t me, uint32_t rank)
{
    talk->state = TALK_ANSWER;
    talk->dialled = true;
    talk->me = me;
    talk->rank = rank;
    talk->said.hello =
        (struct talk_hello){.magic = MAGIC, .version = VERSION, .from = me, .to = rank};
    auth_random(talk->said.hello.nonce, sizeof(talk->said.hello.nonce));
    out_add(talk, &talk->said.hello, sizeof(talk->said.hello));
}

void talk_listen(struct talk *talk, uint32_t me)
{
    talk->state = TALK_HELLO;
    talk->me = me;
}

static void up(struct talk *talk, const uint8_t *secret)
{
    auth_derive(secret, "moray doorbell", talk->me, talk->rank, &talk->said, sizeof(talk->said),
                &talk->out_key);
    auth_derive(secret, "moray doorbell", talk->rank, talk->me, &talk->said, sizeof(talk->said),
                &talk->in_key);
    talk->state = TALK_UP;
}

/* The listener's side: who is there, and does it know whom it talks to? */
static const char *take_hello(struct talk *talk, const uint8_t *secret, uint32_t rank_count)
{
    struct talk_hello *hello = &talk->said.hello;
    struct answer answer;

    memcpy(hello, talk->in, sizeof(*hello));
    if (hello->magic != MAGIC || hello->version != VERSION)
        return "it does not speak this protocol";
    if (hello->to != talk->me || hello->from >= rank_count || hello->from == talk->me)
        return "it takes this rank for another";
    auth_random(answer.nonce, sizeof(answer.nonce));
    memcpy(talk->said.nonce, answer.nonce, sizeof(answer.nonce));
    auth_prove(secret, "listener", &talk->said, sizeof(talk->said), answer.proof);
    out_add(talk, &answer, sizeof(answer));
    talk->state = TALK_PROOF;
    return NULL;
}

static const char *take_proof(struct talk *talk, const uint8_t *secret)
{
    uint8_t right[AUTH_PROOF_BYTES];

    auth_prove(secret, "dialler", &talk->said, sizeof(talk->said), right);
    if (!auth_proof_equal(right, talk->in))
        return "it does not prove the job's secret";
    talk->rank = talk->said.hello.from;
    up(talk, secret);
    return NULL;
}

static const char *take_answer(struct talk *talk, const uint8_t *secret)
{
    const struct answer *answer = (const struct answer *)talk->in;
    uint8_t proof[AUTH_PROOF_BYTES];

    memcpy(talk->said.nonce, answer->nonce, sizeof(answer->nonce));
    auth_prove(secret, "listener", &talk->said, sizeof(talk->said), proof);
    if (!auth_proof_equal(proof, answer->proof))
        return "it does not prove the job's secret";
    auth_prove(secret, "dialler", &talk->said, sizeof(talk->said), proof);
    out_add(talk, proof, sizeof(proof));
    up(talk, secret);
    return NULL;
}

const char *talk_step(struct talk *talk, const uint8_t *secret, uint32_t rank_count, bool *moved)
{
    static const size_t wanted[] = {[TALK_HELLO] = sizeof(struct talk_hello),
                                    [TALK_ANSWER] = sizeof(struct answer),
                                    [TALK_PROOF] = AUTH_PROOF_BYTES};
    enum talk_state state = talk->state;
    const char *why;

    *moved = state != TALK_UP && talk->in_count >= wanted[state];
    if (!*moved)
        return NULL;
    why = state == TALK_HELLO    ? take_hello(talk, secret, rank_count)
          : state == TALK_ANSWER ? take_answer(talk, secret)
                                 : take_proof(talk, secret);
    in_drop(talk, wanted[state]);
    return why;
}

int talk_take(struct talk *talk, enum doorbell_word *word, void *data, size_t *count)
{
    struct record record;
    size_t bytes;

    if (talk->in_count < sizeof(record))
        return 0;
    memcpy(&record, talk->in, sizeof(record));
    if (record.bytes > DOORBELL_RECORD_MAX)
        return -1;
    bytes = sizeof(record) + record.bytes;
    if (talk->in_count < bytes)
        return 0;
    if (record.sequence != talk->in_sequence ||
        !auth_check(&talk->in_key, talk->in + AUTH_TAG_BYTES, bytes - AUTH_TAG_BYTES, record.tag))
        return -1;
    talk->in_sequence++;
    *word = record.word;
    *count = record.bytes;
    memcpy(data, talk->in + sizeof(record), record.bytes);
    in_drop(talk, bytes);
    return 1;
}

bool talk_put(struct talk *talk, enum doorbell_word word, const void *bytes, size_t count)
{
    _Alignas(8) uint8_t buffer[sizeof(struct record) + DOORBELL_RECORD_MAX];
    struct record *record = (struct record *)buffer;

    assert(count <= DOORBELL_RECORD_MAX && talk->state == TALK_UP);
    if (talk->out_count + sizeof(*record) + count > TALK_OUT_BYTES)
        return false;
    *record = (struct record){
        .sequence = talk->out_sequence++, .bytes = (uint16_t)count, .word = (uint8_t)word};
    if (count)
        memcpy(record->data, bytes, count);
    auth_tag(&talk->out_key, &record->sequence, sizeof(*record) - AUTH_TAG_BYTES + count,
             record->tag);
    out_add(talk, record, sizeof(*record) + count);
    return true;
}
