/**
 * The bare fabric of two ranks, for the peers of the benchmarks: what a program without any runtime
 * would do over the same provider with the same settings. No checks of secrets, no queues, no order.
 * A failure prints and aborts the job: these programs are measured, not used.
 */
#ifndef MORAY_BENCH_BARE_H
#define MORAY_BENCH_BARE_H

#include <mpi.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#define MUST(condition)                                                     \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            MPI_Abort(MPI_COMM_WORLD, 1);                                   \
        }                                                                   \
    } while (0)

struct bare {
    bool mpi; /* else libfabric */
    int rank, peer;
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_av *av;
    struct fid_cq *cq;
    struct fid_ep *ep;
    fi_addr_t address; /* of the peer */
    int fd;            /* the queue's, or with MPI the bell: a TCP connection between the two */
};

static inline uint64_t bare_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* "--name value" among the arguments, or `otherwise`. */
static inline const char *bare_option(int argc, char **argv, const char *name,
                                      const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return otherwise;
}

/* The settings that Moray's fabric makes too (runtime/fabric, fabric_environment). */
static inline void bare_environment(void)
{
    static const char *const pairs[][2] = {
        {"OMPI_MCA_pml", "ob1"},
        {"OMPI_MCA_osc", "pt2pt"},
        {"FI_PROVIDER", "tcp"},
        {"FI_OFI_RXM_BUFFER_SIZE", "2048"},
        {"FI_OFI_RXM_EAGER_LIMIT", "66048"},
        {"FI_OFI_RXM_RX_SIZE", "256"},
        {"FI_OFI_RXM_TX_SIZE", "256"},
        {"FI_OFI_RXM_MSG_RX_SIZE", "32"},
        {"FI_OFI_RXM_MSG_TX_SIZE", "32"},
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++)
        setenv(pairs[i][0], pairs[i][1], 0);
}

static inline void bare_open_ofi(struct bare *bare, const char *ip)
{
    struct fi_info *hints = fi_allocinfo();
    struct fi_cq_attr cq = {.format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_FD};
    struct fi_av_attr av = {.type = FI_AV_UNSPEC};
    uint8_t names[2][256] = {{0}}, name[256] = {0};
    size_t bytes = sizeof(name);

    hints->caps = FI_MSG | FI_RMA;
    hints->mode = FI_CONTEXT | FI_CONTEXT2;
    hints->ep_attr->type = FI_EP_RDM;
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->fabric_attr->prov_name = strdup("tcp;ofi_rxm");
    MUST(fi_getinfo(FI_VERSION(1, 17), ip, NULL, FI_SOURCE, hints, &bare->info) == 0);
    fi_freeinfo(hints);
    MUST(fi_fabric(bare->info->fabric_attr, &bare->fabric, NULL) == 0);
    MUST(fi_domain(bare->fabric, bare->info, &bare->domain, NULL) == 0);
    MUST(fi_cq_open(bare->domain, &cq, &bare->cq, NULL) == 0);
    MUST(fi_av_open(bare->domain, &av, &bare->av, NULL) == 0);
    MUST(fi_endpoint(bare->domain, bare->info, &bare->ep, NULL) == 0);
    MUST(fi_ep_bind(bare->ep, &bare->av->fid, 0) == 0);
    MUST(fi_ep_bind(bare->ep, &bare->cq->fid, FI_TRANSMIT | FI_RECV) == 0);
    MUST(fi_enable(bare->ep) == 0);
    MUST(fi_getname(&bare->ep->fid, name, &bytes) == 0);
    MUST(fi_control(&bare->cq->fid, FI_GETWAIT, &bare->fd) == 0);
    MPI_Allgather(name, sizeof(name), MPI_BYTE, names, sizeof(name), MPI_BYTE, MPI_COMM_WORLD);
    MUST(fi_av_insert(bare->av, names[bare->peer], 1, &bare->address, 0, NULL) == 1);
}

static inline void bare_open_bell(struct bare *bare, const char *ip)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t bytes = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;

    MUST(inet_pton(AF_INET, ip, &at.sin_addr) == 1);
    MUST(bind(listener, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(listener, 1) == 0);
    MUST(getsockname(listener, (struct sockaddr *)&at, &bytes) == 0);
    MPI_Bcast(&at, sizeof(at), MPI_BYTE, 0, MPI_COMM_WORLD);
    if (bare->rank == 0) {
        bare->fd = accept(listener, NULL, NULL);
    } else {
        bare->fd = socket(AF_INET, SOCK_STREAM, 0);
        MUST(connect(bare->fd, (struct sockaddr *)&at, sizeof(at)) == 0);
    }
    MUST(bare->fd >= 0);
    setsockopt(bare->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    close(listener);
}

/* Starts MPI and the fabric; `--fabric ofi|mpi`, `--address IP` (default: loopback). */
static inline void bare_open(struct bare *bare, int argc, char **argv)
{
    const char *ip = bare_option(argc, argv, "--address", "127.0.0.1");
    int level, count;

    memset(bare, 0, sizeof(*bare));
    bare->mpi = strcmp(bare_option(argc, argv, "--fabric", "ofi"), "mpi") == 0;
    bare_environment();
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &bare->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &count);
    MUST(count == 2);
    bare->peer = 1 - bare->rank;
    if (bare->mpi)
        bare_open_bell(bare, ip);
    else
        bare_open_ofi(bare, ip);
}

#endif
