// Where cuTT takes its memory from; the emulated one needs none.
#pragma once
#include <cuda_runtime.h>
#include <cstddef>
#ifndef EXTERN_LIB
#define EXTERN_LIB extern
#endif
EXTERN_LIB void (*custom_cuda_malloc)(void** memory, size_t bytes, size_t& allocation);
EXTERN_LIB void (*custom_cuda_free)(void* memory, size_t bytes, size_t& allocation);
