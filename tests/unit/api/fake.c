#include "fake.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OBJECTS_MAX = 4096, ACTORS_MAX = 64 };

static struct {
    void *data;
    size_t size;
    uint32_t type;
    const char *story; /* not NULL: it failed */
} objects[OBJECTS_MAX];
static uint32_t object_count = 1;

static struct {
    const struct moray_class *type;
    void *state;
} actors[ACTORS_MAX];
static uint32_t actor_count = 1;

struct fake_last fake_last;
unsigned fake_functions, fake_classes, fake_insides;
const struct moray_insides *fake_last_insides;
static char story[512];
static int failures, checks;

void fake_expect(int held, const char *condition, const char *file, int line)
{
    checks++;
    if (!held) {
        failures++;
        printf("# %s:%d: %s\n", file, line, condition);
    }
}

int fake_failures(void)
{
    printf("# %d checks, %d failures\n", checks, failures);
    return failures;
}

const char *fake_story(void)
{
    return story;
}

void fake_forget(void)
{
    story[0] = '\0';
}

void moray_register(struct moray_function *function)
{
    function->id = fake_functions++;
}

void moray_register_class(struct moray_class *type)
{
    type->id = fake_classes++;
}

void moray_register_refs(const struct moray_insides *insides)
{
    fake_insides++;
    fake_last_insides = insides;
}

static moray_ref keep(void *data, size_t size, uint32_t type)
{
    moray_ref ref = {1, object_count, 1, type};

    assert(object_count < OBJECTS_MAX);
    objects[object_count].data = data;
    objects[object_count].size = size;
    objects[object_count++].type = type;
    return ref;
}

moray_ref moray_put_typed(const void *data, size_t size, uint32_t type)
{
    void *copy = malloc(size + 1);

    if (size)
        memcpy(copy, data, size);
    return keep(copy, size, type);
}

moray_ref moray_put(const void *data, size_t size)
{
    return moray_put_typed(data, size, 0);
}

moray_buffer moray_result(size_t size)
{
    moray_buffer buffer = {malloc(size + 1), size, 1};
    return buffer;
}

void moray_fail(enum moray_code code, const char *format, ...)
{
    va_list arguments;

    assert(code != MORAY_OK);
    va_start(arguments, format);
    vsnprintf(story, sizeof(story), format, arguments);
    va_end(arguments);
}

/* Runs the function: arguments are copied to odd addresses, since any alignment is allowed. */
static moray_ref run(const struct moray_function *function, void *self,
                     const struct moray_argument *arguments, unsigned count, moray_ref *out)
{
    const void *values[MORAY_PARAMETERS_MAX];
    void *results[MORAY_PARAMETERS_MAX];
    moray_view views[MORAY_PARAMETERS_MAX];
    moray_ref refs[MORAY_PARAMETERS_MAX] = {{0, 0, 0, 0}};

    fake_last.function = function;
    fake_last.count = count;
    for (unsigned i = 0; i < count; i++)
        fake_last.arguments[i] = arguments[i];
    assert(count == function->parameter_count);
    for (unsigned i = 0; i < count; i++) {
        const struct moray_parameter *parameter = &function->parameters[i];
        const void *bytes = arguments[i].data;
        assert(arguments[i].size == parameter->size);
        if (parameter->kind == MORAY_KIND_VIEW) {
            assert(arguments[i].kind == MORAY_ARGUMENT_REF);
            uint32_t index = arguments[i].ref.index;
            views[i] = (moray_view){objects[index].data, objects[index].size, arguments[i].ref};
            bytes = &views[i];
        } else if (arguments[i].kind == MORAY_ARGUMENT_REF) {
            uint32_t index = arguments[i].ref.index;
            assert(index && objects[index].size == parameter->size);
            assert(!objects[index].type || objects[index].type == parameter->type_hash);
            bytes = objects[index].data;
        }
        values[i] = memcpy((char *)malloc(parameter->size + 1) + 1, bytes, parameter->size);
    }
    for (unsigned i = 0; i < function->result_count; i++)
        results[i] = (char *)malloc(function->results[i].size + 1) + 1;
    function->run(self, values, results);
    for (unsigned i = 0; i < function->result_count; i++) {
        const struct moray_parameter *result = &function->results[i];
        moray_buffer buffer;
        if (result->kind == MORAY_KIND_BUFFER) {
            memcpy(&buffer, results[i], sizeof(buffer));
            refs[i] = keep(buffer.data, buffer.size, 0);
        } else {
            refs[i] = keep(results[i], result->size, result->type_hash);
        }
    }
    if (!function->result_count)
        refs[0] = keep(malloc(1), 0, 0);
    if (out)
        memcpy(out, refs, function->result_count * sizeof(*refs));
    return refs[0];
}

static void look_at(const struct moray_site *site, const struct moray_task_options *options)
{
    fake_last.site = site;
    fake_last.has_options = options != NULL;
    if (options)
        fake_last.options = *options;
}

moray_ref moray_submit(const struct moray_function *function, const struct moray_site *site,
                       const struct moray_task_options *options,
                       const struct moray_argument *arguments, unsigned count, moray_ref *results)
{
    assert(function->kind == MORAY_IS_TASK && !function->of);
    look_at(site, options);
    return run(function, NULL, arguments, count, results);
}

moray_ref moray_submit_method(moray_actor actor, const struct moray_function *function,
                              const struct moray_site *site,
                              const struct moray_task_options *options,
                              const struct moray_argument *arguments, unsigned count,
                              moray_ref *results)
{
    assert(function->kind == MORAY_IS_METHOD);
    assert(actor.index && actors[actor.index].type == function->of);
    look_at(site, options);
    return run(function, actors[actor.index].state, arguments, count, results);
}

moray_actor moray_new_actor(const struct moray_class *type, const struct moray_site *site,
                            const struct moray_actor_options *options,
                            const struct moray_argument *arguments, unsigned count)
{
    moray_actor actor = {1, actor_count, 1, type->type_hash};

    assert(actor_count < ACTORS_MAX);
    look_at(site, NULL);
    fake_last.has_options = options != NULL;
    if (options)
        fake_last.actor_options = *options;
    actors[actor_count].type = type;
    actors[actor_count++].state = calloc(1, type->state_size);
    if (type->constructor)
        run(type->constructor, actors[actor.index].state, arguments, count, NULL);
    else
        assert(count == 0);
    return actor;
}

moray_actor moray_find_actor(const struct moray_class *type, const struct moray_site *site,
                             const char *name)
{
    moray_actor actor = {0, 0, 0, 0};

    fake_last.site = site;
    for (uint32_t i = 1; i < actor_count; i++)
        if (actors[i].type == type && strcmp(type->name, name) == 0)
            actor = (moray_actor){1, i, 1, type->type_hash};
    return actor;
}

enum moray_code moray_actor_kill(moray_actor actor, int restart)
{
    if (actors[actor.index].type->destructor)
        actors[actor.index].type->destructor->run(actors[actor.index].state, NULL, NULL);
    return restart ? MORAY_INVALID : MORAY_OK;
}

enum moray_code moray_get_bytes(moray_ref ref, void *value, size_t size, int64_t limit_ms)
{
    assert(limit_ms == 0 || limit_ms == MORAY_NOW);
    if (objects[ref.index].size != size)
        return MORAY_WRONG_TYPE;
    memcpy(value, objects[ref.index].data, size);
    return MORAY_OK;
}

void moray_get_or_end(moray_ref ref, void *value, size_t size, uint32_t type_hash, const char *type,
                      const struct moray_site *site, int release)
{
    fake_last.site = site;
    if (type_hash && ref.type && type_hash != ref.type)
        moray_fail(MORAY_WRONG_TYPE, "not a %s", type);
    else if (value && objects[ref.index].size != size)
        moray_fail(MORAY_WRONG_TYPE, "not of %zu bytes", size);
    else if (value)
        memcpy(value, objects[ref.index].data, size);
    if (release)
        objects[ref.index].size = SIZE_MAX;
}
