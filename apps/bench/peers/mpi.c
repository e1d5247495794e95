/**
 * The peer mpi: how soon a bare MPI program is there. Init and one Allreduce with the settings that
 * Moray makes; rank 0 tells the time on the monotonic clock.
 */
#include "bare.h"

int main(int argc, char **argv)
{
    int level, rank, one = 1, sum = 0, count;

    bare_environment();
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &count);
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (rank == 0) {
        printf("value=%.9f\n", (double)bare_now_ns() / 1e9);
        fflush(stdout);
    }
    MPI_Finalize();
    return sum != count;
}
