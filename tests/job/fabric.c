/**
 * The fabric between real ranks. Run without a launcher it starts itself under mpirun and judges:
 *     fabric ofi|mpi RANKS        messages, reads, sleep; then a rank is killed; then one hangs;
 *                                 then last words at the end; what is needed at the start (ofi)
 * Each rank plays the agent: one thread, MPI_Init_thread(FUNNELED), poll, spin a little, sleep.
 */
#include <mpi.h>

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fabric/fabric.h"

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "rank %u: %s:%d: %s\n", me, __FILE__, __LINE__, #condition); \
            fflush(stderr);                                                              \
            _exit(1);                                                                    \
        }                                                                                \
    } while (0)

enum { RANKS_MAX = 16, ARENA_BYTES = 600 << 20, HALF = 300 << 20, TRIPS = 200, STEP_LIMIT_S = 60 };
enum word { DATA = 1, STEP, GO, GRANT, PING, PONG, STREAM };

struct head {
    uint32_t word, value;
    uint64_t index;
    struct fabric_window window;
};

static uint32_t me, ranks;
static struct fabric *fabric;
static uint8_t *arena;
static int epoll_fd;
/* What came. */
static uint64_t next_index[RANKS_MAX], data_count, stream_bytes, reads_ended;
static uint32_t steps_ready, steps_gone, pings, pongs, lost_count, lost_rank;
static struct fabric_window granted[RANKS_MAX];
static uint32_t grants, posted_reads;
static uint64_t hung_pid, death_ns; /* death_ns: from when on a loss is what the test is about */

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double cpu_s(void)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static uint8_t pattern(uint64_t seed, uint64_t offset)
{
    return (uint8_t)((seed * 131 + offset) * 0x9e3779b97f4a7c15u >> 56);
}

static void serve_once(bool sleep);

/* Sends, polling while the bound is reached. */
static void must_send(uint32_t rank, const void *bytes, size_t count)
{
    enum moray_code code;

    while ((code = fabric_send(fabric, rank, bytes, count)) == MORAY_BUSY)
        serve_once(false);
    CHECK(code == MORAY_OK);
}

static void send_word(uint32_t rank, enum word word, uint64_t index)
{
    struct head head = {.word = word, .index = index};

    must_send(rank, &head, sizeof(head));
}

static void on_message(void *context, uint32_t rank, const void *bytes, size_t count)
{
    const struct head *head = bytes;

    (void)context;
    if (count < sizeof(*head)) { /* the shortest ones carry their index only */
        CHECK(*(const uint8_t *)bytes == (uint8_t)next_index[rank]);
        next_index[rank]++;
        data_count++;
        return;
    }
    switch (head->word) {
    case DATA:
        CHECK(head->index == next_index[rank]);
        next_index[rank]++;
        data_count++;
        for (size_t i = sizeof(*head); i<count; i += count> 8192 ? 61 : 1)
            CHECK(((const uint8_t *)bytes)[i] == pattern(rank * 77 + head->index, i));
        return;
    case STEP:
        steps_ready++;
        return;
    case GO:
        steps_gone++;
        return;
    case GRANT:
        granted[rank] = head->window;
        hung_pid = head->index;
        grants++;
        return;
    case PING:
        pings++;
        send_word(rank, PONG, 0);
        return;
    case PONG:
        pongs++;
        return;
    case STREAM:
        stream_bytes += count;
        return;
    }
    CHECK(!"an unknown word");
}

static void on_read(void *context, uint64_t cookie, enum moray_code code, bool posted)
{
    (void)context;
    (void)cookie;
    CHECK(code == MORAY_OK || (code == MORAY_LOST && death_ns));
    CHECK(!posted || lost_count);
    posted_reads += posted;
    reads_ended++;
}

static void on_lost(void *context, uint32_t rank, bool left, const char *reason)
{
    (void)context;
    if (left)
        return;
    if (lost_count++) /* the first is what the test is about; then the others end */
        return;
    lost_rank = rank;
    printf("rank %u: told after %.1f ms: lost rank %u: %s\n", me,
           death_ns ? (double)(now_ns() - death_ns) / 1e6 : 0, rank, reason);
    fflush(stdout);
}

static void on_error(void *context, const struct moray_error *error)
{
    fprintf(stderr, "rank %u: %s: %s\n", me, context ? "refused" : "failed", error->text);
    _exit(1);
}

static const struct fabric_handler handler = {NULL,    on_message, on_read,
                                              on_lost, on_error,   on_error};

/* One turn of an agent's loop. */
static void serve_once(bool sleep)
{
    struct epoll_event event;
    uint64_t spin_ns;

    /* After any work the caller looks first whether it has what it waits for. */
    if (fabric_poll(fabric, &handler) > 0 || !sleep)
        return;
    for (spin_ns = now_ns() + 20000; now_ns() < spin_ns;)
        if (fabric_poll(fabric, &handler) > 0)
            return;
    if (fabric_may_sleep(fabric))
        epoll_wait(epoll_fd, &event, 1, 1000);
}

static void serve_until(const uint32_t *value, uint32_t wanted)
{
    uint64_t end_ns = now_ns() + STEP_LIMIT_S * UINT64_C(1000000000);

    while (*value < wanted) {
        serve_once(true);
        CHECK(now_ns() < end_ns);
        CHECK(!lost_count);
    }
}

/* All ranks meet, by messages. */
static void meet(void)
{
    static uint32_t meetings;

    meetings++;
    if (me) {
        send_word(0, STEP, 0);
        serve_until(&steps_gone, meetings);
        return;
    }
    serve_until(&steps_ready, meetings * (ranks - 1));
    for (uint32_t rank = 1; rank < ranks; rank++)
        send_word(rank, GO, 0);
}

static void say(const char *format, double value)
{
    if (me == 0) {
        printf(format, value);
        fflush(stdout);
    }
}

/* ---- Steps ---- */

static void messages_of_all_lengths(void)
{
    static const size_t lengths[] = {1,    2,    8,     47,    48,    49,     64,     2008,
                                     2009, 4096, 65535, 65536, 65537, 300000, 1 << 20};
    enum { LENGTHS = sizeof(lengths) / sizeof(*lengths), ROUNDS = 6, SMALL = 20000 };
    static uint8_t bytes[1 << 20];
    uint64_t index = 0, expected = (uint64_t)(ranks - 1) * (LENGTHS * ROUNDS + SMALL);
    struct head *head = (struct head *)bytes;

    for (int i = 0; i < LENGTHS * ROUNDS + SMALL; i++, index++) {
        size_t length = i < LENGTHS * ROUNDS ? lengths[i % LENGTHS] : 48 + (size_t)i % 32;
        for (size_t k = 0; k < length; k++)
            bytes[k] = pattern(me * 77 + index, k);
        if (length < sizeof(*head))
            bytes[0] = (uint8_t)index;
        else
            *head = (struct head){.word = DATA, .index = index};
        for (uint32_t rank = 0; rank < ranks; rank++)
            if (rank != me)
                must_send(rank, bytes, length);
        serve_once(false);
    }
    while (data_count < expected)
        serve_once(true);
    CHECK(data_count == expected);
    meet();
}

static void grant_to(uint32_t rank, struct head *head)
{
    struct moray_error error;

    *head = (struct head){.word = GRANT};
    while (fabric_expose(fabric, 0, HALF, &head->window, &error) == MORAY_BUSY)
        serve_once(true);
    must_send(rank, head, sizeof(*head));
}

static void read_and_check(uint32_t rank, uint64_t offset, uint8_t *local, uint64_t bytes)
{
    uint64_t wanted = reads_ended + 1;

    CHECK(fabric_read(fabric, rank, &granted[rank], offset, local, bytes, 7) == MORAY_OK);
    while (reads_ended < wanted)
        serve_once(true);
    for (uint64_t i = 0; i < bytes; i++)
        if (local[i] != pattern(rank, offset + i)) {
            fprintf(stderr, "rank %u: byte %" PRIu64 " of %" PRIu64 " is wrong\n", me, i, bytes);
            _exit(1);
        }
}

/* The target only serves, as an agent does whose node has nothing to do. */
static void reads_pass_quickly(void)
{
    enum { RUNS = 5, BYTES = 256 << 20 };
    double best = 0;

    for (int run = 0; me == 0 && run < RUNS; run++) {
        uint64_t start = now_ns(), wanted = reads_ended + 1;
        CHECK(fabric_read(fabric, 1, &granted[1], 0, arena + HALF, BYTES, 0) == MORAY_OK);
        while (reads_ended < wanted)
            serve_once(true);
        double rate = BYTES / (double)(now_ns() - start);
        best = rate > best ? rate : best;
    }
    say("reads of 256 MiB: %.2f GB/s\n", best);
    meet();
}

/* Before any discovery is done: grants pass, and the reads wait for it by themselves. */
static void a_first_read_needs_no_patience(void)
{
    uint32_t next = (me + 1) % ranks, before = (me + ranks - 1) % ranks;
    struct head head;

    for (uint64_t i = 0; i < 10000; i++)
        arena[i] = pattern(me, i);
    grant_to(before, &head);
    serve_until(&grants, 1);
    read_and_check(next, 100, arena + HALF, 9000);
    meet();
    fabric_conceal(fabric, &head.window);
}

static void reads_of_all_lengths(void)
{
    static const uint64_t lengths[] = {1,        8,        100, 4096, 65536, 1 << 20, (1 << 20) + 1,
                                       16 << 20, 256 << 20};
    enum { MANY = 64 };
    uint32_t next = (me + 1) % ranks, before = (me + ranks - 1) % ranks;
    struct moray_error error;
    uint8_t *outside = malloc(5000);
    struct head head;

    for (uint64_t i = 0; i < HALF; i++)
        arena[i] = pattern(me, i);
    grant_to(before, &head);
    serve_until(&grants, 2);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        uint64_t bytes = lengths[i], wanted = reads_ended + 1;
        CHECK(fabric_read(fabric, next, &granted[next], 3 * i, arena + HALF, bytes, i) == MORAY_OK);
        while (reads_ended < wanted)
            serve_once(true);
        for (uint64_t k = 0; k < bytes; k++)
            CHECK(arena[HALF + k] == pattern(next, 3 * i + k));
    }
    read_and_check(next, 12345, outside, 5000); /* not into the arena */
    uint64_t wanted = reads_ended + MANY;
    for (int i = 0; i < MANY; i++)
        CHECK(fabric_read(fabric, next, &granted[next], (uint64_t)i * 70001,
                          arena + HALF + (uint64_t)i * 70001, 70001, 0) == MORAY_OK);
    while (reads_ended < wanted)
        serve_once(true);
    for (uint64_t k = 0; k < MANY * 70001; k++)
        CHECK(arena[HALF + k] == pattern(next, k));
    CHECK(fabric_read(fabric, next, &granted[next], HALF - 10, arena + HALF, 11, 0) ==
          MORAY_INVALID);
    struct fabric_window lie = granted[next];
    lie.address += (uint64_t)1 << 40;
    /* With ofi the provider looks itself. */
    if (strncmp(fabric_text(fabric), "mpi", 3) == 0)
        CHECK(fabric_read(fabric, next, &lie, 0, arena + HALF, 11, 0) == MORAY_INVALID);
    CHECK(fabric_expose(fabric, ARENA_BYTES - 10, 11, &head.window, &error) == MORAY_INVALID);
    free(outside);
    meet();
    reads_pass_quickly();
    fabric_conceal(fabric, &head.window);
}

/* Nobody has anything to do for three seconds. */
static void idle_costs_nothing(void)
{
    struct fabric_counts counts;
    double cpu, share;
    uint64_t start;

    meet();
    start = now_ns();
    while (now_ns() - start < 1000000000)
        serve_once(true);
    cpu = cpu_s();
    start = now_ns();
    while (now_ns() - start < 3000000000)
        serve_once(true);
    share = (cpu_s() - cpu) / ((double)(now_ns() - start) / 1e9);
    printf("rank %u: idle: %.3f %% of a core\n", me, share * 100);
    CHECK(share < 0.01);
    meet();
    fabric_counts(fabric, &counts);
    CHECK(counts.rescues == 0);
}

static void trips(const char *text, useconds_t gap_us)
{
    uint64_t spent = 0, most = 0;

    meet();
    for (int i = 0; me == 0 && i < TRIPS; i++) {
        uint64_t start;
        usleep(gap_us);
        start = now_ns();
        send_word(1, PING, 0);
        serve_until(&pongs, pongs + 1);
        spent += now_ns() - start;
        most = now_ns() - start > most ? now_ns() - start : most;
    }
    (void)most;
    say(text, (double)spent / TRIPS / 1e3);
    meet();
}

/* Batches as an agent makes them: 16 KiB, 256 tasks of 64 bytes. */
static void batches_pass_quickly(void)
{
    enum { BATCHES = 8000, BATCH_BYTES = 16384 };
    static uint8_t batch[BATCH_BYTES];
    uint64_t start = now_ns();
    double cpu = cpu_s();

    *(struct head *)batch = (struct head){.word = STREAM};
    meet();
    for (int i = 0; me == 0 && i < BATCHES; i++) {
        must_send(1, batch, sizeof(batch));
        serve_once(false);
    }
    while (me == 1 && stream_bytes < (uint64_t)BATCHES * BATCH_BYTES)
        serve_once(true);
    meet();
    double seconds = (double)(now_ns() - start) / 1e9;
    say("batches: %.2f M tasks of 64 bytes a second", BATCHES * 256 / seconds / 1e6);
    say(", %.2f us of rank 0's processor a batch\n", (cpu_s() - cpu) / BATCHES * 1e6);
}

/* Small messages alone begin no discovery in the first 0.1 s; what is too long for the doorbell begins
 * it at once, at both ends. The judge knows that a rank may come to it late. */
static void discovery_begins_when_it_is_needed(void)
{
    static uint8_t bytes[65536];
    struct head head = {.word = DATA, .index = 0};
    struct fabric_counts counts;

    fabric_counts(fabric, &counts);
    CHECK(counts.begun_ns == 0 || counts.begun_ns >= 100000000);
    meet(); /* all have looked before the first long message */
    if (me == 0) {
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = pattern(0, i);
        memcpy(bytes, &head, sizeof(head));
        must_send(1, bytes, sizeof(bytes));
    }
    while (me == 1 && !data_count)
        serve_once(true);
    if (me < 2) {
        fabric_counts(fabric, &counts);
        printf("rank %u: discovery began after %.1f ms\n", me, (double)counts.begun_ns / 1e6);
        fflush(stdout);
    }
    meet();
    CHECK(fabric_close(fabric, true));
    MPI_Finalize();
    exit(0);
}

/* A last word to somebody whom we do not know yet: the connection is made while the job ends. The judge
 * chooses how far it comes before. */
static void a_last_word_spoils_no_end(uint64_t us)
{
    struct head last = {.word = STREAM};
    uint64_t end = now_ns() + us * 1000;

    meet();
    if (me && me + 1 < ranks)
        must_send(me + 1, &last, sizeof(last));
    while (me && me + 1 < ranks && now_ns() < end)
        serve_once(false);
    CHECK(fabric_close(fabric, true));
    MPI_Finalize();
    exit(0);
}

/* It dies in the middle of what rank 0 reads from it. */
static void a_killed_rank_is_told(void)
{
    uint64_t wanted = 0, end_ns;
    struct head head, anyone = {.word = PONG};

    if (me == ranks - 1)
        grant_to(0, &head);
    if (me == 0)
        serve_until(&grants, 1);
    meet();
    death_ns = now_ns();
    if (me == ranks - 1) {
        while (now_ns() - death_ns < 30000000)
            serve_once(false);
        raise(SIGKILL);
    }
    death_ns += 30000000;
    end_ns = death_ns + 5000000000;
    while (me == 0 && !lost_count && now_ns() < end_ns) {
        enum moray_code code =
            fabric_read(fabric, ranks - 1, &granted[ranks - 1], 0, arena + HALF, HALF, 0);
        CHECK(code == MORAY_OK || code == MORAY_LOST);
        wanted += code == MORAY_OK;
        while (reads_ended < wanted && now_ns() < end_ns)
            serve_once(true);
    }
    CHECK(reads_ended == wanted);
    /* Rank 0 knows at once, the others when they have to do with the dead. */
    while (me && now_ns() < death_ns + 5000000)
        serve_once(false);
    if (me)
        (void)!fabric_send(fabric, ranks - 1, &anyone, sizeof(anyone));
    while (!lost_count && now_ns() < end_ns)
        serve_once(true);
    CHECK(lost_count && lost_rank == ranks - 1);
    CHECK(fabric_send(fabric, ranks - 1, "x", 1) == MORAY_LOST);
    usleep(300000); /* the others shall see it by themselves, not by our end */
    CHECK(!fabric_close(fabric, false));
    _exit(0);
}

/* A rank that hangs in the middle of a read of its memory: given up, it holds nobody. */
static void a_hung_rank_is_given_up(void)
{
    struct head head = {.word = GRANT, .index = (uint64_t)getpid()};
    uint32_t last = ranks - 1, ended = 0;
    struct moray_error error;
    uint64_t start, connected_ns = now_ns() + 100000000;

    while (fabric_expose(fabric, 0, HALF, &head.window, &error) == MORAY_BUSY)
        serve_once(true);
    if (me == last)
        must_send(0, &head, sizeof(head));
    if (me == 0)
        serve_until(&grants, 1);
    meet();
    while (now_ns() < connected_ns) /* who stops before has proven nothing, and is dropped for it */
        serve_once(false);
    if (me == last) /* stops by itself: what it sent is out, what is asked of it is not answered */
        raise(SIGSTOP);
    start = death_ns = now_ns();
    if (me == 0) {
        usleep(100000);
        CHECK(fabric_read(fabric, last, &granted[last], 0, arena + HALF, HALF, 0) == MORAY_OK);
        CHECK(fabric_send(fabric, last, arena, 1 << 20) == MORAY_OK);
        while (now_ns() - start < 300000000)
            serve_once(true);
        CHECK(!lost_count && !reads_ended);
        start = now_ns();
        fabric_fence(fabric, last, "the test says so");
        while ((!lost_count || !reads_ended) && now_ns() - start < 5000000000)
            serve_once(true);
        ended = lost_count && reads_ended == 1;
        kill((pid_t)hung_pid, SIGKILL);
        CHECK(ended);
        printf("rank 0: given up after %.1f ms, buffer %s\n", (double)(now_ns() - start) / 1e6,
               posted_reads ? "kept aside" : "free");
        fflush(stdout);
    }
    while (me && now_ns() - start < 8000000000 && !lost_count)
        serve_once(true);
    CHECK(!fabric_close(fabric, false));
    _exit(0);
}

/* ---- A rank ---- */

static enum moray_code allgather(void *context, const void *mine, size_t bytes, void *all)
{
    (void)context;
    return MPI_Allgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, MPI_COMM_WORLD)
               ? MORAY_SYSTEM
               : MORAY_OK;
}

static enum moray_code broadcast(void *context, uint32_t root, void *data, size_t bytes)
{
    (void)context;
    return MPI_Bcast(data, (int)bytes, MPI_BYTE, (int)root, MPI_COMM_WORLD) ? MORAY_SYSTEM
                                                                            : MORAY_OK;
}

static int rank_main(const char *kind, const char *what)
{
    struct fabric_options options = {.kind = strcmp(kind, "mpi") ? FABRIC_OFI : FABRIC_MPI,
                                     .one_host = !getenv("FABRIC_HOSTS"),
                                     .interface = getenv("FABRIC_INTERFACE"),
                                     .provider = getenv("FABRIC_PROVIDER"),
                                     .bootstrap = {NULL, allgather, broadcast}};
    struct epoll_event event = {.events = EPOLLIN};
    struct fabric_counts counts;
    struct moray_error error = {0};
    int level, rank, count;

    fabric_environment(options.provider);
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &count);
    me = options.rank = (uint32_t)rank;
    ranks = options.rank_count = (uint32_t)count;
    arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(arena != MAP_FAILED && ranks <= RANKS_MAX);
    options.arena = arena;
    options.arena_bytes = ARENA_BYTES;
    uint64_t start = now_ns();
    if (fabric_open(&options, &fabric, &error) != MORAY_OK) {
        fprintf(stderr, "rank %u: %s\n", me, error.text);
        return 1;
    }
    say("open took %.1f ms\n", (double)(now_ns() - start) / 1e6);
    epoll_fd = epoll_create1(0);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fabric_fd(fabric), &event);
    meet();
    say("first meeting after %.1f ms\n", (double)(now_ns() - start) / 1e6);
    if (strcmp(what, "death") == 0)
        a_killed_rank_is_told();
    if (strcmp(what, "hang") == 0)
        a_hung_rank_is_given_up();
    if (strcmp(what, "need") == 0)
        discovery_begins_when_it_is_needed();
    if (strncmp(what, "last:", 5) == 0)
        a_last_word_spoils_no_end(strtoull(what + 5, NULL, 10));
    a_first_read_needs_no_patience();
    say("first read after %.1f ms", (double)(now_ns() - start) / 1e6);
    fabric_counts(fabric, &counts);
    say(", discovery took %.1f ms\n", (double)counts.ready_ns / 1e6);
    messages_of_all_lengths();
    say("messages: right\n", 0);
    reads_of_all_lengths();
    say("reads: right\n", 0);
    batches_pass_quickly();
    trips("round trip, back to back: %.1f us\n", 0);
    trips("round trip, 5 ms apart: %.1f us\n", 5000);
    idle_costs_nothing();
    if (me == 0)
        printf("%s\n", fabric_text(fabric));
    CHECK(fabric_close(fabric, true));
    MPI_Finalize();
    say("clean end\n", 0);
    return 0;
}

/* ---- The judge ---- */

/* Runs `mpirun -n RANKS self KIND what`; returns its status and what it printed. */
static int launch(const char *self, const char *kind, const char *count, const char *what,
                  char *text, size_t bytes)
{
    char command[1024];
    size_t used = 0, had;
    FILE *pipe;

    snprintf(command, sizeof(command),
             "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 timeout -s KILL 170 mpirun "
             "--oversubscribe --bind-to none -n %s '%s' %s %s 2>&1",
             count, self, kind, what);
    pipe = popen(command, "r");
    while ((had = fread(text + used, 1, bytes - 1 - used, pipe)) > 0)
        used += had;
    text[used] = 0;
    fputs(text, stdout);
    return pclose(pipe);
}

static int judge(const char *self, const char *kind, const char *count)
{
    static char text[1 << 16];
    int told = 0, bad = 0;

    if (launch(self, kind, count, "all", text, sizeof(text)) != 0 || !strstr(text, "clean end")) {
        printf("FAILED: %s with %s ranks\n", kind, count);
        bad = 1;
    }
    launch(self, kind, count, "death", text,
           sizeof(text)); /* its status is the launcher's affair */
    for (const char *at = text; (at = strstr(at, "told after ")); at++) {
        told++;
        if (strtod(at + strlen("told after "), NULL) > 2000)
            bad = 1;
    }
    if (told != atoi(count) - 1) {
        printf("FAILED: %d of %d ranks told the death\n", told, atoi(count) - 1);
        bad = 1;
    }
    launch(self, kind, count, "hang", text, sizeof(text));
    if (!strstr(text, "given up after ")) {
        printf("FAILED: a hung rank was not given up\n");
        bad = 1;
    }
    return bad;
}

static int judge_need(const char *self, const char *count)
{
    static char text[1 << 16];
    static const char began[] = "discovery began after ";

    for (int tries = 0; tries < 5; tries++) {
        int early = 0;
        if (launch(self, "ofi", count, "need", text, sizeof(text)) != 0)
            break;
        for (const char *at = text; (at = strstr(at, began)); at++)
            early += strtod(at + strlen(began), NULL) < 100;
        if (early == 2)
            return 0;
    }
    printf("FAILED: discovery did not begin when it was needed, or before\n");
    return 1;
}

static int judge_last(const char *self, const char *kind, const char *count)
{
    static char text[1 << 16];
    char what[32];
    int failed = 0;

    for (int us = 0; us < 500; us += 50) {
        snprintf(what, sizeof(what), "last:%d", us);
        failed += launch(self, kind, count, what, text, sizeof(text)) != 0;
    }
    if (failed)
        printf("FAILED: %d of 10 jobs in which a last word was said\n", failed);
    return failed != 0;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: fabric ofi|mpi RANKS\n");
        return 2;
    }
    if (getenv("OMPI_COMM_WORLD_RANK"))
        return rank_main(argv[1], argv[2]);
    return judge(argv[0], argv[1], argv[2]) | judge_last(argv[0], argv[1], argv[2]) |
           (strcmp(argv[1], "ofi") || getenv("FABRIC_PROVIDER") ? 0 : judge_need(argv[0], argv[2]));
}
