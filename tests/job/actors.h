/**
 * The classes that programs of laws about actors share: one that remembers its calls, one with a
 * constructor and a destructor, one that keeps a handle.
 * Who calls: actors.c, actor_deaths.c and actor_lifetime.c. Threads: as of law.h.
 */
#ifndef MORAY_TESTS_JOB_ACTORS_H
#define MORAY_TESTS_JOB_ACTORS_H

#include "keys.h"

static inline bool count_becomes(const char *key, int64_t want)
{
    for (uint64_t until = law_ms() + 10000; law_ms() < until; law_sleep_ms(5))
        if (counted(key) == want)
            return true;
    return false;
}

static inline word say_number(const char *text, int number)
{
    word w = {""};
    snprintf(w.text, sizeof(w.text), "%s %d", text, number);
    return w;
}

enum { LOG_MAX = 256 };
typedef struct {
    int32_t count;
    int32_t values[LOG_MAX];
} list;

MORAY_ACTOR(diary, (list, log));
MORAY_METHOD(int32_t, diary, note, (int32_t, value))
{
    if (self->log.count < LOG_MAX)
        self->log.values[self->log.count++] = value;
    return self->log.count;
}
MORAY_METHOD(list, diary, read)
{
    return self->log;
}
MORAY_METHOD(int32_t, diary, note_at_gate, (word, gate), (int32_t, value))
{
    gate_wait(gate.text);
    self->log.values[self->log.count++] = value;
    return self->log.count;
}
MORAY_METHOD(int32_t, diary, fails, (int32_t, value))
{
    moray_fail(MORAY_FAILED, "%d is not a value", value);
    return 0;
}
MORAY_METHOD(int32_t, diary, dies, (int32_t, signal))
{
    if (signal == 0)
        exit(5);
    raise(signal);
    return 0;
}
MORAY_METHOD(int64_t, diary, where)
{
    (void)self;
    return (int64_t)getpid() << 8 | moray_rank();
}
/* Notes before it dies, in the attempts below `good`. */
MORAY_METHOD(int32_t, diary, dies_until, (word, key), (int32_t, good))
{
    int64_t run = count(key.text);
    if (run < good)
        raise(SIGKILL);
    return self->log.values[self->log.count++] = (int32_t)run;
}
MORAY_METHOD(int32_t, diary, counts, (word, key), (int32_t, value))
{
    count(key.text);
    self->log.values[self->log.count++] = value;
    return value;
}

MORAY_ACTOR(keeper, (diary_actor, mine));
MORAY_METHOD(int32_t, keeper, take, (diary_actor, actor))
{
    self->mine = actor;
    return (int32_t)moray_actor_hold(actor);
}
MORAY_METHOD(int32_t, keeper, note, (int32_t, value))
{
    return moray_take_as(int32_t, moray_call(diary_note, self->mine, value));
}
MORAY_METHOD(int32_t, keeper, drop)
{
    return (int32_t)moray_actor_release(self->mine);
}

MORAY_ACTOR(built, (int32_t, value), (word, key));
MORAY_CONSTRUCTOR(built, (word, key), (int32_t, value))
{
    self->key = key;
    self->value = value;
    count(key.text);
    if (value < 0)
        moray_fail(MORAY_NOT_FOUND, "no actor of value %d", value);
}
MORAY_METHOD(int32_t, built, value)
{
    return self->value;
}
MORAY_METHOD(int32_t, built, add, (int32_t, by))
{
    return self->value += by;
}
MORAY_METHOD(int32_t, built, dies, (int32_t, how))
{
    (void)self;
    if (how == 0)
        exit(0);
    if (how < 0)
        exit(-how);
    raise(how);
    return 0;
}
MORAY_DESTRUCTOR(built)
{
    char key[40];
    snprintf(key, sizeof(key), "%s ended", self->key.text);
    count(key);
}

static inline diary_actor diary_on(int node)
{
    diary_actor actor = moray_new_with((.on_rank = on_node(node)), diary);
    DEMAND(actor.handle.node != 0);
    return actor;
}

static inline bool diary_is_dead(diary_actor actor)
{
    enum moray_code code = MORAY_OK;

    for (uint64_t until = law_ms() + 10000; code == MORAY_OK && law_ms() < until;) {
        moray_ref later = moray_call(diary_where, actor);
        code = moray_get_bytes(later, NULL, 0, 5000);
        moray_release(later);
    }
    return code == MORAY_ACTOR_DIED;
}

typedef struct {
    built_actor actor;
} door;
MORAY_REFS(door, actor);

#endif
