// CUDA's CUB with the names that CUDA 13's has no more and Jittor 1.3.11 uses. The real header lies
// beside this one as cub_real.cuh.
#pragma once
#include "cub_real.cuh"
#if defined(CCCL_MAJOR_VERSION) && CCCL_MAJOR_VERSION >= 3
#include <cuda/functional>
#include <cuda/std/functional>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
namespace cub {
using Max = ::cuda::maximum<>;
using Min = ::cuda::minimum<>;
using Sum = ::cuda::std::plus<>;
template <class V> using CountingInputIterator = thrust::counting_iterator<V>;
template <class V, class F, class I>
struct TransformInputIterator : thrust::transform_iterator<F, I, V> {
    __host__ __device__ TransformInputIterator(I values, F f)
        : thrust::transform_iterator<F, I, V>(values, f) {}
};
static __device__ __forceinline__ unsigned LaneId() {
    unsigned lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}
}  // namespace cub
#endif
