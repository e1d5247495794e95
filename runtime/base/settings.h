/**
 * Settings: one table from which everything comes: struct settings, the parser, struct moray_options'
 * reading, `moray settings`, and docs/settings.md.
 *
 *     default  <  struct moray_options  <  the environment  <  what rank 0 handed over
 *
 * Each rank loads its own (settings_load). Then rank 0 packs what it has (settings_pack) and the others
 * apply it (settings_apply): JOB settings must be the same everywhere, so they are always handed over;
 * RANK settings only where rank 0 had one set. An unknown MORAY_ name in the environment is an error,
 * since a misspelt setting that silently does nothing costs a night; names that begin with MORAY_JOB_
 * are Moray's own and skipped.
 * Threads: no shared state; a struct settings that is no longer changed may be read by all.
 */
#ifndef MORAY_BASE_SETTINGS_H
#define MORAY_BASE_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/* Kinds, and the type of the field:
 *   COUNT   uint64_t; if the default is "auto", that is allowed and gives 0
 *   TRIES   int64_t; a number or "endless", which gives MORAY_ENDLESS
 *   BYTES   uint64_t; "64MiB"
 *   SIZE    struct setting_size; bytes, or "30%" of the job's memory
 *   BOOL    bool
 *   CHOICE  int; the place of the word in the list of words
 *   CORES   char[]; "4" (how many), or "0-3,8" (which), or "auto"
 *   TEXT    char[]; "" if not set
 *   CHAOS   the same, but only what chaos_read() takes
 * X(name, field, kind, scope, default, lowest, highest, words, unit, text)
 * The fields of struct moray_options have the same names and the same order. */
#define SETTINGS(X)                                                                                \
    X(MORAY_WORKERS, workers, COUNT, RANK, "auto", 1, 192, "", "processes",                        \
      "Worker processes of a rank. auto: one for each of the rank's cores.")                       \
    X(MORAY_CORES, cores, CORES, RANK, "auto", 1, 65535, "", "cores",                              \
      "The cores of a rank: how many (4), or which, as the system numbers them (0-3,8; 4-4 for "   \
      "one). More than the host has, of which a warning tells, share what there is. auto: the "    \
      "rank's binding if the user asked for one, else its share of the job's cpuset.")             \
    X(MORAY_STORE_BYTES, store_bytes, SIZE, RANK, "30%", 16777216, 70368744177664, "", "bytes",    \
      "Shared memory for objects of a node. A percentage is of the smaller of the host's memory "  \
      "and the job's limit, divided among the host's ranks. Tables take an eighth of it more, "    \
      "and queues what MORAY_QUEUE_MAX needs; pages that are not used cost nothing.")              \
    X(MORAY_FABRIC, fabric, CHOICE, JOB, "ofi", 0, 0, "ofi mpi", "",                               \
      "What carries messages and objects between ranks: libfabric (ofi) or MPI (mpi).")            \
    X(MORAY_PROVIDER, provider, TEXT, JOB, "", 0, 0, "", "",                                       \
      "The provider of libfabric, as fi_info names it. Empty: the best that behaves. shm, net, "   \
      "udp and sockets, which do not, are refused unless a ! stands at the end (udp;ofi_rxd!). "   \
      "A job of one rank does not look at it.")                                                    \
    X(MORAY_INTERFACE, interface, TEXT, JOB, "", 0, 0, "", "",                                     \
      "The network interface, or the address with its prefix (10.1.0.0/16), that ranks publish "   \
      "and listen on. Empty: the one that leads to rank 0. A job of one rank "                     \
      "does not look at it.")                                                                      \
    X(MORAY_SHARE, share, BOOL, JOB, "on", 0, 0, "", "",                                           \
      "Whether ranks of one host read each other's memory in place. off: everything between "      \
      "ranks goes through the fabric.")                                                            \
    X(MORAY_HEAD, head, CHOICE, JOB, "auto", 0, 0, "auto alone node", "",                          \
      "Whether rank 0, which runs main, is a node with workers as well (node) or not (alone). "    \
      "auto: a node only where no other rank shares its host.")                                    \
    X(MORAY_QUEUE_MAX, queue_max, COUNT, JOB, "4194304", 16, 67108864, "", "tasks",                \
      "Tasks that may lie ready in the queue of a process (a power of two from 64 to 1048576 is "  \
      "taken); at the limit who submits waits or runs one. A node has room for a quarter more "    \
      "tasks and objects than this, at least 65536: beyond that calls fail with MORAY_BUSY. The "  \
      "default is halved as often as it takes to fit into the memory that the job has.")           \
    X(MORAY_PROCESSES_MAX, processes_max, COUNT, RANK, "256", 2, 1022, "", "processes",            \
      "Workers, actors and spare processes that one rank may have at a time. An actor for which "  \
      "no rank has one waits for 10 s; then its calls fail with MORAY_BUSY.")                      \
    X(MORAY_SPARES_MAX, spares_max, COUNT, RANK, "auto", 1, 1021, "", "processes",                 \
      "Extra workers that may stand in for those that wait for a result. auto: half of what "      \
      "MORAY_PROCESSES_MAX leaves, at most 64.")                                                   \
    X(MORAY_SPIN_US, spin_us, COUNT, RANK, "20", 0, 10000, "", "microseconds",                     \
      "How long a process looks for work before it sleeps. Never done while more processes are "   \
      "awake than there are cores.")                                                               \
    X(MORAY_ATTEMPTS, attempts, TRIES, JOB, "4", 1, 255, "", "attempts",                           \
      "How often a task is tried in all when its process dies. endless: without limit.")           \
    X(MORAY_NEAR_BYTES, near_bytes, BYTES, JOB, "1MiB", 0, 1099511627776, "", "bytes",             \
      "A task that lacks fewer bytes of its inputs on its node stays there; otherwise the global " \
      "scheduler chooses a node.")                                                                 \
    X(MORAY_SPILL_QUEUE, spill_queue, COUNT, JOB, "64", 1, 67108864, "", "tasks",                  \
      "Tasks with resources of their own that may wait for each core of a node; further ones are " \
      "placed by the least expected wait of all nodes. (Plain tasks move to whoever is idle.)")    \
    X(MORAY_LOG, log, CHOICE, JOB, "warning", 0, 0, "error warning info debug", "",                \
      "What Moray itself says on standard error: this level and those before it.")                 \
    X(MORAY_REPORT_LEAKS, report_leaks, BOOL, JOB, "off", 0, 0, "", "",                            \
      "At moray_finalize each rank prints the objects, records and bytes that are still in use.")  \
    X(MORAY_CHAOS, chaos, CHAOS, JOB, "", 0, 0, "", "",                                            \
      "Kills random worker processes, to test a program: worker=100ms[,seed=1] is the mean time "  \
      "between two kills. Empty: none.")                                                           \
    X(MORAY_PROGRESS, progress, CHOICE, JOB, "auto", 0, 0, "auto on off", "",                      \
      "Progress lines on standard error. auto: only where that is a terminal.")                    \
    X(MORAY_OUTPUT_MARK, output_mark, BOOL, JOB, "off", 0, 0, "", "",                              \
      "Marks each line that a task or an actor prints with who printed it.")                       \
    X(MORAY_INFLIGHT_BYTES, inflight_bytes, BYTES, RANK, "64MiB", 65536, 1099511627776, "",        \
      "bytes", "Bytes of objects that a rank may have on their way to it at a time.")

#define SETTING_TEXT_MAX 256 /* bytes of a text, with its NUL */

struct setting_size { /* exactly one of the two is not 0 */
    uint64_t bytes;
    uint32_t percent;
};

#define SETTING_FIELD_COUNT(field) uint64_t field;
#define SETTING_FIELD_TRIES(field) int64_t field;
#define SETTING_FIELD_BYTES(field) uint64_t field;
#define SETTING_FIELD_SIZE(field) struct setting_size field;
#define SETTING_FIELD_BOOL(field) bool field;
#define SETTING_FIELD_CHOICE(field) int field;
#define SETTING_FIELD_CORES(field) char field[SETTING_TEXT_MAX];
#define SETTING_FIELD_TEXT(field) char field[SETTING_TEXT_MAX];
#define SETTING_FIELD_CHAOS(field) char field[SETTING_TEXT_MAX];

enum setting_id {
#define X(name, field, kind, scope, initial, lowest, highest, words, unit, text) SETTING_##name,
    SETTINGS(X)
#undef X
        SETTING_COUNT
};

enum setting_source { SETTING_DEFAULT, SETTING_OPTIONS, SETTING_ENVIRONMENT, SETTING_RANK0 };

struct settings {
#define X(name, field, kind, scope, initial, lowest, highest, words, unit, text) \
    SETTING_FIELD_##kind(field)
    SETTINGS(X)
#undef X
    uint8_t source[SETTING_COUNT]; /* enum setting_source, by enum setting_id */
};

/* The words of the choices, by their places. */
enum { SETTING_OFI, SETTING_MPI }; /* of MORAY_FABRIC */
enum { HEAD_AUTO, HEAD_ALONE, HEAD_NODE };
enum { PROGRESS_AUTO, PROGRESS_ON, PROGRESS_OFF };
/* LOG_...: in base/log.h */

/** All defaults. */
void settings_default(struct settings *settings);

/** Defaults, then the program's options (NULL: none), then `environment` ("NAME=value", ends with NULL).
 *  Errors: MORAY_INVALID: the story names setting, value, where it came from and what is allowed; then
 *  `*out` holds the defaults. */
MORAY_MUST_CHECK enum moray_code settings_load(const struct moray_options *options,
                                               char *const *environment, struct settings *out,
                                               struct moray_error *error);

/** Sets one setting from text. Errors: as above; MORAY_NOT_FOUND for an unknown name. */
MORAY_MUST_CHECK enum moray_code settings_set(struct settings *settings, const char *name,
                                              const char *value, enum setting_source source,
                                              struct moray_error *error);

const char *settings_name(enum setting_id id);

/** The value as text that settings_set() takes and that gives the same value; `room` of at least
 *  SETTING_TEXT_MAX. Returns `out`. */
const char *settings_text(const struct settings *settings, enum setting_id id, char *out,
                          size_t room);

/** What rank 0 hands to the others. Returns the bytes needed; writes them if `room` is enough (32 KiB
 *  always is). */
size_t settings_pack(const struct settings *settings, void *out, size_t room);

/** Applies rank 0's, with source SETTING_RANK0. The bytes come from the wire and are checked.
 *  Errors: MORAY_PROTOCOL or MORAY_INVALID; then `settings` is unchanged. */
MORAY_MUST_CHECK enum moray_code settings_apply(struct settings *settings, const void *data,
                                                size_t bytes, struct moray_error *error);

/** A line a setting: name, value, unit, source. */
void settings_print(const struct settings *settings, FILE *out);

/** docs/settings.md. */
void settings_document(FILE *out);

#endif
