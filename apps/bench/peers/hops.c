/**
 * The peer of task.round_trip_across: the hops of a task there and back, by four bare processes.
 *
 *     rank 0:  driver ──futex──▶ agent ══128 bytes══▶ rank 1:  agent ──futex──▶ worker
 *     rank 0:  driver ◀──futex── agent ◀══128 bytes══ rank 1:  agent ◀──futex── worker
 *
 *     mpirun -n 2 hops --fabric ofi|mpi --spin US --gap MS --trips N [--address IP]
 * Each process waits by looking for US microseconds and then sleeps: on a futex, on libfabric's
 * descriptor, or with MPI on a bell, one byte over TCP, that is left out where the other is sure to
 * look still. Prints one line: "us=MEDIAN mean=… min=… max=… trips=N".
 */
#include "bare.h"

#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { MESSAGE_BYTES = 128, WARM_UP = 50 };

/* One direction between two processes of a rank. */
struct slot {
    _Alignas(64) _Atomic uint32_t turn; /* counts messages: even before, odd after … by one each */
    _Atomic uint32_t sleeping;
    uint8_t bytes[MESSAGE_BYTES];
};

struct shared {
    struct slot down,
        up; /* to the child and back (rank 0: child is the driver, so up comes first) */
    _Atomic uint32_t stop;
};

static uint64_t spin_ns;

static void slot_give(struct slot *slot, const uint8_t bytes[MESSAGE_BYTES])
{
    memcpy(slot->bytes, bytes, MESSAGE_BYTES);
    atomic_fetch_add(&slot->turn, 1);
    if (atomic_load(&slot->sleeping))
        syscall(SYS_futex, &slot->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Waits for the turn after `*seen`. */
static void slot_take(struct slot *slot, uint32_t *seen, uint8_t bytes[MESSAGE_BYTES])
{
    uint64_t end_ns = spin_ns ? bare_now_ns() + spin_ns : 0;

    while (atomic_load(&slot->turn) == *seen) {
        if (end_ns && bare_now_ns() < end_ns)
            continue;
        atomic_store(&slot->sleeping, 1);
        if (atomic_load(&slot->turn) == *seen)
            syscall(SYS_futex, &slot->turn, FUTEX_WAIT, *seen, &(struct timespec){.tv_sec = 1},
                    NULL, 0);
        atomic_store(&slot->sleeping, 0);
    }
    (*seen)++;
    memcpy(bytes, slot->bytes, MESSAGE_BYTES);
}

/* ---- Between the agents ---- */

struct wire {
    struct bare bare;
    struct fi_context2 send, receive;
    uint8_t in[MESSAGE_BYTES], out[MESSAGE_BYTES];
    MPI_Request in_request;
    uint64_t heard_ns; /* when the peer's last message came */
};

static void wire_receive(struct wire *wire)
{
    if (wire->bare.mpi)
        MPI_Irecv(wire->in, MESSAGE_BYTES, MPI_BYTE, wire->bare.peer, 0, MPI_COMM_WORLD,
                  &wire->in_request);
    else
        MUST(fi_recv(wire->bare.ep, wire->in, MESSAGE_BYTES, NULL, FI_ADDR_UNSPEC,
                     &wire->receive) == 0);
}

/* Takes completions; returns whether the message has come. */
static bool wire_came(struct wire *wire)
{
    struct fi_cq_entry entry;
    int done = 0;

    if (wire->bare.mpi) {
        MPI_Test(&wire->in_request, &done, MPI_STATUS_IGNORE);
        return done;
    }
    ssize_t count = fi_cq_read(wire->bare.cq, &entry, 1);
    MUST(count == 1 || count == -FI_EAGAIN);
    return count == 1 && entry.op_context == &wire->receive;
}

static void wire_sleep(struct wire *wire)
{
    struct fid *queue = wire->bare.mpi ? NULL : &wire->bare.cq->fid;
    struct pollfd wait = {.fd = wire->bare.fd, .events = POLLIN};
    uint8_t bells[64];

    if (queue && fi_trywait(wire->bare.fabric, &queue, 1) != 0)
        return;
    poll(&wait, 1, wire->bare.mpi ? 2 : 1000); /* 2 ms: a bell was left out, and we were late */
    if (wire->bare.mpi && (wait.revents & POLLIN))
        MUST(recv(wire->bare.fd, bells, sizeof(bells), MSG_DONTWAIT) != 0);
}

static void wire_take(struct wire *wire, uint8_t bytes[MESSAGE_BYTES])
{
    uint64_t end_ns = spin_ns ? bare_now_ns() + spin_ns : 0;

    while (!wire_came(wire))
        if (!end_ns || bare_now_ns() >= end_ns)
            wire_sleep(wire);
    memcpy(bytes, wire->in, MESSAGE_BYTES);
    wire->heard_ns = bare_now_ns();
    wire_receive(wire);
}

static void wire_give(struct wire *wire, const uint8_t bytes[MESSAGE_BYTES])
{
    ssize_t result;

    memcpy(wire->out, bytes, MESSAGE_BYTES);
    if (wire->bare.mpi) {
        MPI_Send(wire->out, MESSAGE_BYTES, MPI_BYTE, wire->bare.peer, 0, MPI_COMM_WORLD);
        if (bare_now_ns() - wire->heard_ns >= spin_ns / 2)
            MUST(send(wire->bare.fd, "", 1, MSG_NOSIGNAL) == 1);
        return;
    }
    while ((result = fi_send(wire->bare.ep, wire->out, MESSAGE_BYTES, NULL, wire->bare.address,
                             &wire->send)) == -FI_EAGAIN)
        MUST(!wire_came(wire)); /* it connects: let it */
    MUST(result == 0);
}

/* ---- The four ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void driver(struct shared *shared, int trips, useconds_t gap_us)
{
    uint8_t bytes[MESSAGE_BYTES] = {0};
    double *us = calloc((size_t)trips, sizeof(*us)), sum = 0;
    uint32_t seen = 0;

    for (int i = -WARM_UP; i < trips; i++) {
        if (gap_us)
            usleep(gap_us);
        uint64_t start = bare_now_ns();
        bytes[1] = (uint8_t)i;
        slot_give(&shared->up, bytes);
        slot_take(&shared->down, &seen, bytes);
        if (i >= 0)
            sum += us[i] = (double)(bare_now_ns() - start) / 1e3;
    }
    bytes[0] = 1; /* the end goes the same way, there and back */
    slot_give(&shared->up, bytes);
    slot_take(&shared->down, &seen, bytes);
    qsort(us, (size_t)trips, sizeof(*us), by_value);
    printf("us=%.2f mean=%.2f min=%.2f max=%.2f\n", us[trips / 2], sum / trips, us[0],
           us[trips - 1]);
    fflush(stdout);
}

static void worker(struct shared *shared)
{
    uint8_t bytes[MESSAGE_BYTES] = {0};
    uint32_t seen = 0;

    do {
        slot_take(&shared->down, &seen, bytes);
        slot_give(&shared->up, bytes);
    } while (!bytes[0]);
}

static void agent(struct wire *wire, struct shared *shared)
{
    uint8_t bytes[MESSAGE_BYTES] = {0};
    uint32_t seen = 0;

    do {
        if (wire->bare.rank == 0) {
            slot_take(&shared->up, &seen, bytes);
            wire_give(wire, bytes);
            wire_take(wire, bytes);
            slot_give(&shared->down, bytes);
        } else {
            wire_take(wire, bytes);
            slot_give(&shared->down, bytes);
            slot_take(&shared->up, &seen, bytes);
            wire_give(wire, bytes);
        }
    } while (!bytes[0]);
}

int main(int argc, char **argv)
{
    const char *local = getenv("OMPI_COMM_WORLD_RANK");
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int trips = atoi(bare_option(argc, argv, "--trips", "200"));
    static struct wire wire;
    pid_t parent = getpid(), child;

    if (!local || shared == MAP_FAILED || trips < 1) {
        fprintf(stderr, "usage: mpirun -n 2 hops [--fabric ofi|mpi] [--spin US] [--gap MS] "
                        "[--trips N] [--address IP]\n");
        return 2;
    }
    spin_ns = strtoull(bare_option(argc, argv, "--spin", "20"), NULL, 10) * 1000;
    child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        if (atoi(local) == 0)
            driver(shared, trips, (useconds_t)atoi(bare_option(argc, argv, "--gap", "0")) * 1000);
        else
            worker(shared);
        _exit(0);
    }
    bare_open(&wire.bare, argc, argv);
    wire_receive(&wire);
    MPI_Barrier(MPI_COMM_WORLD);
    agent(&wire, shared);
    waitpid(child, NULL, 0);
    if (wire.bare.mpi) {
        MPI_Cancel(&wire.in_request);
        MPI_Request_free(&wire.in_request);
    }
    MPI_Finalize();
    return 0;
}
