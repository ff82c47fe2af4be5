// The runtime's header, and two fields of cudaDeviceProp that CUDA 13 has no more and Jittor 1.3.11
// reads when it chooses a device: "prohibited" is never true of the first, the second is a clock.
#pragma once
#include "cuda_runtime_real.h"
#if CUDART_VERSION >= 13000
#define computeMode integrated
#define clockRate major
#endif
