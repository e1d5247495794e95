/** What waits for words waits for those said before it, and for no others; and in order. */
#include <stdbool.h>

#include "base/array.h"
#include "node/words.h"
#include "law.h"

enum { EVENTS = 3000 };

struct act {
    uint64_t after; /* words said before it */
    bool done;
};
static struct act acts[EVENTS];
static uint32_t act_count, done_count;
static bool heard[EVENTS];
static uint64_t said;

static void does(const struct word_act *act)
{
    if (act->with[0] != done_count)
        ck_abort_msg("%u is done when %u is due", act->with[0], done_count);
    for (uint64_t i = 0; i < acts[act->with[0]].after; i++)
        if (!heard[i])
            ck_abort_msg("done before word %d was heard", (int)i);
    acts[done_count++].done = true;
}

/* Words are heard in any order, as different ranks answer them. */
START_TEST(what_waits_is_done_in_order_when_all_before_it_is_heard)
{
    uint64_t seed = (uint64_t)_i + 1;

    act_count = done_count = 0;
    said = 0;
    for (int event = 0; event < EVENTS; event++) {
        uint32_t draw = law_random(&seed, 10);
        if (draw < 4 && event < EVENTS - 500) {
            heard[said] = false;
            LAW(word_said() == said, _i, event);
            said++;
        } else if (draw < 6) {
            acts[act_count] = (struct act){said, false};
            words_then((struct word_act){does, {act_count}});
            act_count++;
        } else if (said) {
            uint64_t back = law_random(&seed, said > 40 ? 40 : (uint32_t)said);
            uint64_t number = said - 1 - back;
            heard[number] = true; /* some are heard twice */
            word_heard((uint32_t)number);
            word_heard((uint32_t)said + 5); /* and one that nobody said */
        }
        bool all = true;
        for (uint32_t i = done_count; i < act_count && i == done_count; i++) {
            for (uint64_t k = 0; k < acts[i].after; k++)
                all &= heard[k];
            LAW(!all, _i, event); /* else it would have been done */
        }
    }
    for (uint64_t i = 0; i < said; i++) {
        heard[i] = true;
        word_heard((uint32_t)i);
    }
    ck_assert_uint_eq(done_count, act_count);
    ck_assert(words_heard(words_said()));
    words_end();
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("words");

    tcase_add_loop_test(laws, what_waits_is_done_in_order_when_all_before_it_is_heard, 0, 20);
    return law_run("words", laws);
}
