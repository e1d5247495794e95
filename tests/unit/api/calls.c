/* The right bytes arrive: every form of call, run in one process by fake.c. Built as C and as C++. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "calls.h"
#ifdef __cplusplus
#include <stdexcept>
#endif

enum colour { RED, GREEN = 7 };
typedef struct {
    uint8_t bytes[200];
} large;

/* ---- Arities 0 to 10: each value in its place ---- */

MORAY_TASK(int64_t, f0)
{
    return 42;
}
MORAY_TASK(int64_t, f1, (int64_t, a))
{
    return a;
}
MORAY_TASK(int64_t, f2, (int64_t, a), (int32_t, b))
{
    return a * 10 + b;
}
MORAY_TASK(int64_t, f3, (int64_t, a), (int32_t, b), (int16_t, c))
{
    return (a * 10 + b) * 10 + c;
}
MORAY_TASK(int64_t, f4, (int64_t, a), (int32_t, b), (int16_t, c), (int8_t, d))
{
    return ((a * 10 + b) * 10 + c) * 10 + d;
}
MORAY_TASK(int64_t, f5, (int, a), (int, b), (int, c), (int, d), (int, e))
{
    return a * 10000 + b * 1000 + c * 100 + d * 10 + e;
}
MORAY_TASK(int64_t, f6, (int, a), (int, b), (int, c), (int, d), (int, e), (int, f))
{
    return a * 100000 + b * 10000 + c * 1000 + d * 100 + e * 10 + f;
}
MORAY_TASK(int64_t, f7, (int, a), (int, b), (int, c), (int, d), (int, e), (int, f), (int, g))
{
    return a * 1000000 + b * 100000 + c * 10000 + d * 1000 + e * 100 + f * 10 + g;
}
MORAY_TASK(int64_t, f8, (int, a), (int, b), (int, c), (int, d), (int, e), (int, f), (int, g),
           (int, h))
{
    return a * 10000000 + b * 1000000 + c * 100000 + d * 10000 + e * 1000 + f * 100 + g * 10 + h;
}
MORAY_TASK(int64_t, f9, (int, a), (int, b), (int, c), (int, d), (int, e), (int, f), (int, g),
           (int, h), (int, i))
{
    return a * 100000000 + b * 10000000 + c * 1000000 + d * 100000 + e * 10000 + f * 1000 +
           g * 100 + h * 10 + i;
}
MORAY_TASK(int64_t, f10, (int64_t, a), (int, b), (int, c), (int, d), (int, e), (int, f), (int, g),
           (int, h), (int, i), (int, j))
{
    return a * 1000000000 + b * 100000000 + c * 10000000 + d * 1000000 + e * 100000 + f * 10000 +
           g * 1000 + h * 100 + i * 10 + j;
}

static void arities(void)
{
    moray_ref three = moray_put_value(int, 3), one = moray_put_value(int64_t, 1);

    EXPECT(moray_take_as(int64_t, moray_call(f0)) == 42);
    EXPECT(moray_take_as(int64_t, moray_call(f1, 1)) == 1);
    EXPECT(moray_take_as(int64_t, moray_call(f2, 1, 2)) == 12);
    EXPECT(moray_take_as(int64_t, moray_call(f3, 1, 2, 3)) == 123);
    EXPECT(moray_take_as(int64_t, moray_call(f4, 1, 2, 3, 4)) == 1234);
    EXPECT(moray_take_as(int64_t, moray_call(f5, 1, 2, 3, 4, 5)) == 12345);
    EXPECT(moray_take_as(int64_t, moray_call(f6, 1, 2, 3, 4, 5, 6)) == 123456);
    EXPECT(moray_take_as(int64_t, moray_call(f7, 1, 2, 3, 4, 5, 6, 7)) == 1234567);
    EXPECT(moray_take_as(int64_t, moray_call(f8, 1, 2, 3, 4, 5, 6, 7, 8)) == 12345678);
    EXPECT(moray_take_as(int64_t, moray_call(f9, 1, 2, 3, 4, 5, 6, 7, 8, 9)) == 123456789);
    EXPECT(moray_take_as(int64_t, moray_call(f10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0)) == 1234567890);
    EXPECT(fake_last.count == 0 || fake_last.function == &f10_function);
    /* references in any place */
    EXPECT(moray_take_as(int64_t, moray_call(f10, one, 2, three, 4, 5, 6, 7, 8, 9, three)) ==
           1234567893);
    EXPECT(fake_last.arguments[0].kind == MORAY_ARGUMENT_REF);
    EXPECT(fake_last.arguments[1].kind == MORAY_ARGUMENT_VALUE);
    EXPECT(fake_last.arguments[9].ref.index == three.index);
    EXPECT(moray_take_as(int64_t, moray_call(f10, one, three, three, three, three, three, three,
                                             three, three, three)) == 1333333333);
}

/* ---- Kinds of values ---- */

MORAY_TASK(double, mixed, (bool, a), (unsigned char, b), (float, c), (enum colour, d), (point, e),
           (unsigned long, f))
{
    return a + b + (double)c + d + e.x + e.y + e.z + e.n + (double)f;
}
MORAY_TASK(large, fill, (uint8_t, with))
{
    large out;
    memset(&out, with, sizeof(out));
    return out;
}
MORAY_TASK(uint8_t, at, (large, from), (size_t, place))
{
    return from.bytes[place];
}
MORAY_TASK(bool, negate, (bool, value))
{
    return !value;
}

static void values(void)
{
    point p = {1, 2, 3, 4};
    const point q = p;
    short small = 3;
    float real = 0.5f;
    int count = 0;
    large l;

    EXPECT(moray_take_as(double, moray_call(mixed, true, 'a', 0.5, GREEN, p, 1000)) ==
           1 + 97 + 0.5 + 7 + 10 + 1000);
    EXPECT(moray_take_as(double, moray_call(mixed, false, small, 2, RED, q, small)) ==
           3 + 2 + 10 + 3);
    EXPECT(moray_take_as(double, moray_call(mixed, 5, 1u, real, GREEN, moray_put_value(point, p),
                                            0)) == 1 + 1 + 0.5 + 7 + 10);
    EXPECT(moray_take_as(double, moray_call(away, p, 2)) == 20);
    EXPECT(moray_take_as(double, moray_call(away, p, real)) == 5);
    l = moray_take_as(large, moray_call(fill, 9));
    EXPECT(l.bytes[0] == 9 && l.bytes[199] == 9);
    EXPECT(moray_take_as(uint8_t, moray_call(at, moray_call(fill, 8), 100)) == 8);
    EXPECT(moray_take_as(uint8_t, moray_call(at, l, 0)) == 9);
    EXPECT(moray_take_as(bool, moray_call(negate, moray_call(negate, true))));
    /* an argument is evaluated once */
    EXPECT(moray_take_as(int64_t, moray_call(f2, count++, 4)) == 4 && count == 1);
    /* and nested calls go as deep as one likes */
    EXPECT(moray_take_as(
               int64_t,
               moray_call(
                   f2, moray_call(f2, moray_call(f2, moray_call(f2, moray_call(f1, 1), 2), 3), 4),
                   5)) == 12345);
    /* an untyped object stands for any type of its size */
    EXPECT(moray_take_as(double, moray_call(away, moray_put(&p, sizeof(p)), 1)) == 10);
}

/* ---- Views, futures, buffers, several results, none ---- */

MORAY_TASK(int64_t, bytes_of, (moray_view, v), (int, scale))
{
    int64_t sum = 0;
    for (size_t i = 0; i < v.size; i++)
        sum += ((const uint8_t *)v.data)[i];
    return sum * scale;
}
MORAY_TASK(moray_future, forward, (moray_future, f))
{
    return f;
}
MORAY_TASK(moray_buffer, blur, (moray_view, in))
{
    moray_buffer out = moray_result(in.size);
    memcpy(out.data, in.data, in.size);
    ((uint8_t *)out.data)[0]++;
    return out;
}
MORAY_TASK_RESULTS(divide, ((int64_t, quot), (int32_t, rem)), (int64_t, a), (int64_t, b))
{
    divide_results out = {a / b, (int32_t)(a % b)};
    return out;
}
MORAY_TASK_RESULTS(single, ((int64_t, only)))
{
    single_results out = {77};
    return out;
}
static int ran;
MORAY_TASK(void, touch, (int, by))
{
    ran += by;
}

static void forms(void)
{
    uint8_t bytes[3] = {1, 2, 3};
    moray_ref put = moray_put(bytes, sizeof(bytes)), blurred;
    moray_view view = {bytes, sizeof(bytes), put};
    moray_future future;
    divide_refs d;
    parts_refs p;
    point rest;

    EXPECT(moray_take_as(int64_t, moray_call(bytes_of, put, 2)) == 12);
    EXPECT(moray_take_as(int64_t, moray_call(bytes_of, view, 2)) == 12);
    EXPECT(fake_last.arguments[0].kind == MORAY_ARGUMENT_REF);
    EXPECT(fake_last.arguments[0].ref.index == put.index);
    blurred = moray_call(blur, put);
    EXPECT(fake_last.function->results[0].kind == MORAY_KIND_BUFFER);
    EXPECT(moray_take_as(int64_t, moray_call(bytes_of, blurred, 1)) == 7);
    future = moray_take_as(moray_future, moray_call(forward, moray_pass(put)));
    EXPECT(future.ref.index == put.index);
    EXPECT(fake_last.function->parameters[0].kind == MORAY_KIND_FUTURE);

    d = moray_call(divide, 17, 5);
    EXPECT(moray_get_as(int64_t, d.quot) == 3);
    EXPECT(moray_take_as(int32_t, d.rem) == 2);
    EXPECT(moray_take_as(int64_t, moray_call(single).only) == 77);
    p = moray_call(parts, 2.5);
    rest = moray_take_as(point, p.rest);
    EXPECT(moray_take_as(double, p.whole) == 2 && rest.x == 2.5 && rest.n == 4);

    moray_take_as(void, moray_call(touch, 3));
    EXPECT(ran == 3);
    fake_forget();
    moray_call(nothing_away);
    EXPECT(!strcmp(fake_story(), "ran away"));
    fake_forget();
    (void)moray_get_as(int32_t, d.quot);
    EXPECT(!strcmp(fake_story(), "not a int32_t"));

    int64_t quot = 0;
    EXPECT(moray_get(d.quot, &quot, 0) == MORAY_OK && quot == 3);
    EXPECT(moray_get(d.quot, &bytes, MORAY_NOW) == MORAY_WRONG_TYPE);
}

/* ---- Actors ---- */

MORAY_ACTOR(counter, (int64_t, value));
MORAY_METHOD(int64_t, counter, increment, (int64_t, by))
{
    return self->value += by;
}
MORAY_METHOD(int64_t, counter, ten, (int, a), (int, b), (int, c), (int, d), (int, e), (int, f),
             (int, g), (int, h), (int, i), (int, j))
{
    return self->value + a + b + c + d + e + f + g + h + i + j;
}
MORAY_METHOD(void, counter, reset)
{
    self->value = 0;
}
static int64_t last_words;
MORAY_DESTRUCTOR(counter)
{
    last_words = self->value;
}

MORAY_ACTOR(owner, (counter_actor, held), (int, n));
MORAY_CONSTRUCTOR(owner, (counter_actor, held))
{
    self->held = held;
}
MORAY_METHOD(counter_actor, owner, give)
{
    return self->held;
}

MORAY_ACTOR(stateless);
MORAY_CONSTRUCTOR(stateless)
{
    (void)self;
}
MORAY_METHOD(int, stateless, one)
{
    return 1;
}

MORAY_TASK(int64_t, use, (counter_actor, c), (int64_t, by))
{
    return moray_take_as(int64_t, moray_call(counter_increment, c, by));
}

static void actors(void)
{
    counter_actor c = moray_new(counter), given;
    counter_actor named = moray_actor_named(counter, "counter");
    owner_actor o;
    box_actor b;

    EXPECT(c.handle.index && c.handle.type == counter_class.type_hash);
    EXPECT(named.handle.index == c.handle.index);
    EXPECT(moray_take_as(int64_t, moray_call(counter_increment, c, 2)) == 2);
    EXPECT(moray_take_as(int64_t, moray_call(counter_increment, c, moray_call(f1, 3))) == 5);
    EXPECT(fake_last.count == 1 || fake_last.function == &counter_increment_function);
    EXPECT(moray_take_as(int64_t, moray_call(counter_ten, c, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)) == 15);
    EXPECT(moray_take_as(int64_t, moray_call(use, c, 5)) == 10);
    EXPECT(use_function.parameters[0].kind == MORAY_KIND_ACTOR);
    EXPECT(use_function.parameters[0].type_hash == counter_class.type_hash);

    o = moray_new(owner, c);
    given = moray_take_as(counter_actor, moray_call(owner_give, o));
    EXPECT(given.handle.index == c.handle.index);
    moray_call(counter_reset, given);
    EXPECT(moray_take_as(int64_t, moray_call(counter_increment, c, 1)) == 1);

    b = moray_new_with((.name = "box", .restarts = MORAY_ENDLESS), box, 100, 2);
    EXPECT(!strcmp(fake_last.actor_options.name, "box") && fake_last.actor_options.restarts == -1);
    EXPECT(moray_take_as(int64_t, moray_call(box_add, b, 5)) == 110);
    b = moray_new(box, moray_put_value(int64_t, 7), 1);
    EXPECT(moray_take_as(int64_t, moray_call(box_add, b, 1)) == 8);
    EXPECT(moray_take_as(int, moray_call(stateless_one, moray_new(stateless))) == 1);
    EXPECT(moray_kill(c, 0) == MORAY_OK && last_words == 1);
}

/* ---- Options, sites, tables ---- */

typedef struct {
    int64_t n;
    moray_ref first, second;
    counter_actor who;
} job;
MORAY_REFS(job, first, second, who);

static void tables(void)
{
    moray_call(f1, 1);
    EXPECT(!fake_last.has_options);
    EXPECT(strstr(fake_last.site->file, "calls.c") && fake_last.site->line == __LINE__ - 2);
    EXPECT(!strcmp(fake_last.site->function, "tables"));
    moray_call_with((.name = "sum", .cores = 0.5, .attempts = MORAY_ENDLESS), f2, 1, 2);
    EXPECT(fake_last.has_options && fake_last.options.cores == 0.5);
    EXPECT(!strcmp(fake_last.options.name, "sum") && fake_last.options.attempts == MORAY_ENDLESS);
    EXPECT(fake_last.options.memory == 0 && fake_last.options.on_rank == 0);
    moray_call_with((.memory = 5), f0);
    EXPECT(fake_last.options.memory == 5 && !fake_last.options.name);

    EXPECT(!strcmp(mixed_function.name, "mixed") && strstr(mixed_function.file, "calls.c"));
    EXPECT(mixed_function.parameter_count == 6 && mixed_function.result_count == 1);
    EXPECT(!strcmp(mixed_function.parameters[0].type, "bool"));
    EXPECT(!strcmp(mixed_function.parameters[1].type, "unsigned char"));
    EXPECT(!strcmp(mixed_function.parameters[4].name, "e"));
    EXPECT(mixed_function.parameters[4].size == sizeof(point));
    EXPECT(f0_function.parameter_count == 0 && touch_function.result_count == 0);
    EXPECT(divide_function.result_count == 2);
    EXPECT(!strcmp(divide_function.results[1].name, "rem") && divide_function.results[1].size == 4);
    EXPECT(f1_function.results[0].type_hash == f1_function.parameters[0].type_hash);
    EXPECT(f1_function.results[0].type_hash != f5_function.parameters[0].type_hash);
    EXPECT(counter_increment_function.of == &counter_class && !counter_class.constructor);
    EXPECT(!strcmp(counter_increment_function.name, "counter_increment"));
    EXPECT(counter_class.destructor == &counter_destructor_function);
    EXPECT(box_class.constructor == &box_constructor_function);
    EXPECT(box_constructor_function.kind == MORAY_IS_CONSTRUCTOR);
    EXPECT(fake_functions > 30 && fake_classes == 4 && fake_insides == 1);
    EXPECT(fake_last_insides->count == 3 && fake_last_insides->size == sizeof(job));
    EXPECT(fake_last_insides->members[1].offset == offsetof(job, second));
    EXPECT(fake_last_insides->members[1].kind == MORAY_KIND_FUTURE);
    EXPECT(fake_last_insides->members[2].kind == MORAY_KIND_ACTOR);
}

#ifdef __cplusplus
namespace inside
{
MORAY_TASK(int64_t, throws, (int, what))
{
    if (what == 1)
        throw std::runtime_error("too bad");
    if (what == 2)
        throw 5;
    return what;
}
} // namespace inside

template <class T> static moray_ref in_template(T value)
{
    return moray_call(f1, value);
}

static void exceptions(void)
{
    fake_forget();
    moray_call(inside::throws, 0);
    EXPECT(!strcmp(fake_story(), ""));
    moray_call(inside::throws, 1);
    EXPECT(!strcmp(fake_story(), "throws: exception: too bad"));
    moray_call(inside::throws, 2);
    EXPECT(!strcmp(fake_story(), "throws: an exception of unknown type"));
    EXPECT(moray_take_as(int64_t, in_template(int64_t(5))) == 5);
}
#endif

int main(void)
{
    arities();
    values();
    forms();
    actors();
    tables();
#ifdef __cplusplus
    exceptions();
#endif
    return fake_failures() != 0;
}
