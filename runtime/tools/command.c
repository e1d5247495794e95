#include "tools/command.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/chaos.h"

static const char *variable(char *const *environment, const char *name)
{
    size_t length = strlen(name);

    for (; *environment; environment++)
        if (!strncmp(*environment, name, length) && (*environment)[length] == '=' &&
            (*environment)[length + 1])
            return *environment + length + 1;
    return NULL;
}

/* Keeps a formatted text in the command; returns NULL if it has no more room. */
__attribute__((format(printf, 2, 3))) static char *keep(struct command *command, const char *format,
                                                        ...)
{
    char *text = command->text + command->text_length;
    size_t room = sizeof command->text - command->text_length;
    va_list values;

    va_start(values, format);
    int length = vsnprintf(text, room, format, values);
    va_end(values);
    if (length < 0 || (size_t)length >= room)
        return NULL;
    command->text_length += (unsigned)length + 1;
    return text;
}

/* Appends a word; one beyond the limit is counted, not written, and command_make() looks at that. */
static void add(struct command *command, const char *word)
{
    if (word && command->word_count < COMMAND_WORDS_MAX - 1)
        command->words[command->word_count] = word;
    command->word_count += word ? 1 : COMMAND_WORDS_MAX;
}

static void add_variable(struct command *command, const char *assignment)
{
    if (!assignment || command->variable_count >= COMMAND_VARIABLES_MAX - 1)
        command->word_count += COMMAND_WORDS_MAX;
    else
        command->variables[command->variable_count++] = assignment;
}

static void add_split(struct command *command, const char *options)
{
    char *rest, *copy = keep(command, "%s", options);

    if (!copy) {
        add(command, NULL);
        return;
    }
    for (char *word = strtok_r(copy, " \t", &rest); word; word = strtok_r(NULL, " \t", &rest))
        add(command, word);
}

/* Whether the user's own words for the launcher choose MCA parameter `name`. */
static bool is_chosen(const struct command_options *options, char *const *environment,
                      const char *name)
{
    char own[64];

    snprintf(own, sizeof own, "OMPI_MCA_%s", name);
    if (variable(environment, own))
        return true;
    snprintf(own, sizeof own, "mca %s ", name);
    return options->launcher_options && strstr(options->launcher_options, own);
}

/* A rank needs some settings before it hears of rank 0, and mpirun hands none to other hosts. */
static void pass_settings(char *const *environment, struct command *out)
{
    for (char *const *at = environment; *at; at++)
        if (!strncmp(*at, "MORAY_", 6) && strchr(*at, '=')) {
            add(out, "-x");
            add(out, keep(out, "%.*s", (int)strcspn(*at, "="), *at));
        }
    for (unsigned i = 0; i < out->variable_count; i++)
        if (!strncmp(out->variables[i], "MORAY_", 6)) {
            add(out, "-x");
            add(out, keep(out, "%.*s", (int)strcspn(out->variables[i], "="), out->variables[i]));
        }
}

static void make_mpirun(const struct command_options *options, char *const *environment,
                        unsigned core_count, bool is_root, struct command *out)
{
    static const char *const root[] = {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"};
    unsigned rank_count = options->rank_count ? options->rank_count : 1;

    for (unsigned i = 0; is_root && i < 2; i++)
        if (!variable(environment, root[i]))
            add_variable(out, keep(out, "%s=1", root[i]));
    add(out, "mpirun");
    add(out, "-n");
    add(out, keep(out, "%u", rank_count));
    /* Ranks are few and mostly asleep; mpirun counts them against cores all the same. */
    if (rank_count > core_count && !variable(environment, "OMPI_MCA_rmaps_base_oversubscribe"))
        add(out, "--oversubscribe");
    /* Without it MPI_Init looks for a network for 0.2 s; what else there is must be asked for. */
    if (!is_chosen(options, environment, "pml")) {
        add(out, "--mca");
        add(out, "pml");
        add(out, "ob1");
    }
    if (!is_chosen(options, environment, "mca_base_env_list")) /* mpirun takes it or -x */
        pass_settings(environment, out);
    if (options->launcher_options)
        add_split(out, options->launcher_options);
}

static void make_srun(const struct command_options *options, char *const *environment,
                      struct command *out)
{
    const char *per_task = variable(environment, "SLURM_CPUS_PER_TASK");
    const char *tasks = variable(environment, "SLURM_NTASKS");
    const char *nodes = variable(environment, "SLURM_JOB_NUM_NODES");

    if (!is_chosen(options, environment, "pml"))
        add_variable(out, "OMPI_MCA_pml=ob1");
    add(out, "srun");
    add(out, "--mpi=pmix");
    add(out, "--kill-on-bad-exit=1");
    if (variable(environment, "SLURM_STEP_ID"))
        add(out, "--overlap"); /* a step inside a step shares its cores */
    add(out, "-n");
    if (options->rank_count)
        add(out, keep(out, "%u", options->rank_count));
    else
        add(out, tasks ? tasks : nodes ? nodes : "1");
    if (per_task) { /* srun does not take it from the allocation by itself */
        add(out, "-c");
        add(out, per_task);
    }
    if (options->launcher_options)
        add_split(out, options->launcher_options);
}

static enum command_launcher choose(const struct command_options *options, char *const *environment)
{
    if (options->launcher != COMMAND_AUTO)
        return options->launcher;
    if (options->rank_count == 1 && !options->launcher_options)
        return COMMAND_NONE;
    if (variable(environment, "SLURM_JOB_ID"))
        return COMMAND_SRUN;
    return options->rank_count > 1 || options->launcher_options ? COMMAND_MPIRUN : COMMAND_NONE;
}

enum moray_code command_make(const struct command_options *options, char *const *environment,
                             unsigned core_count, bool is_root, struct command *out,
                             struct moray_error *error)
{
    memset(out, 0, sizeof *out);
    if (!options->program || !options->program[0])
        return error_set(error, MORAY_INVALID, "no program to run: moray run [options] ./app …");
    if (options->rank_count > COMMAND_RANKS_MAX)
        return error_set(error, MORAY_INVALID, "-n %u: at most %d ranks", options->rank_count,
                         COMMAND_RANKS_MAX);
    if (options->chaos) {
        if (!*options->chaos || !chaos_read(options->chaos, &(struct chaos){0}))
            return error_set(error, MORAY_INVALID, "--chaos %s: it takes %s", options->chaos,
                             CHAOS_TAKES);
        add_variable(out, keep(out, "MORAY_CHAOS=%s", options->chaos));
    }
    if (options->gdb)
        add_variable(out, keep(out, "MORAY_JOB_GDB=%s", options->gdb));

    out->launcher = choose(options, environment);
    if (out->launcher == COMMAND_NONE && options->rank_count > 1)
        return error_set(error, MORAY_INVALID,
                         "-n %u needs a launcher: leave out --launcher none, or the -n",
                         options->rank_count);
    if (out->launcher == COMMAND_NONE && options->launcher_options)
        return error_set(error, MORAY_INVALID, "--launcher none takes no launcher options");
    if (out->launcher == COMMAND_MPIRUN)
        make_mpirun(options, environment, core_count, is_root, out);
    else if (out->launcher == COMMAND_SRUN)
        make_srun(options, environment, out);
    for (char *const *word = options->program; *word; word++)
        add(out, *word);
    if (out->word_count >= COMMAND_WORDS_MAX)
        return error_set(
            error, MORAY_INVALID,
            "the command line is too long: at most %d words, and %zu bytes of launcher "
            "options, chaos and gdb together",
            COMMAND_WORDS_MAX - 1, sizeof out->text);
    return MORAY_OK;
}

struct line {
    char *out;
    unsigned out_bytes, length;
};

static void put(struct line *line, char byte)
{
    if (line->length + 1 < line->out_bytes)
        line->out[line->length] = byte;
    line->length++;
}

static void put_quoted(struct line *line, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=./,:@%^";
    bool quote = !*word || word[strspn(word, plain)];

    if (line->length)
        put(line, ' ');
    if (quote)
        put(line, '\'');
    for (; *word; word++)
        if (*word == '\'')
            for (const char *escape = "'\\''"; *escape; escape++)
                put(line, *escape);
        else
            put(line, *word);
    if (quote)
        put(line, '\'');
}

int command_print(const struct command *command, char *out, unsigned out_bytes)
{
    struct line line = {.out = out, .out_bytes = out_bytes};

    for (unsigned i = 0; i < command->variable_count; i++)
        put_quoted(&line, command->variables[i]);
    for (unsigned i = 0; i < command->word_count; i++)
        put_quoted(&line, command->words[i]);
    if (out_bytes)
        out[line.length < out_bytes ? line.length : out_bytes - 1] = 0;
    return (int)line.length;
}
