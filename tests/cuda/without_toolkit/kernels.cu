// Kernels whose threads need each other, for test_stand_in.py.
#include <cuda_runtime.h>
#include <cuda_fp16.h>
#include <cub/cub.cuh>

static int launches = 0, threads = 0;
extern "C" void stub_launch(unsigned gx, unsigned gy, unsigned gz, unsigned x, unsigned y, unsigned z) {
    launches++;
    threads += gx * gy * gz * x * y * z;
}
extern "C" int launched() { return launches; }
extern "C" int started() { return threads; }

// every thread writes its own place in a grid of three dimensions
__global__ void places(int* out) {
    int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1000 * block + thread;
}

// a row reversed through shared memory, which only works if all wrote before any reads
__global__ void reversed(const float* in, float* out) {
    __shared__ float row[64];
    row[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = row[blockDim.x - 1 - threadIdx.x];
    __syncthreads();
}

// sums over a warp, by three kinds of shuffle; the first thread's of each is written
template <class T>
__global__ void warp_sums(const T* in, T* down, T* exchanged, T* first) {
    T a = in[threadIdx.x], b = a;
    for (int step = 16; step; step >>= 1) a += __shfl_down_sync(~0u, a, step);
    for (int step = 16; step; step >>= 1) b += __shfl_xor_sync(~0u, b, step);
    if (threadIdx.x % 32 == 0) down[threadIdx.x / 32] = a;
    exchanged[threadIdx.x] = b;
    first[threadIdx.x] = __shfl_sync(~0u, in[threadIdx.x], 0);
}

__global__ void block_sum(const float* in, float* out, int n) {
    typedef cub::BlockReduce<float, 128> Reduce;
    __shared__ typename Reduce::TempStorage storage;
    float mine = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) mine += in[i];
    float all = Reduce(storage).Sum(mine);
    if (threadIdx.x == 0) out[0] = all;
}

__global__ void counted(const int* values, int* bins, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(&bins[values[i]], 1);
}

// rounded to half precision after every operation
__global__ void in_half(const float* in, float* out) {
    __half x = __float2half(in[threadIdx.x]);
    out[threadIdx.x] = __half2float(x * x + __half(1.0f));
}

extern "C" void run_places(int* out) { places<<<dim3(3, 2, 2), dim3(4, 3, 2)>>>(out); }
extern "C" void run_reversed(const float* in, float* out) { reversed<<<5, 64>>>(in, out); }
extern "C" void run_warp_sums(const int* in, int* a, int* b, int* c) { warp_sums<int><<<1, 96>>>(in, a, b, c); }
extern "C" void run_block_sum(const float* in, float* out, int n) { block_sum<<<1, 128, 0, 0>>>(in, out, n); }
extern "C" void run_counted(const int* v, int* bins, int n) { counted<<<(n + 31) / 32, 32>>>(v, bins, n); }
extern "C" void run_in_half(const float* in, float* out) { in_half<<<1, 64>>>(in, out); }
