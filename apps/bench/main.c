#include "bench.h"

#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "Usage: moray bench [options]\n"
    "Measures Moray, beside its peers where a row has one, and prints a table.\n"
    "\n"
    "  --json FILE   write the rows there\n"
    "  --rows a,b    these rows only; an end cut off counts for all that begin so: 'task.,actor.'\n"
    "  --list        the rows, without measuring\n"
    "  --quick       few and short runs: to see that all works, not for numbers\n"
    "  --runs N      instead of 7, or of 21 in rows whose runs differ much\n"
    "  --help        this text\n"
    "\n"
    "Ends with 1 if a row could not be measured. A full run takes about 11 minutes.\n";

enum { RUNS_MAX = 1000 };

struct options {
    const char *json, *rows;
    int runs; /* 0: as many as the row has */
    bool quick, list;
};

struct series {
    double values[RUNS_MAX];
    int count;
    double median, least, most;
    char extra[BENCH_TEXT]; /* of the last run */
};

/* ---- One row ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void summarise(struct series *series)
{
    static double sorted[RUNS_MAX];
    int count = series->count;

    if (!count)
        return;
    memcpy(sorted, series->values, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, by_value);
    series->least = sorted[0];
    series->most = sorted[count - 1];
    series->median =
        count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

/* A row that is being measured: Moray's side and each way of its peer. */
struct measured {
    const struct row *row;
    struct run runs[1 + BENCH_PEERS_MAX];
    struct series all[1 + BENCH_PEERS_MAX];
    int sides, code;
};

/* A run of each side. Where runs have parts, the parts alternate. */
static int take(struct measured *of, bool is_warm_up)
{
    double sums[1 + BENCH_PEERS_MAX] = {0};
    int parts = of->row->moray.parts ? of->row->moray.parts : 1;
    struct sample sample;

    for (int part = 0; part < parts; part++)
        for (int i = 0; i < of->sides; i++) {
            if (run_measure(&of->runs[i], &sample))
                return -1;
            sums[i] += sample.value;
            snprintf(of->all[i].extra, sizeof of->all[i].extra, "%s", sample.extra);
        }
    for (int i = 0; i < of->sides && !is_warm_up; i++)
        of->all[i].values[of->all[i].count++] = sums[i] / parts;
    return 0;
}

/* Of a peer's ways the best: the least where less is better, which all peers with several are. */
static int best_of(struct series *peers, int count)
{
    int best = 0;

    for (int i = 1; i < count; i++)
        if (peers[i].median < peers[best].median)
            best = i;
    return best;
}

static void add_text(char *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_text(char *text, const char *format, ...)
{
    size_t used = strlen(text);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text + used, 4 * BENCH_TEXT - used, format, arguments);
    va_end(arguments);
}

/* The value is the ratio, run by run: what slows the machine slows both of a pair. */
static void divide(struct series *moray, struct series *peer, char *params)
{
    summarise(moray);
    summarise(peer);
    add_text(params, ";moray=%.4g;other=%.4g", moray->median, peer->median);
    for (int i = 0; i < moray->count; i++)
        moray->values[i] /= peer->values[i];
}

struct result {
    char params[4 * BENCH_TEXT];
    struct series *moray, *peer; /* peer: NULL without one */
    int code;
};

static int peer_ways(const struct row *row)
{
    int count = 0;

    while ((row->peer || row->divide) && count < BENCH_PEERS_MAX && row->peers[count].program)
        count++;
    return count;
}

static void begin(struct measured *of, const struct row *row, bool quick)
{
    of->row = row;
    of->sides = 1 + peer_ways(row);
    of->code = 0;
    for (int i = 0; i < of->sides; i++) {
        memset(&of->runs[i], 0, sizeof of->runs[i]);
        of->runs[i].side = i ? &row->peers[i - 1] : &row->moray;
        of->runs[i].quick = quick;
        of->all[i].count = 0;
    }
}

static void end(struct measured *of)
{
    for (int i = 0; i < of->sides; i++)
        of->code |= run_end(&of->runs[i]);
    if (!of->row->divide || of->code || !strcmp(of->runs[0].digest, of->runs[1].digest))
        return;
    fprintf(stderr, "bench: %s: the digests differ: %s and %s\n", of->row->name, of->runs[0].digest,
            of->runs[1].digest);
    of->code = -1;
}

/* Rows whose runs alternate, and in each run its sides. */
static void measure(struct measured *rows, int count, int turns)
{
    for (int turn = -1; turn < turns; turn++)
        for (int i = 0; i < count; i++)
            if (!rows[i].code)
                rows[i].code = take(&rows[i], turn < 0);
    for (int i = 0; i < count; i++)
        end(&rows[i]);
}

static void sum_up(struct measured *of, bool quick, struct result *out)
{
    const struct row *row = of->row;
    struct series *all = of->all;
    int ways = of->sides - 1;

    snprintf(out->params, sizeof out->params, "%s", row->params);
    out->moray = &all[0];
    out->peer = NULL;
    out->code = of->code;
    if (out->code)
        return;
    if (quick)
        add_text(out->params, ";quick=1");
    if (*all[0].extra)
        add_text(out->params, ";%s", all[0].extra);
    if (row->divide) {
        divide(&all[0], &all[1], out->params);
    } else if (ways) {
        for (int i = 1; i <= ways; i++)
            summarise(&all[i]);
        for (int i = 1; i <= ways && ways > 1; i++) {
            const char *spin = strstr(row->peers[i - 1].words, "--spin ");
            add_text(out->params, ";spin_%dus=%.4g", spin ? atoi(spin + 7) : i, all[i].median);
        }
        out->peer = &all[1 + best_of(all + 1, ways)];
        if (ways > 1 && *out->peer->extra)
            add_text(out->params, ";%s", out->peer->extra);
    }
    summarise(&all[0]);
}

/* ---- What is shown ---- */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static void put_json(json_t *rows, const struct row *row, const struct result *result)
{
    json_t *out = json_object();
    bool ok = !result->code;
    const struct series *peer = ok ? result->peer : NULL;

    json_object_set_new(out, "row", json_string(row->name));
    json_object_set_new(out, "params", json_string(result->params));
    json_object_set_new(out, "value", ok ? number(result->moray->median) : json_null());
    json_object_set_new(out, "unit", json_string(row->unit));
    json_object_set_new(out, "min", ok ? number(result->moray->least) : json_null());
    json_object_set_new(out, "max", ok ? number(result->moray->most) : json_null());
    json_object_set_new(out, "runs", json_integer(ok ? result->moray->count : 0));
    json_object_set_new(out, "peer", peer ? json_string(row->peer) : json_null());
    json_object_set_new(out, "peer_value", peer ? number(peer->median) : json_null());
    json_object_set_new(out, "ratio",
                        peer ? number(result->moray->median / peer->median) : json_null());
    json_array_append_new(rows, out);
}

static const char *short_number(double value, char out[32])
{
    double size = fabs(value);

    if (size >= 1e6)
        snprintf(out, 32, "%.3g M", value / 1e6);
    else if (size >= 1e4)
        snprintf(out, 32, "%.3g k", value / 1e3);
    else
        snprintf(out, 32, "%.3g", value);
    return out;
}

static void put_line(const struct row *row, const struct result *result)
{
    char a[32], b[32], c[32], d[32];

    if (result->code) {
        printf("%-23s %10s  %s  %s\n", row->name, "failed", row->unit, row->params);
        return;
    }
    printf("%-23s %10s %-13s %10s %10s", row->name, short_number(result->moray->median, a),
           row->unit, short_number(result->moray->least, b), short_number(result->moray->most, c));
    if (result->peer)
        printf("  %-7s %10s %6.2f", row->peer, short_number(result->peer->median, d),
               result->moray->median / result->peer->median);
    else
        printf("  %-7s %10s %6s", "", "", "");
    printf("  %s\n", result->params);
    fflush(stdout);
}

/* ---- Options ---- */

/* Whether the row is asked for: by its name, or by a beginning that ends with a dot. */
static bool is_asked(const struct row *row, const char *list)
{
    for (const char *at = list; at && *at;) {
        size_t bytes = strcspn(at, ",");
        bool is_start = bytes && at[bytes - 1] == '.';
        if (!strncmp(row->name, at, bytes) && (is_start || !row->name[bytes]))
            return true;
        at += bytes + (at[bytes] == ',');
    }
    return !list;
}

/* Each name of the list must be that of a row. */
static int check_rows(const char *list)
{
    char name[64];

    for (const char *at = list; at && *at;) {
        size_t bytes = strcspn(at, ",");
        bool found = false;
        snprintf(name, sizeof name, "%.*s", (int)bytes, at);
        for (size_t i = 0; i < bench_row_count; i++)
            found = found || is_asked(&bench_rows[i], name);
        if (!found || !bytes) {
            fprintf(stderr, "bench: there is no row '%s'; moray bench --list names them\n", name);
            return -1;
        }
        at += bytes + (at[bytes] == ',');
    }
    return 0;
}

/* Returns 0 to go on, else the exit status plus 1. */
static int read_options(int argc, char **argv, struct options *out)
{
    static const struct option names[] = {
        {"json", required_argument, NULL, 'j'},
        {"rows", required_argument, NULL, 'r'},
        {"runs", required_argument, NULL, 'n'},
        {"quick", no_argument, NULL, 'q'},
        {"list", no_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    char *end = NULL;

    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (option) {
        case 'j':
            out->json = optarg;
            break;
        case 'r':
            out->rows = optarg;
            break;
        case 'n':
            out->runs = (int)strtol(optarg, &end, 10);
            if (*end || end == optarg || out->runs < 1 || out->runs > RUNS_MAX) {
                fprintf(stderr, "bench: --runs must be a number from 1 to %d, not %s\n", RUNS_MAX,
                        optarg);
                return 3;
            }
            break;
        case 'q':
            out->quick = true;
            break;
        case 'l':
            out->list = true;
            break;
        case 'h':
            fputs(help, stdout);
            return 1;
        default:
            fputs("Try: moray bench --help\n", stderr);
            return 3;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "bench: %s is no option; try: moray bench --help\n", argv[optind]);
        return 3;
    }
    return check_rows(out->rows) ? 3 : 0;
}

static int runs_of(const struct row *row, const struct options *options)
{
    if (options->runs)
        return options->runs;
    if (options->quick)
        return BENCH_RUNS_QUICK;
    return row->moray.runs ? row->moray.runs : BENCH_RUNS;
}

static void on_signal(int number)
{
    run_kill_all();
    signal(number, SIG_DFL);
    raise(number);
}

int main(int argc, char **argv)
{
    static struct measured measured[BENCH_TOGETHER_MAX];
    struct options options = {0};
    struct result result;
    FILE *file = NULL;
    int code = 0;

    if (argc > 1 && !strcmp(argv[1], "--child"))
        return child_main(argc, argv);
    code = read_options(argc, argv, &options);
    if (code)
        return code - 1;
    if (options.json && !options.list && !(file = fopen(options.json, "we"))) {
        fprintf(stderr, "bench: cannot write %s: %m\n", options.json);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    json_t *rows = json_array();
    if (!options.list)
        printf("%-23s %10s %-13s %10s %10s  %-7s %10s %6s  %s\n", "row", "median", "unit", "min",
               "max", "peer", "median", "ratio", "params");
    for (size_t i = 0, together; i < bench_row_count; i += together) {
        const struct row *row = &bench_rows[i];
        for (together = 1; together < BENCH_TOGETHER_MAX && row[together - 1].moray.with_next;)
            together++;
        if (!is_asked(row, options.rows))
            continue;
        if (options.list) {
            for (size_t k = 0; k < together; k++)
                printf("%-23s %-13s %-36s %s\n", row[k].name, row[k].unit, row[k].params,
                       row[k].peer ? row[k].peer : "");
            continue;
        }
        for (size_t k = 0; k < together; k++)
            begin(&measured[k], &row[k], options.quick);
        measure(measured, (int)together, runs_of(row, &options));
        for (size_t k = 0; k < together; k++) {
            sum_up(&measured[k], options.quick, &result);
            put_line(&row[k], &result);
            put_json(rows, &row[k], &result);
            code |= result.code ? 1 : 0;
        }
    }
    if (file &&
        (json_dumpf(rows, file, JSON_INDENT(2)) || fputc('\n', file) == EOF || fclose(file))) {
        fprintf(stderr, "bench: cannot write %s: %m\n", options.json);
        code = 1;
    }
    json_decref(rows);
    return code;
}
