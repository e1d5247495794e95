#include "node/words.h"

#include <stdlib.h>
#include <string.h>

#include "base/array.h"

struct later {
    uint64_t after; /* words_said() then */
    struct word_act act;
};

static bool *heard; /* of the words [first, said); the first of them is on its way */
static uint64_t first, said;
static uint32_t heard_first, heard_capacity;
static struct later *laters;
static uint32_t later_first, later_count, later_capacity;

uint64_t words_said(void)
{
    return said;
}

bool words_heard(uint64_t count)
{
    return first >= count;
}

uint64_t word_said(void)
{
    uint32_t used = heard_first + (uint32_t)(said - first);

    if (used == heard_capacity && heard_first > heard_capacity / 2) {
        memmove(heard, heard + heard_first, (size_t)(said - first) * sizeof(*heard));
        used -= heard_first;
        heard_first = 0;
    }
    heard = array_grown(heard, used, &heard_capacity, sizeof(*heard));
    heard[used] = false;
    return said++;
}

static void laters_act(void)
{
    while (later_count && words_heard(laters[later_first].after)) {
        struct word_act act = laters[later_first++].act;
        if (--later_count == 0)
            later_first = 0;
        act.act(&act);
    }
}

void word_heard(uint32_t number)
{
    uint32_t distance = number - (uint32_t)first;

    if (distance >= said - first)
        return;
    heard[heard_first + distance] = true;
    while (first < said && heard[heard_first]) {
        first++;
        heard_first++;
    }
    if (first == said)
        heard_first = 0;
    laters_act();
}

void words_then(struct word_act act)
{
    if (words_heard(said)) {
        act.act(&act);
        return;
    }
    uint32_t used = later_first + later_count;
    if (used == later_capacity && later_first > later_capacity / 2) {
        memmove(laters, laters + later_first, later_count * sizeof(*laters));
        used -= later_first;
        later_first = 0;
    }
    laters = array_grown(laters, used, &later_capacity, sizeof(*laters));
    laters[used] = (struct later){said, act};
    later_count++;
}

void words_end(void)
{
    free(heard);
    free(laters);
    heard = NULL;
    laters = NULL;
    first = said = 0;
    heard_first = heard_capacity = later_first = later_count = later_capacity = 0;
}
