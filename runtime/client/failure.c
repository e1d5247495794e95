#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/process.h"
#include "client/requests.h"
#include "node/guard.h"

/* Failed records: a code and a story, written once where the failure is seen first. */

enum { STORY_BYTES = 4096, WRONG_TYPE_MS = 1000 };

void record_set_maker(struct record *record, uint32_t maker, uint32_t site)
{
    record->site = site;
    record->argument_bytes = maker ? sizeof(maker) : 0;
    memcpy(record->arguments, &maker, sizeof(maker));
}

uint32_t record_maker(const struct record *record)
{
    uint32_t maker = 0;

    if (record->kind == RECORD_TASK || record->kind == RECORD_METHOD)
        maker = record->function + 1;
    else if (record->kind == RECORD_OBJECT && record->argument_bytes == sizeof(maker))
        memcpy(&maker, record->arguments, sizeof(maker));
    return maker <= function_count ? maker : 0;
}

static const char *text_among(const struct moray_parameter *list, unsigned count, uint32_t hash)
{
    for (unsigned i = 0; i < count; i++)
        if (list[i].type_hash == hash)
            return list[i].type;
    return NULL;
}

const char *type_text(uint32_t hash)
{
    const char *text = NULL;

    for (uint32_t i = 0; hash && i < function_count && !text; i++) {
        const struct moray_function *function = functions[i];
        text = text_among(function->results, function->result_count, hash);
        if (!text)
            text = text_among(function->parameters, function->parameter_count, hash);
    }
    return text;
}

void record_describe(const struct lane *lane, const struct record *record, char *text, size_t bytes)
{
    const struct moray_site *site = site_unpack(record->site);
    const struct record_long *details = record->kind == RECORD_TASK || record->kind == RECORD_METHOD
                                            ? lane_long(lane, record)
                                            : NULL;
    char call[200] = "";

    if (site)
        snprintf(call, sizeof(call), ", called in %.60s (%.100s:%d)", site->function, site->file,
                 site->line);
    uint32_t maker = record_maker(record);
    if (maker) {
        const struct moray_function *function = functions[maker - 1];
        snprintf(text, bytes, "%s%s %s%s%s%s (%s:%d)%s",
                 record->kind == RECORD_OBJECT ? "a result of " : "",
                 function->kind == MORAY_IS_TASK ? "task" : "method", function->name,
                 details && details->name[0] ? " \"" : "",
                 details && details->name[0] ? details->name : "",
                 details && details->name[0] ? "\"" : "", function->file, function->line, call);
    } else
        snprintf(text, bytes, "%s",
                 record->kind == RECORD_OBJECT ? "a put" : "a request to the agent");
}

void story_fill(struct lane *lane, uint32_t window, uint32_t index, enum moray_code code,
                const char *text)
{
    struct record *record = lane_record(lane, index);
    size_t length = strlen(text);
    struct record_story *story;
    uint32_t place;

    if (length > STORY_BYTES)
        length = STORY_BYTES;
    place = arena_alloc(&lane->arena, sizeof(*story) + length + 1, index);
    if (!place) {
        uint32_t number = (uint32_t)code;
        atomic_fetch_and(&record->flags, (uint16_t)~RECORD_RESULT_BLOCK);
        memcpy(record->result.value, &number, sizeof(number));
        record_set_result_bytes(record, 0);
        return;
    }
    story = arena_at(&lane->arena, place);
    story->code = (uint32_t)code;
    story->bytes = (uint32_t)length;
    memcpy(story->text, text, length);
    story->text[length] = '\0';
    record->result.block.place = place;
    record->result.block.window = window;
    record_set_result_bytes(record, sizeof(*story) + length + 1);
    atomic_fetch_or(&record->flags, RECORD_RESULT_BLOCK);
}

/* The further results of a task fail with it. */
static void fail_extras(struct lane *lane, uint32_t window, uint32_t index, enum moray_code code,
                        const char *text)
{
    struct record_long *details = lane_long(lane, lane_record(lane, index));

    for (unsigned i = 0; details && i < details->extra_count; i++) {
        uint32_t extra = details->extra[i];
        uint64_t life = record_life(lane_record(lane, extra));
        if (!lane_claim(lane, extra, life_generation(life)))
            continue;
        story_fill(lane, window, extra, code, text);
        lane_finish(lane, extra, RECORD_FAILED);
    }
}

void story_end(struct lane *lane, uint32_t window, uint32_t index, enum moray_code code,
               const char *text)
{
    fail_extras(lane, window, index, code, text);
    story_fill(lane, window, index, code, text);
    lane_finish(lane, index, RECORD_FAILED);
}

void fail_fill(uint32_t index, enum moray_code code, const char *text)
{
    story_fill(&me.lane, me.window, index, code, text);
}

void fail_end(uint32_t index, enum moray_code code, const char *text)
{
    story_end(&me.lane, me.window, index, code, text);
}

void fail_record(uint32_t index, enum moray_code code, const char *format, ...)
{
    struct record *record = lane_record(&me.lane, index);
    char *text = malloc(STORY_BYTES + 1), what[512];
    va_list arguments;

    if (!text) {
        fail_end(index, code, "no memory to tell the story");
        return;
    }
    record_describe(&me.lane, record, what, sizeof(what));
    int used = snprintf(text, STORY_BYTES, "%s, attempt %u on rank %u (%s): ", what,
                        life_attempt(record_life(record)) + 1, me.node->rank, me.node->host);
    va_start(arguments, format);
    vsnprintf(text + used, (size_t)(STORY_BYTES - used), format, arguments);
    va_end(arguments);
    fail_end(index, code, text);
    free(text);
}

enum moray_code failure_of(const struct record *record, const char **text)
{
    uint32_t code;

    if (record_flags(record) & RECORD_RESULT_BLOCK) {
        const struct record_story *story = arena_at(&me.lane.arena, record->result.block.place);
        if (text)
            *text = story->text;
        return (enum moray_code)story->code;
    }
    memcpy(&code, record->result.value, sizeof(code));
    if (text)
        *text = "the store had no room for the story of this failure";
    return code ? (enum moray_code)code : MORAY_FAILED;
}

const char *moray_error(moray_ref ref)
{
    static _Thread_local char text[STORY_BYTES + 1];
    uint32_t index;

    text[0] = '\0';
    if (ref.owner == 0) {
        snprintf(text, sizeof(text), "%s", null_story());
        return text;
    }
    if (enter() != MORAY_OK)
        return text;
    if (ref_find(ref, &index) == MORAY_OK) {
        struct record *record = lane_record(&me.lane, index);
        if (life_state(record_life(record)) == RECORD_FAILED) {
            const char *story;
            failure_of(record, &story);
            snprintf(text, sizeof(text), "%s", story);
        }
        ref_done(ref, index, false);
    } else {
        const char *story;
        moray_last(&story);
        snprintf(text, sizeof(text), "%s", story);
    }
    leave();
    return text;
}

void moray_fail(enum moray_code code, const char *format, ...)
{
    char text[STORY_BYTES];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    struct frame *frame = frame_top;
    while (frame && frame->record == RECORD_NONE && frame->outer)
        frame = frame->outer;
    if (!frame || (frame->record == RECORD_NONE && !frame->actor)) {
        fprintf(stderr, "moray: moray_fail outside of a task is ignored: %s\n", text);
        return;
    }
    if (frame->failed != MORAY_OK)
        return; /* the first cause is the one to tell */
    frame->failed = code == MORAY_OK ? MORAY_INVALID : code;
    frame->story = strdup(text);
    frame->has_more = true;
}

/* The caller cannot go on: a task fails with this story (its process goes on), the driver ends. */
static _Noreturn void end_caller(const struct moray_site *site)
{
    const char *story;
    enum moray_code code = moray_last(&story);

    if (me.role == ROLE_DRIVER || !frame_top) {
        fprintf(stderr, "moray: uncaught error in %s (%s:%d): %s: %s\n", site->function, site->file,
                site->line, error_name(code), story);
        fflush(stderr);
        exit(1);
    }
    caller_fail(code, site, story);
}

/* "the reference holds int64_t, not double; it was made by task add (…)": what made an object of another
 * rank is known once that rank has told what it is. */
static enum moray_code wrong_type(moray_ref ref, const char *wanted)
{
    const char *holds = type_text(ref.type);
    char what[300] = "";
    uint32_t index;

    if (enter() == MORAY_OK) {
        if (ref_find(ref, &index) == MORAY_OK) {
            if (ref.owner != me.owner)
                record_wait(index, WRONG_TYPE_MS);
            record_describe(&me.lane, lane_record(&me.lane, index), what, sizeof(what));
            ref_done(ref, index, false);
        }
        leave();
    }
    return last_set(MORAY_WRONG_TYPE, "the reference holds %s, not %s%s%s",
                    holds ? holds : "another type", wanted, *what ? "; it was made by " : "", what);
}

/* The object kept the reference or the handle that it is: the caller has a hold of its own before it goes. */
OFF_TRIP static void take_over(moray_ref ref, const void *value, int kind)
{
    moray_actor actor;
    moray_ref inside;

    if (kind == MORAY_KIND_ACTOR) {
        memcpy(&actor, value, sizeof(actor));
        if (actor.node)
            (void)!moray_actor_add(actor);
    } else {
        memcpy(&inside, value, sizeof(inside));
        if (inside.owner)
            (void)!moray_hold(inside);
    }
    (void)!moray_release(ref);
}

ON_TRIP void moray_get_or_end(moray_ref ref, void *value, size_t size, uint32_t type_hash,
                              const char *type, const struct moray_site *site, int release)
{
    enum moray_code code = MORAY_OK;

    if (RARELY(ref.type && type_hash && ref.type != type_hash))
        code = wrong_type(ref, type);
    if (code == MORAY_OK)
        code = moray_get_bytes(ref, value, size, 0);
    if (RARELY(code != MORAY_OK))
        end_caller(site);
    if (__builtin_expect(release == 1, 1))
        moray_release(ref);
    else if (RARELY(release))
        take_over(ref, value, release);
}

struct cancelled {
    struct lane *lane;
    uint32_t window;
    char text[512];
};

static void fill_cancelled(void *context, uint32_t index)
{
    const struct cancelled *story = context;
    fail_extras(story->lane, story->window, index, MORAY_CANCELLED, story->text);
    story_fill(story->lane, story->window, index, MORAY_CANCELLED, story->text);
}

void record_cancel(struct lane *lane, uint32_t window, uint32_t index, uint32_t generation)
{
    struct cancelled story = {.lane = lane, .window = window};
    char what[400];

    record_describe(lane, lane_record(lane, index), what, sizeof(what));
    snprintf(story.text, sizeof(story.text), "%s: it was cancelled before it began", what);
    lane_cancel(lane, index, generation, fill_cancelled, &story);
}
