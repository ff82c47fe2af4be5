// cuTT's interface, as far as Jittor's transposes call it. The first dimension is the fastest.
#pragma once
#include <cuda_runtime.h>
typedef unsigned int cuttHandle;
typedef enum { CUTT_SUCCESS, CUTT_INVALID_PLAN, CUTT_INVALID_PARAMETER } cuttResult;
cuttResult cuttPlan(cuttHandle* plan, int rank, int* dim, int* permutation, size_t item, cudaStream_t);
cuttResult cuttExecute(cuttHandle plan, void* from, void* to);
cuttResult cuttDestroy(cuttHandle plan);
