/**
 * Environments of ranks, recorded from Open MPI 4.1.4 and Slurm 22.05 on a machine of two cores, cut
 * to what matters. Those marked "by the manual" were not recorded.
 */
#ifndef MORAY_TESTS_LAUNCH_ENVIRONMENTS_H
#define MORAY_TESTS_LAUNCH_ENVIRONMENTS_H

#define ENVIRONMENT(name) static char *const environment_##name[]

#define MPIRUN(rank, count, local_rank, local_count, job, key)                               \
    "OMPI_COMM_WORLD_RANK=" rank, "OMPI_COMM_WORLD_SIZE=" count,                             \
        "OMPI_COMM_WORLD_LOCAL_RANK=" local_rank, "OMPI_COMM_WORLD_LOCAL_SIZE=" local_count, \
        "OMPI_COMM_WORLD_NODE_RANK=" local_rank, "OMPI_MCA_ess_base_jobid=" job,             \
        "PMIX_NAMESPACE=" job, "PMIX_RANK=" rank, "OMPI_MCA_orte_precondition_transports=" key

#define KEY_A "f3e6c3fb7c52443d-7d0ef5db6e72f66b"
#define KEY_B "f135840bdba476ef-adc23e8751746319"
#define ON_VM \
    "PMIX_HOSTNAME=vm", "OMPI_MCA_orte_local_daemon_uri=2037972992.0;tcp://192.0.2.2:57227"
#define BOUND "OMPI_MCA_orte_bound_at_launch=1"

ENVIRONMENT(none) = {"HOME=/root", "PATH=/bin", (char *)0};

ENVIRONMENT(mpirun_n2) = {MPIRUN("1", "2", "1", "2", "2037121025", KEY_B), ON_VM, BOUND,
                          "OMPI_MCA_mpi_oversubscribe=0", (char *)0};

ENVIRONMENT(mpirun_oversubscribe_n4) = {MPIRUN("3", "4", "3", "4", "2036400129", KEY_A), ON_VM,
                                        "OMPI_MCA_mpi_oversubscribe=1",
                                        "OMPI_MCA_rmaps_base_oversubscribe=1", (char *)0};

/* --host localhost:4 -n 4 */
ENVIRONMENT(mpirun_host_n4) = {MPIRUN("0", "4", "0", "4", "2035154945", KEY_A), ON_VM,
                               "OMPI_MCA_mpi_oversubscribe=0", "OMPI_UNIVERSE_SIZE=4", (char *)0};

ENVIRONMENT(mpirun_bind_core_n2) = {MPIRUN("0", "2", "0", "2", "2033188865", KEY_A), ON_VM, BOUND,
                                    "OMPI_MCA_hwloc_base_binding_policy=core", (char *)0};

ENVIRONMENT(mpirun_bind_none_n2) = {MPIRUN("0", "2", "0", "2", "2034171905", KEY_A), ON_VM,
                                    "OMPI_MCA_hwloc_base_binding_policy=none", (char *)0};

/* --map-by slot:PE=2, by the manual */
ENVIRONMENT(mpirun_pe) = {MPIRUN("0", "1", "0", "1", "2032467969", KEY_A), ON_VM, BOUND,
                          "OMPI_MCA_rmaps_base_mapping_policy=slot:PE=2", (char *)0};

ENVIRONMENT(mpirun_cpus_per_rank) = {MPIRUN("0", "1", "0", "1", "2032467969", KEY_A), ON_VM, BOUND,
                                     "OMPI_MCA_rmaps_base_cpus_per_rank=1", (char *)0};

/* Two containers of one host name. */
ENVIRONMENT(mpirun_two_nodes_a) = {MPIRUN("0", "2", "0", "1", "77", KEY_A), "PMIX_HOSTNAME=box",
                                   "OMPI_MCA_orte_local_daemon_uri=76.0;tcp://192.0.2.2:57227",
                                   (char *)0};
ENVIRONMENT(mpirun_two_nodes_b) = {MPIRUN("1", "2", "0", "1", "77", KEY_A), "PMIX_HOSTNAME=box",
                                   "OMPI_MCA_orte_local_daemon_uri=76.1;tcp://192.0.2.3:57227",
                                   (char *)0};

/* mpirun starts its daemons by srun, whose variables the ranks inherit. */
ENVIRONMENT(mpirun_in_slurm) = {MPIRUN("2", "4", "0", "2", "99", KEY_A),
                                "PMIX_HOSTNAME=n2",
                                "OMPI_MCA_orte_local_daemon_uri=98.1;tcp://127.0.0.1:5",
                                "SLURM_JOB_ID=17",
                                "SLURM_STEP_ID=0",
                                "SLURM_PROCID=1",
                                "SLURM_LOCALID=0",
                                "SLURM_NODEID=1",
                                "SLURM_STEP_NUM_TASKS=2",
                                "SLURM_STEP_TASKS_PER_NODE=1(x2)",
                                "SLURMD_NODENAME=n2",
                                (char *)0};

#define SRUN                                                                                     \
    "SLURM_JOB_ID=17", "SLURM_STEP_ID=0", "SLURM_PROCID=6", "SLURM_LOCALID=0", "SLURM_NODEID=3", \
        "SLURM_STEP_NUM_TASKS=8", "SLURM_NTASKS=8", "SLURM_STEP_TASKS_PER_NODE=2(x3),1,1",       \
        "SLURMD_NODENAME=n4", "SLURM_CPUS_PER_TASK=2"

ENVIRONMENT(srun) = {SRUN, "PMIX_RANK=6", "PMIX_NAMESPACE=slurm.pmix.17.0", (char *)0};

/* TaskPlugin=task/affinity, by the manual */
ENVIRONMENT(srun_bound) = {SRUN, "PMIX_RANK=6",
                           "SLURM_CPU_BIND_TYPE=mask_cpu:", "SLURM_CPU_BIND=quiet,mask_cpu:0xC",
                           (char *)0};

ENVIRONMENT(srun_no_pmix) = {SRUN, (char *)0};

/* ./app in a batch script, outside srun */
ENVIRONMENT(sbatch_shell) = {"SLURM_JOB_ID=18",    "SLURM_PROCID=0", "SLURM_LOCALID=0",
                             "SLURM_NODEID=0",     "SLURM_NTASKS=4", "SLURM_TASKS_PER_NODE=2(x2)",
                             "SLURMD_NODENAME=n1", (char *)0};

ENVIRONMENT(bad_number) = {MPIRUN("x", "2", "0", "2", "1", KEY_A), ON_VM, (char *)0};
ENVIRONMENT(bad_rank) = {MPIRUN("2", "2", "0", "2", "1", KEY_A), ON_VM, (char *)0};
ENVIRONMENT(bad_missing) = {"OMPI_COMM_WORLD_RANK=0", (char *)0};
ENVIRONMENT(bad_huge) = {MPIRUN("0", "99999999999999999999", "0", "2", "1", KEY_A), ON_VM,
                         (char *)0};

#endif
