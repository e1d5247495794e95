/**
 * Three ranks of which two share memory and one does not, as on two hosts: what one of the two holds
 * is read in place by the other, though the third told it where that is; and the third fetches it.
 * Run on 3 ranks. The launcher's words are changed before Moray reads them: rank 0 is told that it is
 * alone on its host, and that ranks 1 and 2 are on another.
 */
#include "law.h"

enum { MIB = 1 << 20 };

MORAY_TASK(moray_buffer, filled, (uint64_t, size), (int32_t, byte))
{
    moray_buffer buffer = moray_result(size);

    if (buffer.data)
        memset(buffer.data, byte, size);
    return buffer;
}

/* How many bytes of it are what they should be. */
MORAY_TASK(int64_t, right, (moray_view, bytes), (int32_t, byte))
{
    int64_t count = 0;

    for (size_t i = 0; i < bytes.size; i++)
        count += ((const unsigned char *)bytes.data)[i] == byte;
    return count;
}

static int64_t right_at(int32_t rank, moray_ref ref, int32_t byte)
{
    return moray_take_as(int64_t, moray_call_with((.on_rank = 1 + rank), right, ref, byte));
}

static void a_third_rank_tells_where_bytes_lie(void)
{
    for (int32_t holder = 1; holder <= 2; holder++) {
        moray_ref ref = moray_call_with((.on_rank = 1 + holder), filled, (uint64_t)MIB, 7);
        size_t ready;
        DEMAND_OK(moray_wait(&ref, 1, 1, NULL, &ready, NULL, NULL, 0, 0));
        DEMAND_SAME(right_at(holder, ref, 7), MIB);
        DEMAND_SAME(right_at(3 - holder, ref, 7), MIB);
        DEMAND_SAME(right_at(0, ref, 7), MIB);
        DEMAND_SAME(right_at(3 - holder, ref, 7), MIB);
        DEMAND_OK(moray_release(ref));
    }
}

static const struct law laws[] = {
    {"line 11: bytes of one rank of a host are read in place by another, though a rank elsewhere "
     "told "
     "where they lie",
     a_third_rank_tells_where_bytes_lie, 30},
};

int main(int argc, char **argv)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    bool is_first = rank && strcmp(rank, "0") == 0, is_last = rank && strcmp(rank, "2") == 0;

    setenv("OMPI_COMM_WORLD_LOCAL_SIZE", is_first ? "1" : "2", 1);
    setenv("OMPI_COMM_WORLD_LOCAL_RANK", is_last ? "1" : "0", 1);
    setenv("OMPI_MCA_orte_local_daemon_uri", is_first ? "1.1;" : "1.2;", 1);
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
