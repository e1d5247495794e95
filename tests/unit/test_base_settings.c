#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/settings.h"
#include "tests/unit/law.h"

/* struct moray_options once more, from the table: the same fields, in the same order, of the types that
 * the kinds ask for. */
#define OPTION_COUNT(field) int64_t field;
#define OPTION_TRIES(field) int64_t field;
#define OPTION_BYTES(field) const char *field;
#define OPTION_SIZE(field) const char *field;
#define OPTION_BOOL(field) enum moray_switch field;
#define OPTION_CHOICE(field) const char *field;
#define OPTION_CORES(field) const char *field;
#define OPTION_TEXT(field) const char *field;
#define OPTION_CHAOS(field) const char *field;
struct from_table {
#define X(name, field, kind, scope, initial, lowest, highest, words, unit, text) \
    OPTION_##kind(field)
    SETTINGS(X)
#undef X
};
_Static_assert(sizeof(struct from_table) == sizeof(struct moray_options),
               "struct moray_options lacks a setting, or has one too many");
#define X(name, field, kind, scope, initial, lowest, highest, words, unit, text)                \
    _Static_assert(offsetof(struct from_table, field) == offsetof(struct moray_options, field), \
                   #field " stands elsewhere in struct moray_options");
SETTINGS(X)
#undef X

static struct settings settings, other;
static struct moray_error error;
static char *const nothing[] = {NULL};

static enum moray_code set(const char *name, const char *value)
{
    return settings_set(&settings, name, value, SETTING_ENVIRONMENT, &error);
}

static void setup(void)
{
    settings_default(&settings);
    memset(&error, 0, sizeof(error));
}

/* The story has the setting, the value and what is allowed. */
static void refused(const char *name, const char *value, const char *why, const char *allowed)
{
    struct settings before = settings;

    ck_assert_int_eq(set(name, value), MORAY_INVALID);
    ck_assert_msg(strstr(error.text, name) && strstr(error.text, value), "%s", error.text);
    ck_assert_msg(strstr(error.text, why) != NULL, "%s: %s", why, error.text);
    ck_assert_msg(strstr(error.text, allowed) != NULL, "%s: %s", allowed, error.text);
    ck_assert_msg(!memcmp(&before, &settings, sizeof(settings)), "%s=%s changed it", name, value);
}

START_TEST(defaults_are_what_the_page_says)
{
    ck_assert_uint_eq(settings.workers, 0);
    ck_assert_str_eq(settings.cores, "auto");
    ck_assert_uint_eq(settings.store_bytes.percent, 30);
    ck_assert_int_eq(settings.fabric, SETTING_OFI);
    ck_assert(settings.share);
    ck_assert_int_eq(settings.head, HEAD_AUTO);
    ck_assert_uint_eq(settings.queue_max, 4194304);
    ck_assert_uint_eq(settings.processes_max, 256);
    ck_assert_uint_eq(settings.spin_us, 20);
    ck_assert_int_eq(settings.attempts, 4);
    ck_assert_uint_eq(settings.near_bytes, 1 << 20);
    ck_assert_int_eq(settings.log, LOG_WARNING);
    ck_assert(!settings.report_leaks);
    ck_assert_int_eq(settings.progress, PROGRESS_AUTO);
    for (int id = 0; id < SETTING_COUNT; id++)
        ck_assert_int_eq(settings.source[id], SETTING_DEFAULT);
}
END_TEST

START_TEST(values_that_are_understood)
{
    ck_assert_int_eq(set("MORAY_WORKERS", "12"), MORAY_OK);
    ck_assert_uint_eq(settings.workers, 12);
    ck_assert_int_eq(set("MORAY_WORKERS", "auto"), MORAY_OK);
    ck_assert_uint_eq(settings.workers, 0);
    ck_assert_int_eq(set("MORAY_STORE_BYTES", "2GiB"), MORAY_OK);
    ck_assert_uint_eq(settings.store_bytes.bytes, UINT64_C(2) << 30);
    ck_assert_uint_eq(settings.store_bytes.percent, 0);
    ck_assert_int_eq(set("MORAY_STORE_BYTES", "5%"), MORAY_OK);
    ck_assert_uint_eq(settings.store_bytes.percent, 5);
    ck_assert_uint_eq(settings.store_bytes.bytes, 0);
    ck_assert_int_eq(set("MORAY_NEAR_BYTES", "4096"), MORAY_OK);
    ck_assert_uint_eq(settings.near_bytes, 4096);
    ck_assert_int_eq(set("MORAY_NEAR_BYTES", "3 kib"), MORAY_OK);
    ck_assert_uint_eq(settings.near_bytes, 3072);
    ck_assert_int_eq(set("MORAY_FABRIC", "mpi"), MORAY_OK);
    ck_assert_int_eq(settings.fabric, SETTING_MPI);
    ck_assert_int_eq(set("MORAY_SHARE", "0"), MORAY_OK);
    ck_assert(!settings.share);
    ck_assert_int_eq(set("MORAY_SHARE", "yes"), MORAY_OK);
    ck_assert(settings.share);
    ck_assert_int_eq(set("MORAY_ATTEMPTS", "endless"), MORAY_OK);
    ck_assert_int_eq(settings.attempts, MORAY_ENDLESS);
    ck_assert_int_eq(set("MORAY_SPIN_US", "0"), MORAY_OK);
    ck_assert_uint_eq(settings.spin_us, 0);
    ck_assert_int_eq(set("MORAY_CORES", "0-3,8"), MORAY_OK);
    ck_assert_str_eq(settings.cores, "0-3,8");
    ck_assert_int_eq(set("MORAY_LOG", "debug"), MORAY_OK);
    ck_assert_int_eq(settings.log, LOG_DEBUG);
    ck_assert_int_eq(set("MORAY_CHAOS", "worker=100ms,seed=1"), MORAY_OK);
    ck_assert_str_eq(settings.chaos, "worker=100ms,seed=1");
    ck_assert_int_eq(settings.source[SETTING_MORAY_CHAOS], SETTING_ENVIRONMENT);
}
END_TEST

START_TEST(absurd_values_are_refused_by_name)
{
    refused("MORAY_WORKERS", "many", "not understood", "1 to 192, or auto");
    refused("MORAY_WORKERS", "0", "too small", "1 to 192");
    refused("MORAY_WORKERS", "-1", "negative", "1 to 192");
    refused("MORAY_WORKERS", "193", "too large", "1 to 192");
    refused("MORAY_WORKERS", "18446744073709551617", "too large", "1 to 192");
    refused("MORAY_WORKERS", "2x", "not understood", "1 to 192");
    refused("MORAY_WORKERS", " 2", "not understood", "1 to 192");
    refused("MORAY_WORKERS", "+2", "not understood", "1 to 192");
    refused("MORAY_WORKERS", "0x10", "not understood", "1 to 192");
    refused("MORAY_WORKERS", "", "not understood", "1 to 192");
    refused("MORAY_STORE_BYTES", "0%", "too small", "1% to 85%");
    refused("MORAY_STORE_BYTES", "86%", "too large", "1% to 85%");
    refused("MORAY_STORE_BYTES", "4294967326%", "too large", "1% to 85%");
    refused("MORAY_STORE_BYTES", "1KiB", "too small", "16MiB");
    refused("MORAY_STORE_BYTES", "-1GiB", "negative", "16MiB");
    refused("MORAY_STORE_BYTES", "99999999999TiB", "too large", "64TiB");
    refused("MORAY_STORE_BYTES", "half", "not understood", "2GiB");
    refused("MORAY_NEAR_BYTES", "1.5MiB", "not understood", "64MiB");
    refused("MORAY_FABRIC", "tcp", "not understood", "ofi mpi");
    refused("MORAY_FABRIC", "ofi mpi", "not understood", "ofi mpi");
    refused("MORAY_FABRIC", "of", "not understood", "ofi mpi");
    refused("MORAY_SHARE", "2", "not understood", "on or off");
    refused("MORAY_ATTEMPTS", "-1", "negative", "endless");
    refused("MORAY_SPIN_US", "10001", "too large", "0 to 10000");
    refused("MORAY_CORES", "3-1", "not understood", "0-3,8");
    refused("MORAY_CORES", "0-", "not understood", "0-3,8");
    refused("MORAY_CORES", "1,,2", "not understood", "0-3,8");
    refused("MORAY_CORES", "0", "too small", "0-3,8");
    refused("MORAY_CORES", "1-99999", "too large", "0-3,8");
    refused("MORAY_PROVIDER", "a\tb", "not understood", "printable");
    refused("MORAY_CHAOS", "worker=100ms,seed=x", "not understood", "worker=100ms,seed=7");
}
END_TEST

START_TEST(a_text_that_is_too_long_is_refused)
{
    char text[SETTING_TEXT_MAX + 1];

    memset(text, 'a', sizeof(text));
    text[SETTING_TEXT_MAX] = '\0';
    ck_assert_int_eq(set("MORAY_PROVIDER", text), MORAY_INVALID);
    text[SETTING_TEXT_MAX - 1] = '\0';
    ck_assert_int_eq(set("MORAY_PROVIDER", text), MORAY_OK);
    ck_assert_str_eq(settings.provider, text);
}
END_TEST

START_TEST(an_unknown_name_is_an_error_that_names_the_nearest)
{
    char *const misspelt[] = {"HOME=/", "MORAY_WORKER=2", NULL};
    char *const foreign[] = {"MORAY_SOMETHING_ELSE=2", NULL};
    char *const internal[] = {"MORAY_JOB_SECRET=2", "MORAYX=1", "MORAY", NULL};

    ck_assert_int_eq(settings_load(NULL, misspelt, &settings, &error), MORAY_INVALID);
    ck_assert_msg(strstr(error.text, "MORAY_WORKER:") && strstr(error.text, "MORAY_WORKERS?"), "%s",
                  error.text);
    ck_assert_int_eq(settings_load(NULL, foreign, &settings, &error), MORAY_INVALID);
    ck_assert_msg(strstr(error.text, "docs/settings.md") != NULL, "%s", error.text);
    ck_assert_int_eq(settings_load(NULL, internal, &settings, &error), MORAY_OK);
    ck_assert_int_eq(settings_set(&settings, "MORAY_WORKER", "2", SETTING_OPTIONS, &error),
                     MORAY_NOT_FOUND);
}
END_TEST

START_TEST(the_environment_beats_the_program)
{
    char *const environment[] = {"MORAY_WORKERS=5", NULL};
    struct moray_options options = {.workers = 3,
                                    .share = MORAY_OFF,
                                    .spin_us = MORAY_NONE,
                                    .attempts = MORAY_ENDLESS,
                                    .store_bytes = "1GiB"};

    ck_assert_int_eq(settings_load(&options, environment, &settings, &error), MORAY_OK);
    ck_assert_uint_eq(settings.workers, 5);
    ck_assert_int_eq(settings.source[SETTING_MORAY_WORKERS], SETTING_ENVIRONMENT);
    ck_assert(!settings.share);
    ck_assert_int_eq(settings.source[SETTING_MORAY_SHARE], SETTING_OPTIONS);
    ck_assert_uint_eq(settings.spin_us, 0);
    ck_assert_int_eq(settings.attempts, MORAY_ENDLESS);
    ck_assert_uint_eq(settings.store_bytes.bytes, 1 << 30);
    ck_assert_int_eq(settings.source[SETTING_MORAY_FABRIC], SETTING_DEFAULT);
}
END_TEST

START_TEST(absurd_options_of_the_program_are_refused)
{
    const struct moray_options absurd[] = {
        {.workers = -2},       {.workers = MORAY_NONE},         {.workers = INT64_MAX},
        {.fabric = "carrier"}, {.share = (enum moray_switch)3}, {.store_bytes = "200%"},
        {.attempts = -7},      {.spin_us = INT64_MIN},
    };

    for (size_t i = 0; i < sizeof(absurd) / sizeof(*absurd); i++) {
        ck_assert_int_eq(settings_load(&absurd[i], nothing, &settings, &error), MORAY_INVALID);
        ck_assert_msg(strstr(error.text, "MORAY_") && strstr(error.text, "options"), "%zu: %s", i,
                      error.text);
        settings_default(&other);
        ck_assert(!memcmp(&other, &settings, sizeof(other)));
    }
}
END_TEST

START_TEST(text_gives_the_same_value_again)
{
    const char *const values[][2] = {
        {"MORAY_STORE_BYTES", "17%"},  {"MORAY_STORE_BYTES", "3GiB"},
        {"MORAY_NEAR_BYTES", "1025"},  {"MORAY_NEAR_BYTES", "0"},
        {"MORAY_ATTEMPTS", "endless"}, {"MORAY_WORKERS", "auto"},
        {"MORAY_PROGRESS", "off"},     {"MORAY_CORES", "1-4,9"},
        {"MORAY_REPORT_LEAKS", "on"},  {"MORAY_INFLIGHT_BYTES", "1TiB"},
    };
    char text[SETTING_TEXT_MAX];

    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        settings_default(&settings);
        ck_assert_int_eq(set(values[i][0], values[i][1]), MORAY_OK);
        for (int id = 0; id < SETTING_COUNT; id++)
            if (settings.source[id] != SETTING_DEFAULT)
                ck_assert_str_eq(settings_text(&settings, (enum setting_id)id, text, sizeof(text)),
                                 values[i][1]);
    }
}
END_TEST

START_TEST(rank_0_hands_its_settings_to_all)
{
    char packed[32768];
    size_t bytes;

    ck_assert_int_eq(set("MORAY_WORKERS", "3"), MORAY_OK);
    ck_assert_int_eq(set("MORAY_SHARE", "off"), MORAY_OK);
    ck_assert_int_eq(set("MORAY_INTERFACE", "eth1"), MORAY_OK);
    bytes = settings_pack(&settings, NULL, 0);
    ck_assert_uint_eq(settings_pack(&settings, packed, sizeof(packed)), bytes);

    settings_default(&other); /* a rank whose environment says otherwise */
    ck_assert_int_eq(settings_set(&other, "MORAY_WORKERS", "7", SETTING_ENVIRONMENT, &error), 0);
    ck_assert_int_eq(settings_set(&other, "MORAY_FABRIC", "mpi", SETTING_ENVIRONMENT, &error), 0);
    ck_assert_int_eq(settings_set(&other, "MORAY_STORE_BYTES", "9%", SETTING_ENVIRONMENT, &error),
                     0);
    ck_assert_int_eq(settings_apply(&other, packed, bytes, &error), MORAY_OK);
    ck_assert_uint_eq(other.workers, 3);
    ck_assert(!other.share);
    ck_assert_str_eq(other.interface, "eth1");
    ck_assert_int_eq(other.fabric, SETTING_OFI);     /* the job's, though rank 0 has a default */
    ck_assert_uint_eq(other.store_bytes.percent, 9); /* the rank's own: rank 0 has none */
    ck_assert_int_eq(other.source[SETTING_MORAY_WORKERS], SETTING_RANK0);
    ck_assert_int_eq(other.source[SETTING_MORAY_STORE_BYTES], SETTING_ENVIRONMENT);
}
END_TEST

/* Bytes of the wire: cut anywhere, or changed anywhere, they are taken whole or not at all. */
START_TEST(damaged_settings_change_nothing)
{
    char packed[32768], bad[32768];
    size_t bytes;

    ck_assert_int_eq(set("MORAY_WORKERS", "3"), MORAY_OK);
    bytes = settings_pack(&settings, packed, sizeof(packed));
    for (size_t cut = 0; cut < bytes; cut++) {
        struct settings before;
        settings_default(&other);
        before = other;
        if (settings_apply(&other, packed, cut, &error))
            ck_assert_msg(!memcmp(&before, &other, sizeof(other)), "cut at %zu", cut);
        else
            ck_assert(cut == 0 || packed[cut - 1] == '\0');
    }
    uint64_t seed = 1;
    for (int round = 0; round < 20000; round++) {
        struct settings before;
        memcpy(bad, packed, bytes);
        bad[law_random(&seed, (uint32_t)bytes)] = (char)law_random(&seed, 256);
        settings_default(&other);
        before = other;
        if (settings_apply(&other, bad, bytes, &error))
            ck_assert_msg(!memcmp(&before, &other, sizeof(other)), "round %d", round);
    }
}
END_TEST

START_TEST(printed_with_value_unit_and_source)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);

    ck_assert_int_eq(set("MORAY_SPIN_US", "7"), MORAY_OK);
    settings_print(&settings, out);
    fclose(out);
    ck_assert(strstr(text, "MORAY_SPIN_US         7            microseconds  environment\n") !=
              NULL);
    ck_assert(strstr(text, "MORAY_STORE_BYTES     30%          bytes         default\n") != NULL);
    free(text);
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("settings");

    tcase_add_checked_fixture(laws, setup, NULL);
    tcase_add_test(laws, defaults_are_what_the_page_says);
    tcase_add_test(laws, values_that_are_understood);
    tcase_add_test(laws, absurd_values_are_refused_by_name);
    tcase_add_test(laws, a_text_that_is_too_long_is_refused);
    tcase_add_test(laws, an_unknown_name_is_an_error_that_names_the_nearest);
    tcase_add_test(laws, the_environment_beats_the_program);
    tcase_add_test(laws, absurd_options_of_the_program_are_refused);
    tcase_add_test(laws, text_gives_the_same_value_again);
    tcase_add_test(laws, rank_0_hands_its_settings_to_all);
    tcase_add_test(laws, damaged_settings_change_nothing);
    tcase_add_test(laws, printed_with_value_unit_and_source);
    return law_run("settings", laws);
}
