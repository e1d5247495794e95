/**
 * What this rank takes on others (a reference, a handle), until they are known to have heard of it.
 *
 *     word      BORROW to an owner, a hold to rank 0: numbered, on its way until it is answered
 *     let go    whatever may make another rank let something go: RELEASE, FREE, RESULT, STARTS, the last
 *               hold of an actor. It waits for the words that were said before it
 *
 * Messages of two ranks reach a third in any order: else what a task here took from its caller could be
 * freed by the caller's word before ours has come (base/holders.h asks for this).
 * Threads: the agent's. Cost: nothing where no word is on its way.
 */
#ifndef MORAY_NODE_WORDS_H
#define MORAY_NODE_WORDS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    WORD_TOKEN = 0xfffffffe /* in the low half of a token for rank 0: the answer is word_heard() */
};

/** A new word is on its way; returns its number, which comes back with the answer (its low 32 bits do). */
uint64_t word_said(void);
void word_heard(uint32_t number);

/** How many were said; whether the first `count` of them have been heard. */
uint64_t words_said(void);
bool words_heard(uint64_t count);

struct word_act {
    void (*act)(const struct word_act *act);
    uint32_t with[4];
};

/** Does it once every word said by now has been heard: at once, if none is on its way. In order. */
void words_then(struct word_act act);

void words_end(void);

#endif
