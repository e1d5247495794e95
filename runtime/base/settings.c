#include "base/settings.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/chaos.h"

enum kind { COUNT, TRIES, BYTES, SIZE, BOOL, CHOICE, CORES, TEXT, CHAOS };
enum scope { JOB, RANK };

static const struct row {
    const char *name, *field;
    size_t offset; /* of the field in struct settings */
    enum kind kind;
    enum scope scope;
    const char *initial;
    uint64_t lowest, highest;
    const char *words, *unit, *text;
} rows[] = {
#define X(name, field, kind, scope, initial, lowest, highest, words, unit, text) \
    {                                                                            \
        #name,  #field,  offsetof(struct settings, field),                       \
        kind,   scope,   initial,                                                \
        lowest, highest, words,                                                  \
        unit,   text},
    SETTINGS(X)
#undef X
};

static const struct unit {
    const char *name;
    unsigned shift;
} units[] = {{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"T", 40},
             {"G", 30},   {"M", 20},   {"K", 10},   {"B", 0},    {"", 0}};

#define SOURCE_NAMES                                  \
    {                                                 \
        "default", "options", "environment", "rank 0" \
    }
static const char *const source_names[] = SOURCE_NAMES;

/* ---- Numbers and words ---- */

enum number { NUMBER_GOOD, NUMBER_SMALL, NUMBER_BAD, NUMBER_NEGATIVE, NUMBER_LARGE };

/* Reads decimal digits; `*end` is what follows. */
static enum number read_number(const char *text, uint64_t *number, const char **end)
{
    char *after;

    if (text[0] == '-' && isdigit((unsigned char)text[1]))
        return NUMBER_NEGATIVE;
    if (!isdigit((unsigned char)text[0]))
        return NUMBER_BAD;
    errno = 0;
    *number = strtoull(text, &after, 10);
    *end = after;
    return errno ? NUMBER_LARGE : NUMBER_GOOD;
}

static enum number read_bytes(const char *text, uint64_t *bytes)
{
    const char *end;
    enum number is = read_number(text, bytes, &end);

    if (is != NUMBER_GOOD)
        return is;
    end += *end == ' ';
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
        if (strcasecmp(end, units[i].name) == 0) {
            if (*bytes > UINT64_MAX >> units[i].shift)
                return NUMBER_LARGE;
            *bytes <<= units[i].shift;
            return NUMBER_GOOD;
        }
    return NUMBER_BAD;
}

static void write_bytes(uint64_t bytes, char *out, size_t room)
{
    for (size_t i = 0; i < 4; i++)
        if (bytes && bytes % (UINT64_C(1) << units[i].shift) == 0) {
            snprintf(out, room, "%" PRIu64 "%s", bytes >> units[i].shift, units[i].name);
            return;
        }
    snprintf(out, room, "%" PRIu64, bytes);
}

/* The place of `word` in `words`, which are separated by blanks; -1 if it is not among them. */
static int find_word(const char *words, const char *word)
{
    size_t length = strlen(word);

    for (int place = 0; length && *words; place++) {
        size_t here = strcspn(words, " ");
        if (here == length && strncmp(words, word, length) == 0)
            return place;
        words += here + (words[here] == ' ');
    }
    return -1;
}

static void word_at(const char *words, int place, char *out, size_t room)
{
    for (; place > 0; place--)
        words += strcspn(words, " ") + 1;
    snprintf(out, room, "%.*s", (int)strcspn(words, " "), words);
}

static enum number in_range(const struct row *row, uint64_t number)
{
    return number < row->lowest ? NUMBER_SMALL : number > row->highest ? NUMBER_LARGE : NUMBER_GOOD;
}

/* "4", or "0-3,8" with ascending ranges. */
static enum number check_cores(const struct row *row, const char *text)
{
    uint64_t first, last;
    const char *end;
    enum number is = read_number(text, &first, &end);

    if (is == NUMBER_GOOD && *end == '\0')
        return in_range(row, first);
    for (;;) {
        if ((is = read_number(text, &first, &end)) != NUMBER_GOOD)
            return is;
        last = first;
        if (*end == '-' && (is = read_number(end + 1, &last, &end)) != NUMBER_GOOD)
            return is;
        if (first > row->highest || last > row->highest)
            return NUMBER_LARGE;
        if (last < first)
            return NUMBER_BAD;
        if (*end == '\0')
            return NUMBER_GOOD;
        if (*end != ',')
            return NUMBER_BAD;
        text = end + 1;
    }
}

/* ---- One setting ---- */

static bool is_auto(const struct row *row, const char *value)
{
    return strcmp(row->initial, "auto") == 0 && strcmp(value, "auto") == 0;
}

/* What a setting takes, for the error's last words. */
static void describe(const struct row *row, char *out, size_t room)
{
    char low[32], high[32];

    write_bytes(row->lowest, low, sizeof(low));
    write_bytes(row->highest, high, sizeof(high));
    switch (row->kind) {
    case COUNT:
        snprintf(out, room, "a number from %" PRIu64 " to %" PRIu64 "%s", row->lowest, row->highest,
                 is_auto(row, "auto") ? ", or auto" : "");
        break;
    case TRIES:
        snprintf(out, room, "a number from %" PRIu64 " to %" PRIu64 ", or endless", row->lowest,
                 row->highest);
        break;
    case BYTES:
        snprintf(out, room, "bytes from %s to %s, such as 512KiB, 64MiB or 2GiB", low, high);
        break;
    case SIZE:
        snprintf(out, room, "1%% to 85%%, or bytes from %s to %s, such as 512MiB or 2GiB", low,
                 high);
        break;
    case BOOL:
        snprintf(out, room, "on or off (also 1, 0, yes, no, true, false)");
        break;
    case CHOICE:
        snprintf(out, room, "one of: %s", row->words);
        break;
    case CORES:
        snprintf(out, room, "a number of cores (4), a list of cores (0-3,8), or auto");
        break;
    case TEXT:
        snprintf(out, room, "printable text of at most %d bytes", SETTING_TEXT_MAX - 1);
        break;
    case CHAOS:
        snprintf(out, room, "empty, or %s", CHAOS_TAKES);
        break;
    }
}

static enum moray_code refuse(const struct row *row, const char *value, enum setting_source source,
                              enum number why, struct moray_error *error)
{
    static const char *const reasons[] = {[NUMBER_SMALL] = "too small",
                                          [NUMBER_BAD] = "not understood",
                                          [NUMBER_NEGATIVE] = "negative",
                                          [NUMBER_LARGE] = "too large"};
    char allowed[192];

    assert(why != NUMBER_GOOD);
    describe(row, allowed, sizeof(allowed));
    return error_set(error, MORAY_INVALID, "%s=%.64s (%s): %s; allowed: %s", row->name, value,
                     source_names[source], reasons[why], allowed);
}

/* Reads `value` into the field at `to`. Returns false, and why, if it is not allowed. */
static bool read_value(const struct row *row, const char *value, void *to, enum number *why)
{
    uint64_t number = 0;
    const char *end = "";

    switch (row->kind) {
    case COUNT:
    case TRIES:
        if (row->kind == COUNT && is_auto(row, value)) {
            *(uint64_t *)to = 0;
            return true;
        }
        if (row->kind == TRIES && strcmp(value, "endless") == 0) {
            *(int64_t *)to = MORAY_ENDLESS;
            return true;
        }
        *why = read_number(value, &number, &end);
        if (*why == NUMBER_GOOD)
            *why = *end ? NUMBER_BAD : in_range(row, number);
        *(uint64_t *)to = number;
        return *why == NUMBER_GOOD;
    case SIZE:
        if (read_number(value, &number, &end) == NUMBER_GOOD && strcmp(end, "%") == 0) {
            *why = number > 85 ? NUMBER_LARGE : number < 1 ? NUMBER_SMALL : NUMBER_GOOD;
            *(struct setting_size *)to = (struct setting_size){.percent = (uint32_t)number};
            return *why == NUMBER_GOOD;
        }
        *why = read_bytes(value, &number);
        if (*why == NUMBER_GOOD)
            *why = in_range(row, number);
        *(struct setting_size *)to = (struct setting_size){.bytes = number};
        return *why == NUMBER_GOOD;
    case BYTES:
        *why = read_bytes(value, &number);
        if (*why == NUMBER_GOOD)
            *why = in_range(row, number);
        *(uint64_t *)to = number;
        return *why == NUMBER_GOOD;
    case BOOL:
        *why = NUMBER_BAD;
        number = (uint64_t)find_word("0 off no false 1 on yes true", value);
        *(bool *)to = number >= 4;
        return number < 8;
    case CHOICE:
        *why = NUMBER_BAD;
        *(int *)to = find_word(row->words, value);
        return *(int *)to >= 0;
    case CORES:
        *why = is_auto(row, value) ? NUMBER_GOOD : check_cores(row, value);
        if (*why != NUMBER_GOOD || strlen(value) >= SETTING_TEXT_MAX)
            return false;
        strcpy(to, value);
        return true;
    case TEXT:
        *why = strlen(value) >= SETTING_TEXT_MAX ? NUMBER_LARGE : NUMBER_BAD;
        if (*why == NUMBER_LARGE)
            return false;
        for (const char *at = value; *at; at++)
            if (!isprint((unsigned char)*at))
                return false;
        strcpy(to, value);
        return true;
    case CHAOS:
        *why = NUMBER_BAD;
        if (strlen(value) >= SETTING_TEXT_MAX || !chaos_read(value, &(struct chaos){0}))
            return false;
        strcpy(to, value);
        return true;
    }
    abort(); /* no such kind: memory is corrupt */
}

static enum moray_code set(struct settings *settings, const struct row *row, const char *value,
                           enum setting_source source, struct moray_error *error)
{
    union {
        uint64_t number;
        struct setting_size size;
        char text[SETTING_TEXT_MAX];
    } room = {0};
    static const size_t sizes[] = {
        [COUNT] = sizeof(uint64_t),           [TRIES] = sizeof(int64_t), [BYTES] = sizeof(uint64_t),
        [SIZE] = sizeof(struct setting_size), [BOOL] = sizeof(bool),     [CHOICE] = sizeof(int),
        [CORES] = SETTING_TEXT_MAX,           [TEXT] = SETTING_TEXT_MAX, [CHAOS] = SETTING_TEXT_MAX,
    };
    enum number why = NUMBER_BAD;

    if (!read_value(row, value, &room, &why))
        return refuse(row, value, source, why, error);
    memcpy((char *)settings + row->offset, &room, sizes[row->kind]);
    settings->source[row - rows] = (uint8_t)source;
    return MORAY_OK;
}

/* ---- Names ---- */

static const struct row *find_row(const char *name, size_t length)
{
    for (size_t i = 0; i < SETTING_COUNT; i++)
        if (strlen(rows[i].name) == length && strncmp(rows[i].name, name, length) == 0)
            return &rows[i];
    return NULL;
}

/* Changes of one letter that lead from a to b, at most 255. */
static unsigned distance(const char *a, size_t a_length, const char *b)
{
    unsigned char line[64];
    size_t b_length = strlen(b);

    assert(b_length < sizeof(line));
    for (size_t j = 0; j <= b_length; j++)
        line[j] = (unsigned char)j;
    for (size_t i = 1; i <= a_length && i < 255; i++) {
        unsigned diagonal = line[0];
        line[0] = (unsigned char)i;
        for (size_t j = 1; j <= b_length; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = line[j];
            if (line[j] + 1u < best)
                best = line[j] + 1u;
            if (line[j - 1] + 1u < best)
                best = line[j - 1] + 1u;
            line[j] = (unsigned char)(best < 255 ? best : 255);
        }
    }
    return line[b_length];
}

static enum moray_code unknown(const char *name, size_t length, enum moray_code code,
                               struct moray_error *error)
{
    const struct row *nearest = &rows[0];

    for (size_t i = 1; i < SETTING_COUNT; i++)
        if (distance(name, length, rows[i].name) < distance(name, length, nearest->name))
            nearest = &rows[i];
    if (distance(name, length, nearest->name) <= 3)
        return error_set(error, code, "%.*s: there is no such setting; did you mean %s?",
                         (int)(length < 64 ? length : 64), name, nearest->name);
    return error_set(error, code,
                     "%.*s: there is no such setting; `moray settings` and docs/settings.md list "
                     "them all",
                     (int)(length < 64 ? length : 64), name);
}

/* ---- Sources ---- */

void settings_default(struct settings *settings)
{
    memset(settings, 0, sizeof(*settings));
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        struct moray_error error;
        enum moray_code code = set(settings, &rows[i], rows[i].initial, SETTING_DEFAULT, &error);
        assert(code == MORAY_OK); /* a default that its own row refuses is a defect of the table */
        (void)code;
    }
}

/* The text of an option, or NULL if it is not set. A number goes through the same parser as text. */
static const char *option_number(int64_t option, bool tries, char *room, size_t bytes)
{
    if (option == 0)
        return NULL;
    if (option == -1)
        return tries ? "endless" : "0";
    snprintf(room, bytes, "%" PRId64, option);
    return room;
}

#define OPTION_COUNT(option) option_number(option, false, room, sizeof(room))
#define OPTION_TRIES(option) option_number(option, true, room, sizeof(room))
#define OPTION_BYTES(option) (option)
#define OPTION_SIZE(option) (option)
#define OPTION_BOOL(option)            \
    ((option) == MORAY_DEFAULT ? NULL  \
     : (option) == MORAY_ON    ? "on"  \
     : (option) == MORAY_OFF   ? "off" \
                               : "neither MORAY_ON nor MORAY_OFF")
#define OPTION_CHOICE(option) (option)
#define OPTION_CORES(option) (option)
#define OPTION_TEXT(option) (option)
#define OPTION_CHAOS(option) (option)

static enum moray_code load_options(struct settings *settings, const struct moray_options *options,
                                    struct moray_error *error)
{
    char room[32];
    const char *value;
    enum moray_code code;

    (void)room;
#define X(name, field, kind, scope, initial, lowest, highest, words, unit, text)               \
    value = OPTION_##kind(options->field);                                                     \
    if (value && (code = set(settings, &rows[SETTING_##name], value, SETTING_OPTIONS, error))) \
        return code;
    SETTINGS(X)
#undef X
    return MORAY_OK;
}

static enum moray_code load_environment(struct settings *settings, char *const *environment,
                                        struct moray_error *error)
{
    for (; *environment; environment++) {
        const char *equals = strchr(*environment, '=');
        size_t length = equals ? (size_t)(equals - *environment) : 0;
        enum moray_code code;
        if (length < 6 || strncmp(*environment, "MORAY_", 6) != 0 ||
            strncmp(*environment, "MORAY_JOB_", 10) == 0)
            continue;
        const struct row *row = find_row(*environment, length);
        if (!row)
            return unknown(*environment, length, MORAY_INVALID, error);
        if ((code = set(settings, row, equals + 1, SETTING_ENVIRONMENT, error)))
            return code;
    }
    return MORAY_OK;
}

enum moray_code settings_load(const struct moray_options *options, char *const *environment,
                              struct settings *out, struct moray_error *error)
{
    enum moray_code code = MORAY_OK;

    settings_default(out);
    if (options)
        code = load_options(out, options, error);
    if (!code)
        code = load_environment(out, environment, error);
    if (code)
        settings_default(out);
    return code;
}

enum moray_code settings_set(struct settings *settings, const char *name, const char *value,
                             enum setting_source source, struct moray_error *error)
{
    const struct row *row = find_row(name, strlen(name));

    return row ? set(settings, row, value, source, error)
               : unknown(name, strlen(name), MORAY_NOT_FOUND, error);
}

/* ---- Texts ---- */

const char *settings_name(enum setting_id id)
{
    return rows[id].name;
}

const char *settings_text(const struct settings *settings, enum setting_id id, char *out,
                          size_t room)
{
    const struct row *row = &rows[id];
    const void *field = (const char *)settings + row->offset;

    switch (row->kind) {
    case COUNT:
        if (*(const uint64_t *)field == 0 && is_auto(row, "auto"))
            snprintf(out, room, "auto");
        else
            snprintf(out, room, "%" PRIu64, *(const uint64_t *)field);
        break;
    case TRIES:
        if (*(const int64_t *)field == MORAY_ENDLESS)
            snprintf(out, room, "endless");
        else
            snprintf(out, room, "%" PRId64, *(const int64_t *)field);
        break;
    case BYTES:
        write_bytes(*(const uint64_t *)field, out, room);
        break;
    case SIZE:
        if (((const struct setting_size *)field)->percent)
            snprintf(out, room, "%u%%", ((const struct setting_size *)field)->percent);
        else
            write_bytes(((const struct setting_size *)field)->bytes, out, room);
        break;
    case BOOL:
        snprintf(out, room, "%s", *(const bool *)field ? "on" : "off");
        break;
    case CHOICE:
        word_at(row->words, *(const int *)field, out, room);
        break;
    case CORES:
    case TEXT:
    case CHAOS:
        snprintf(out, room, "%s", (const char *)field);
        break;
    }
    return out;
}

size_t settings_pack(const struct settings *settings, void *out, size_t room)
{
    char value[SETTING_TEXT_MAX];
    size_t bytes = 0;

    for (int id = 0; id < SETTING_COUNT; id++) {
        if (rows[id].scope == RANK && settings->source[id] == SETTING_DEFAULT)
            continue;
        settings_text(settings, (enum setting_id)id, value, sizeof(value));
        const char *parts[] = {rows[id].name, value};
        for (size_t part = 0; part < 2; part++) {
            size_t length = strlen(parts[part]) + 1;
            if (bytes + length <= room)
                memcpy((char *)out + bytes, parts[part], length);
            bytes += length;
        }
    }
    return bytes;
}

enum moray_code settings_apply(struct settings *settings, const void *data, size_t bytes,
                               struct moray_error *error)
{
    const char *at = data, *end = at + bytes;
    struct settings next = *settings;

    while (at < end) {
        const char *name = at, *name_end = memchr(name, '\0', (size_t)(end - name));
        const char *value = name_end ? name_end + 1 : end;
        const char *value_end = value < end ? memchr(value, '\0', (size_t)(end - value)) : NULL;
        if (!value_end)
            return error_set(error, MORAY_PROTOCOL, "rank 0's settings: cut off after %zu bytes",
                             (size_t)(at - (const char *)data));
        const struct row *row = find_row(name, (size_t)(name_end - name));
        if (!row)
            return unknown(name, (size_t)(name_end - name), MORAY_PROTOCOL, error);
        enum moray_code code = set(&next, row, value, SETTING_RANK0, error);
        if (code)
            return code;
        at = value_end + 1;
    }
    *settings = next;
    return MORAY_OK;
}

void settings_print(const struct settings *settings, FILE *out)
{
    char value[SETTING_TEXT_MAX];

    for (int id = 0; id < SETTING_COUNT; id++) {
        settings_text(settings, (enum setting_id)id, value, sizeof(value));
        fprintf(out, "%-21s %-12s %-13s %s\n", rows[id].name, value[0] ? value : "-", rows[id].unit,
                source_names[settings->source[id]]);
    }
}

void settings_document(FILE *out)
{
    char allowed[192];

    fputs("# Settings\n\n"
          "Made from the table in `runtime/base/settings.h`; a test compares the two.\n\n"
          "A setting comes from, each beating the one before: the default; the program "
          "(`struct moray_options`); the environment; rank 0, which hands its "
          "own to all ranks. Settings marked *job* are the same on every rank, whatever its own "
          "environment says; of the others a rank keeps its own where rank 0 has none. "
          "`MORAY_CORES`, `MORAY_STORE_BYTES`, `MORAY_QUEUE_MAX`, `MORAY_PROCESSES_MAX` and "
          "`MORAY_SPARES_MAX` a rank needs before it hears of rank 0: where the launcher does not "
          "hand them to it (`mpirun -x NAME` between hosts), it keeps its own and warns. A value "
          "that "
          "is not understood, or an unknown `MORAY_` name, ends the start with an error. "
          "`moray settings` prints what holds here, and why.\n",
          out);
    for (int id = 0; id < SETTING_COUNT; id++) {
        const struct row *row = &rows[id];
        describe(row, allowed, sizeof(allowed));
        fprintf(out, "\n## %s\n\n%s\n\n", row->name, row->text);
        bool has_unit = row->unit[0] && row->initial[0] && row->kind != BYTES &&
                        row->kind != SIZE && strcmp(row->initial, "auto");
        fprintf(out, "- default: %s%s%s\n", row->initial[0] ? row->initial : "empty",
                has_unit ? " " : "", has_unit ? row->unit : "");
        fprintf(out, "- allowed: %s\n", allowed);
        fprintf(out, "- scope: %s\n- in the program: `.%s`\n", row->scope == JOB ? "job" : "rank",
                row->field);
    }
}
