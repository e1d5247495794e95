/**
 * The peer of fetch.large: how fast the bare fabric reads one rank's memory from another.
 *
 *     mpirun -n 2 fetch --fabric ofi|mpi [--bytes N] [--piece N] [--pieces N] [--runs N] [--address IP]
 * Rank 0 reads from rank 1 in pieces, several in flight (fi_read, or MPI_Rget in a window locked for
 * all time); rank 1 only makes progress. Both memories are touched before. Without --piece and
 * --pieces it tries several and reports the best. Prints one line:
 * "gbps=MEDIAN min=… max=… runs=N piece=… pieces=…" (GB of 10^9 bytes a second).
 */
#include "bare.h"

#include <sys/mman.h>

enum { PIECES_MAX = 64, RUNS_MAX = 100 };

struct remote {
    uint64_t address, key;
};

static struct bare bare;
static uint8_t *memory;
static uint64_t bytes;
static struct fid_mr *mr;
static struct remote remote;
static MPI_Win window;

static void memory_open(void)
{
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(memory != MAP_FAILED);
    memset(memory, bare.rank ? 0x5a : 0, bytes);
    if (bare.mpi) {
        MUST(MPI_Win_create(memory, (MPI_Aint)bytes, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &window) ==
             MPI_SUCCESS);
        MPI_Win_lock_all(MPI_MODE_NOCHECK, window);
        return;
    }
    MUST(fi_mr_reg(bare.domain, memory, bytes, FI_REMOTE_READ | FI_READ, 0, 7, 0, &mr, NULL) == 0);
    remote.key = fi_mr_key(mr);
    MPI_Bcast(&remote, sizeof(remote), MPI_BYTE, 1, MPI_COMM_WORLD);
}

static void read_ofi(uint64_t piece, uint64_t pieces)
{
    static struct fi_context2 contexts[PIECES_MAX];
    struct fi_context2 *spare[PIECES_MAX];
    struct fi_cq_entry entries[16];
    uint64_t posted = 0, done = 0, count = (bytes + piece - 1) / piece, free_count = 0;

    for (; free_count < pieces; free_count++)
        spare[free_count] = &contexts[free_count];
    while (done < count) {
        while (free_count && posted < count) {
            uint64_t offset = posted * piece,
                     part = bytes - offset < piece ? bytes - offset : piece;
            ssize_t result = fi_read(bare.ep, memory + offset, part, NULL, bare.address,
                                     remote.address + offset, remote.key, spare[free_count - 1]);
            MUST(result == 0 || result == -FI_EAGAIN);
            if (result)
                break;
            free_count--;
            posted++;
        }
        ssize_t had = fi_cq_read(bare.cq, entries, 16);
        MUST(had > 0 || had == -FI_EAGAIN);
        for (ssize_t i = 0; i < had; i++, done++)
            spare[free_count++] = entries[i].op_context;
    }
}

static void read_mpi(uint64_t piece, uint64_t pieces)
{
    MPI_Request requests[PIECES_MAX];
    uint64_t posted = 0, done = 0, count = (bytes + piece - 1) / piece;
    int index, found;

    for (uint64_t i = 0; i < pieces; i++)
        requests[i] = MPI_REQUEST_NULL;
    for (index = 0; posted < count && posted < pieces; posted++, index++)
        MPI_Rget(memory + posted * piece, (int)piece, MPI_BYTE, 1, (MPI_Aint)(posted * piece),
                 (int)piece, MPI_BYTE, window, &requests[index]);
    while (done < count) {
        MPI_Testany((int)pieces, requests, &index, &found, MPI_STATUS_IGNORE);
        if (!found || index == MPI_UNDEFINED)
            continue;
        done++;
        if (posted < count) {
            MPI_Rget(memory + posted * piece, (int)piece, MPI_BYTE, 1, (MPI_Aint)(posted * piece),
                     (int)piece, MPI_BYTE, window, &requests[index]);
            posted++;
        }
    }
}

/* Rank 1: progress until rank 0 has enough. */
static void serve(void)
{
    MPI_Request end;
    struct fi_cq_entry entry;
    int done = 0;

    MPI_Ibarrier(MPI_COMM_WORLD, &end);
    while (!done) {
        for (int i = 0; !bare.mpi && i < 100; i++)
            MUST(fi_cq_read(bare.cq, &entry, 1) == -FI_EAGAIN);
        MPI_Test(&end, &done, MPI_STATUS_IGNORE);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double measure(uint64_t piece, uint64_t pieces, int runs, double *least, double *most)
{
    double rates[RUNS_MAX];

    for (int run = -1; run < runs; run++) { /* the first warms up */
        uint64_t start = bare_now_ns();
        bare.mpi ? read_mpi(piece, pieces) : read_ofi(piece, pieces);
        if (run >= 0)
            rates[run] = (double)bytes / (double)(bare_now_ns() - start);
    }
    MUST(memory[0] == 0x5a && memory[bytes - 1] == 0x5a && memory[bytes / 2] == 0x5a);
    qsort(rates, (size_t)runs, sizeof(*rates), by_value);
    *least = rates[0];
    *most = rates[runs - 1];
    return rates[runs / 2];
}

static void report(uint64_t piece, uint64_t pieces, int runs)
{
    static const uint64_t tried[][2] = {
        {256 << 10, 16}, {1 << 20, 4}, {1 << 20, 8}, {4 << 20, 4}, {16 << 20, 2}};
    double least, most, rate, best = 0;

    for (size_t i = 0; !piece && i < sizeof(tried) / sizeof(*tried); i++) {
        rate = measure(tried[i][0], tried[i][1], 3, &least, &most);
        if (rate <= best)
            continue;
        best = rate;
        pieces = i;
    }
    if (!piece) {
        piece = tried[pieces][0];
        pieces = tried[pieces][1];
    }
    rate = measure(piece, pieces, runs, &least, &most);
    printf("gbps=%.3f min=%.3f max=%.3f runs=%d piece=%llu pieces=%llu\n", rate, least, most, runs,
           (unsigned long long)piece, (unsigned long long)pieces);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    uint64_t piece = strtoull(bare_option(argc, argv, "--piece", "0"), NULL, 10);
    uint64_t pieces = strtoull(bare_option(argc, argv, "--pieces", "8"), NULL, 10);
    int runs = atoi(bare_option(argc, argv, "--runs", "7"));
    MPI_Request end;

    bytes = strtoull(bare_option(argc, argv, "--bytes", "268435456"), NULL, 10);
    if (!getenv("OMPI_COMM_WORLD_RANK") || bytes < 16 << 20 || bytes % (16 << 20) || pieces < 1 ||
        pieces > PIECES_MAX || runs < 1 || runs > RUNS_MAX || (piece && bytes % piece)) {
        fprintf(stderr, "usage: mpirun -n 2 fetch [--fabric ofi|mpi] [--bytes N (of 16 MiB)] "
                        "[--piece N] [--pieces N] [--runs N] [--address IP]\n");
        return 2;
    }
    bare_open(&bare, argc, argv);
    memory_open();
    MPI_Barrier(MPI_COMM_WORLD);
    if (bare.rank == 0) {
        report(piece, pieces, runs);
        MPI_Ibarrier(MPI_COMM_WORLD, &end);
        MPI_Wait(&end, MPI_STATUS_IGNORE);
    } else {
        serve();
    }
    if (bare.mpi) {
        MPI_Win_unlock_all(window);
        MPI_Win_free(&window);
    }
    MPI_Finalize();
    return 0;
}
