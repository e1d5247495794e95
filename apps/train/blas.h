/**
 * Fixes what OpenBLAS computes with: one thread, and a kernel that common processors share.
 *
 * OpenBLAS picks a kernel by the processor, and each rounds differently; OPENBLAS_CORETYPE fixes it
 * but is read before main(). So the program sets it and executes itself again, once, with the same
 * process number, arguments and descriptors: no launcher notices. One thread, because the tasks are
 * the parallelism (and a thread made before moray_init() would be one too many).
 */
#ifndef TRAIN_BLAS_H
#define TRAIN_BLAS_H

/** Executes the program again if the kernel or the number of threads is not set as it must be.
 *  Call it first in main(). What the user set in OPENBLAS_CORETYPE is kept.
 *  Errors: -1, told to the user, if the program cannot be executed. */
int blas_fix(char **argv);

/** The name of the kernel in use; static. */
const char *blas_kernel(void);

#endif
