// A CUDA "device" that is this host: runtime, cuBLAS, cuDNN and cuRAND as far as Jittor 1.3.11 calls them.
// Memory is host memory, streams and events are nothing, kernels launched by real nvcc code do nothing
// (cudaLaunchKernel), matrix products, convolutions and random numbers are computed. Everything else that
// the real libraries export returns 0 and says so once (see fallback.py). One library under all names.
#include <cuda_runtime.h>
#include <cuda.h>
#include <cublas_v2.h>
#include <cudnn.h>
#include <curand.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include <chrono>
#include <random>
#include <atomic>
#include <string>
#include <map>
#include <mutex>
#include <unordered_map>
#include <unistd.h>
#include <sys/mman.h>

#define EXPORT extern "C" __attribute__((visibility("default")))
static int env_int(const char* name, int otherwise) { const char* v = getenv(name); return v ? atoi(v) : otherwise; }
static int capability() { static int c = env_int("STUB_SM", 90); return c; }

// ---- statistics
static std::map<std::string, long> counts; static std::mutex counts_mutex;
void count(const std::string& name) { std::lock_guard<std::mutex> g(counts_mutex); counts[name]++; }
EXPORT int device_lacks(const char* name) { count(std::string("lacks ") + name); return 0; }
// all counts since the last call, a line "name<TAB>number" each; for ctypes
EXPORT const char* device_counts() { static std::string text; std::lock_guard<std::mutex> g(counts_mutex); text.clear();
    for (auto& c : counts) text += c.first + "\t" + std::to_string(c.second) + "\n"; counts.clear(); return text.c_str(); }

// ---- driver
EXPORT CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
EXPORT CUresult cuDriverGetVersion(int* v) { *v = CUDA_VERSION < 13000 ? 12020 : CUDA_VERSION; return CUDA_SUCCESS; }
EXPORT CUresult cuDeviceGetCount(int* n) { *n = env_int("STUB_DEVICES", 1); return CUDA_SUCCESS; }
EXPORT CUresult cuDeviceGet(CUdevice* d, int i) { *d = i; return CUDA_SUCCESS; }
EXPORT CUresult cuDeviceGetAttribute(int* v, CUdevice_attribute a, CUdevice) { *v = a == 75 ? capability() / 10 : a == 76 ? capability() % 10 : 1; return CUDA_SUCCESS; }

// ---- runtime: memory. Freshly allocated memory is filled with 0xFF (NaN) if STUB_POISON=1
static std::unordered_map<void*, std::pair<size_t, int>> blocks; static std::mutex blocks_mutex; static size_t used;
static cudaError_t give(void** p, size_t n, int kind) {
    size_t size = (n + 511) / 512 * 512 + 512; *p = aligned_alloc(512, size);
    if (!*p) return cudaErrorMemoryAllocation;
    if (env_int("STUB_POISON", 0)) memset(*p, 0xFF, size);
    std::lock_guard<std::mutex> g(blocks_mutex); blocks[*p] = {n, kind}; used += n; return cudaSuccess; }
static cudaError_t take(void* p) { if (!p) return cudaSuccess;
    { std::lock_guard<std::mutex> g(blocks_mutex); auto i = blocks.find(p); if (i == blocks.end()) { count("ERROR free of unknown pointer"); return cudaErrorInvalidValue; } used -= i->second.first; blocks.erase(i); }
    free(p); return cudaSuccess; }
EXPORT cudaError_t cudaMalloc(void** p, size_t n) { count("cudaMalloc"); return give(p, n, 0); }
EXPORT cudaError_t cudaMallocManaged(void** p, size_t n, unsigned) { count("cudaMallocManaged"); return give(p, n, 1); }
EXPORT cudaError_t cudaMallocHost(void** p, size_t n) { count("cudaMallocHost"); return give(p, n, 2); }
EXPORT cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) { return give(p, n, 2); }
EXPORT cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t) { return give(p, n, 0); }
EXPORT cudaError_t cudaFree(void* p) { return take(p); }
EXPORT cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return take(p); }
EXPORT cudaError_t cudaFreeHost(void* p) { return take(p); }
EXPORT cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind k) { count("cudaMemcpy " + std::to_string(k)); memmove(d, s, n); return cudaSuccess; }
EXPORT cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind k, cudaStream_t) { count("cudaMemcpyAsync " + std::to_string(k)); memmove(d, s, n); return cudaSuccess; }
EXPORT cudaError_t cudaMemset(void* d, int v, size_t n) { memset(d, v, n); return cudaSuccess; }
EXPORT cudaError_t cudaMemsetAsync(void* d, int v, size_t n, cudaStream_t) { memset(d, v, n); return cudaSuccess; }
EXPORT cudaError_t cudaMemGetInfo(size_t* f, size_t* t) { *t = (size_t)env_int("STUB_GIB", 8) << 30; *f = *t - (used < *t ? used : *t); return cudaSuccess; }
// ---- runtime: device, streams, events, errors
EXPORT cudaError_t cudaGetDeviceCount(int* n) { *n = env_int("STUB_DEVICES", 1); return cudaSuccess; }
EXPORT cudaError_t cudaGetDevice(int* d) { *d = 0; return cudaSuccess; }
EXPORT cudaError_t cudaSetDevice(int) { return cudaSuccess; }
EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
    memset(p, 0, sizeof *p); strcpy(p->name, "host stub"); p->major = capability() / 10; p->minor = capability() % 10;
    p->totalGlobalMem = (size_t)env_int("STUB_GIB", 8) << 30; p->multiProcessorCount = 4; p->maxThreadsPerBlock = 1024; p->warpSize = 32;
    p->maxThreadsPerMultiProcessor = 2048; p->sharedMemPerBlock = 49152; p->maxGridSize[0] = 0x7fffffff; p->maxThreadsDim[0] = 1024;
#if CUDART_VERSION < 13000
    p->clockRate = 1000000;
#endif
    return cudaSuccess; }
EXPORT cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int) {
    *v = a == cudaDevAttrComputeCapabilityMajor ? capability() / 10 : a == cudaDevAttrComputeCapabilityMinor ? capability() % 10
       : a == cudaDevAttrMultiProcessorCount ? 4 : a == cudaDevAttrMaxThreadsPerBlock ? 1024 : a == cudaDevAttrWarpSize ? 32
       : a == cudaDevAttrMaxSharedMemoryPerBlock ? 49152 : a == cudaDevAttrMaxGridDimX ? 0x7fffffff : 1; return cudaSuccess; }
EXPORT cudaError_t cudaDriverGetVersion(int* v) { *v = CUDART_VERSION < 13000 ? 12020 : CUDART_VERSION; return cudaSuccess; }
EXPORT cudaError_t cudaRuntimeGetVersion(int* v) { *v = CUDART_VERSION; return cudaSuccess; }
EXPORT cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
EXPORT cudaError_t cudaGetLastError() { return cudaSuccess; }
EXPORT cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
EXPORT const char* cudaGetErrorString(cudaError_t) { return "stub"; }
EXPORT const char* cudaGetErrorName(cudaError_t e) { static thread_local char b[32]; snprintf(b, 32, "cudaError%d", e); return b; }
EXPORT cudaError_t cudaStreamCreate(cudaStream_t* s) { *s = (cudaStream_t)8; return cudaSuccess; }
EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { *s = (cudaStream_t)8; return cudaSuccess; }
EXPORT cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t f, void* u, unsigned) { f(s, cudaSuccess, u); return cudaSuccess; }
EXPORT cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t f, void* u) { f(u); return cudaSuccess; }
EXPORT cudaError_t cudaEventCreate(cudaEvent_t* e) { *e = (cudaEvent_t)8; return cudaSuccess; }
EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { *e = (cudaEvent_t)8; return cudaSuccess; }
EXPORT cudaError_t cudaEventElapsedTime(float* t, cudaEvent_t, cudaEvent_t) { *t = 1; return cudaSuccess; }
EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void*) { memset(a, 0, sizeof *a); a->maxThreadsPerBlock = 1024; a->ptxVersion = a->binaryVersion = capability(); return cudaSuccess; }
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n, const void*, int, size_t) { *n = 2; return cudaSuccess; }
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void*, int, size_t, unsigned) { *n = 2; return cudaSuccess; }
// ---- runtime: what nvcc's host code calls around a kernel
static std::unordered_map<const void*, std::string> kernels;
struct Call { dim3 g, b; size_t m; void* s; }; static thread_local Call pending;
EXPORT void** __cudaRegisterFatBinary(void*) { static void* h; return &h; }
EXPORT void __cudaRegisterFatBinaryEnd(void**) {}
EXPORT void __cudaUnregisterFatBinary(void**) {}
EXPORT void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) { std::lock_guard<std::mutex> g(counts_mutex); kernels[host] = name; }
EXPORT void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
EXPORT char __cudaInitModule(void**) { return 1; }
EXPORT unsigned __cudaPushCallConfiguration(dim3 g, dim3 b, size_t m, void* s) { pending = {g, b, m, s}; return 0; }
EXPORT cudaError_t __cudaPopCallConfiguration(dim3* g, dim3* b, size_t* m, void** s) { *g = pending.g; *b = pending.b; *m = pending.m; *s = pending.s; return cudaSuccess; }
EXPORT cudaError_t cudaLaunchKernel(const void* f, dim3 g, dim3 b, void**, size_t, cudaStream_t) {
    if (!g.x || !g.y || !g.z || !b.x || !b.y || !b.z || (size_t)b.x * b.y * b.z > 1024) { count("ERROR launch with an invalid configuration: " + kernels[f]); return cudaErrorInvalidConfiguration; }
    count(kernels.count(f) ? "cudaLaunchKernel" : "ERROR launch of an unknown kernel"); return cudaSuccess; }
// emulated kernels (cuemu.h) report here
EXPORT void stub_launch(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz) {
    if (!gx || !gy || !gz || !bx || !by || !bz || (size_t)bx * by * bz > 1024) { count("ERROR launch with an invalid configuration"); fprintf(stderr, "cudastub: invalid launch <<<(%u,%u,%u),(%u,%u,%u)>>>\n", gx, gy, gz, bx, by, bz); }
    count("emulated launch"); }

// ---- numbers of any type as float
typedef _Float16 f16;
static float bf(unsigned short v) { unsigned u = (unsigned)v << 16; float f; memcpy(&f, &u, 4); return f; }
static unsigned short tobf(float f) { unsigned u; memcpy(&u, &f, 4); if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff; u += 0x7fff + ((u >> 16) & 1); return u >> 16; }
enum Kind { F32, F64, F16, BF16 };
static size_t width(Kind k) { return k == F32 ? 4 : k == F64 ? 8 : 2; }
template <class R> static void load(std::vector<R>& o, const void* p, size_t n, Kind k) { o.resize(n);
    if (k == F32) for (size_t i = 0; i < n; i++) o[i] = ((const float*)p)[i];
    if (k == F64) for (size_t i = 0; i < n; i++) o[i] = ((const double*)p)[i];
    if (k == F16) for (size_t i = 0; i < n; i++) o[i] = (float)((const f16*)p)[i];
    if (k == BF16) for (size_t i = 0; i < n; i++) o[i] = bf(((const unsigned short*)p)[i]); }
static double get(const void* p, size_t i, Kind k) { return k == F32 ? ((const float*)p)[i] : k == F64 ? ((const double*)p)[i] : k == F16 ? (float)((const f16*)p)[i] : bf(((const unsigned short*)p)[i]); }
static void put(void* p, size_t i, double v, Kind k) { if (k == F32) ((float*)p)[i] = v; else if (k == F64) ((double*)p)[i] = v; else if (k == F16) ((f16*)p)[i] = (f16)(float)v; else ((unsigned short*)p)[i] = tobf(v); }
// row-major C[m,n] += A[m,k] B[k,n], plain but vectorised
template <class R> static void gemm(size_t m, size_t n, size_t k, const R* a, const R* b, R* c) {
    const size_t KB = 128, NB = 512;
    for (size_t j0 = 0; j0 < n; j0 += NB) { size_t j1 = std::min(n, j0 + NB);
    for (size_t l0 = 0; l0 < k; l0 += KB) { size_t l1 = std::min(k, l0 + KB);
    for (size_t i = 0; i < m; i++) { R* cc = c + i * n; size_t l = l0;
        for (; l + 4 <= l1; l += 4) { R a0 = a[i*k+l], a1 = a[i*k+l+1], a2 = a[i*k+l+2], a3 = a[i*k+l+3]; const R *b0 = b+l*n, *b1 = b0+n, *b2 = b1+n, *b3 = b2+n;
            for (size_t j = j0; j < j1; j++) cc[j] += a0*b0[j] + a1*b1[j] + a2*b2[j] + a3*b3[j]; }
        for (; l < l1; l++) { R a0 = a[i*k+l]; const R* b0 = b+l*n; for (size_t j = j0; j < j1; j++) cc[j] += a0*b0[j]; } } } } }

// ---- cuBLAS (column-major: C^T[n,m] = op(B)^T op(A)^T row-major)
static Kind kind_of(cudaDataType t) { return t == CUDA_R_32F ? F32 : t == CUDA_R_64F ? F64 : t == CUDA_R_16F ? F16 : BF16; }
template <class R> static void gemm_one(bool ta, bool tb, int m, int n, int k, double alpha, const void* A, Kind ka, int lda, const void* B, Kind kb, int ldb, double beta, void* C, Kind kc, int ldc) {
    std::vector<R> a((size_t)m * k), b((size_t)n * k), c((size_t)n * m);
    for (int l = 0; l < k; l++) for (int i = 0; i < m; i++) a[(size_t)l * m + i] = get(A, ta ? (size_t)i * lda + l : (size_t)l * lda + i, ka);
    for (int j = 0; j < n; j++) for (int l = 0; l < k; l++) b[(size_t)j * k + l] = get(B, tb ? (size_t)l * ldb + j : (size_t)j * ldb + l, kb);
    gemm<R>(n, m, k, b.data(), a.data(), c.data());
    for (int j = 0; j < n; j++) for (int i = 0; i < m; i++) { size_t at = (size_t)j * ldc + i; put(C, at, alpha * c[(size_t)j * m + i] + (beta ? beta * get(C, at, kc) : 0), kc); } }
static cublasStatus_t gemm_any(cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, double alpha, const void* A, Kind ka, int lda, long long sa, const void* B, Kind kb, int ldb, long long sb, double beta, void* C, Kind kc, int ldc, long long sc, int batch) {
    if (m < 0 || n < 0 || k < 0 || batch < 0 || lda < std::max(1, ta ? k : m) || ldb < std::max(1, tb ? n : k) || ldc < std::max(1, m)) { count("ERROR gemm with invalid sizes"); fprintf(stderr, "cudastub: invalid gemm m %d n %d k %d lda %d ldb %d ldc %d\n", m, n, k, lda, ldb, ldc); return CUBLAS_STATUS_INVALID_VALUE; }
    for (int i = 0; i < batch; i++) { const char* a = (const char*)A + i * sa * (long long)width(ka); const char* b = (const char*)B + i * sb * (long long)width(kb); char* c = (char*)C + i * sc * (long long)width(kc);
        if (kc == F64) gemm_one<double>(ta, tb, m, n, k, alpha, a, ka, lda, b, kb, ldb, beta, c, kc, ldc); else gemm_one<float>(ta, tb, m, n, k, alpha, a, ka, lda, b, kb, ldb, beta, c, kc, ldc); }
    return CUBLAS_STATUS_SUCCESS; }
EXPORT cublasStatus_t cublasCreate_v2(cublasHandle_t* h) { *h = (cublasHandle_t)8; return CUBLAS_STATUS_SUCCESS; }
EXPORT cublasStatus_t cublasSgemm_v2(cublasHandle_t, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const float* al, const float* A, int lda, const float* B, int ldb, const float* be, float* C, int ldc) { count("cublasSgemm"); return gemm_any(ta, tb, m, n, k, *al, A, F32, lda, 0, B, F32, ldb, 0, *be, C, F32, ldc, 0, 1); }
static bool gemm_supported(cublasComputeType_t c, cudaDataType a, cudaDataType b, cudaDataType o) {  // the table of cublasGemmEx
    if (a != b) return false;
    switch (c) {
    case CUBLAS_COMPUTE_16F: case CUBLAS_COMPUTE_16F_PEDANTIC: return a == CUDA_R_16F && o == CUDA_R_16F;
    case CUBLAS_COMPUTE_32F: case CUBLAS_COMPUTE_32F_PEDANTIC: return (a == CUDA_R_16F || a == CUDA_R_16BF) ? (o == a || o == CUDA_R_32F) : a == CUDA_R_32F && o == CUDA_R_32F;
    case CUBLAS_COMPUTE_32F_FAST_16F: case CUBLAS_COMPUTE_32F_FAST_16BF: case CUBLAS_COMPUTE_32F_FAST_TF32: return a == CUDA_R_32F && o == CUDA_R_32F;
    case CUBLAS_COMPUTE_64F: case CUBLAS_COMPUTE_64F_PEDANTIC: return a == CUDA_R_64F && o == CUDA_R_64F;
    default: return false; } }
static double scalar(const void* p, cublasComputeType_t c) { return c == CUBLAS_COMPUTE_16F ? (double)(float)*(const f16*)p : c == CUBLAS_COMPUTE_64F ? *(const double*)p : *(const float*)p; }
static cublasStatus_t unsupported(const char* f, int c, int a, int b, int o) { count(std::string("ERROR ") + f + " unsupported: compute " + std::to_string(c) + " A " + std::to_string(a) + " B " + std::to_string(b) + " C " + std::to_string(o)); return CUBLAS_STATUS_NOT_SUPPORTED; }
EXPORT cublasStatus_t cublasGemmEx(cublasHandle_t, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void* al, const void* A, cudaDataType At, int lda, const void* B, cudaDataType Bt, int ldb, const void* be, void* C, cudaDataType Ct, int ldc, cublasComputeType_t c, cublasGemmAlgo_t) {
    count("cublasGemmEx compute " + std::to_string(c) + " type " + std::to_string(At)); if (!gemm_supported(c, At, Bt, Ct)) return unsupported("cublasGemmEx", c, At, Bt, Ct);
    return gemm_any(ta, tb, m, n, k, scalar(al, c), A, kind_of(At), lda, 0, B, kind_of(Bt), ldb, 0, scalar(be, c), C, kind_of(Ct), ldc, 0, 1); }
EXPORT cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void* al, const void* A, cudaDataType At, int lda, long long sa, const void* B, cudaDataType Bt, int ldb, long long sb, const void* be, void* C, cudaDataType Ct, int ldc, long long sc, int batch, cublasComputeType_t c, cublasGemmAlgo_t) {
    count("cublasGemmStridedBatchedEx compute " + std::to_string(c) + " type " + std::to_string(At)); if (!gemm_supported(c, At, Bt, Ct)) return unsupported("cublasGemmStridedBatchedEx", c, At, Bt, Ct);
    return gemm_any(ta, tb, m, n, k, scalar(al, c), A, kind_of(At), lda, sa, B, kind_of(Bt), ldb, sb, scalar(be, c), C, kind_of(Ct), ldc, sc, batch); }

// ---- cuDNN: 2-D convolutions in any layout
struct Tensor { Kind k; int d[5], s[5], n; };
struct Conv { int pad[3], stride[3], dil[3], groups; Kind k; cudnnMathType_t math; };
static Kind kind_of(cudnnDataType_t t) { return t == CUDNN_DATA_FLOAT ? F32 : t == CUDNN_DATA_DOUBLE ? F64 : t == CUDNN_DATA_HALF ? F16 : BF16; }
#define OK CUDNN_STATUS_SUCCESS
EXPORT cudnnStatus_t cudnnCreate(cudnnHandle_t* h) { *h = (cudnnHandle_t)8; return OK; }
EXPORT const char* cudnnGetErrorString(cudnnStatus_t) { return "stub"; }
EXPORT size_t cudnnGetVersion() { return CUDNN_VERSION; }
EXPORT cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* d) { *d = (cudnnTensorDescriptor_t) new Tensor(); return OK; }
EXPORT cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t d) { delete (Tensor*)d; return OK; }
EXPORT cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t d, cudnnDataType_t t, int n, const int* dims, const int* strides) { Tensor* x = (Tensor*)d; x->k = kind_of(t); x->n = n; for (int i = 0; i < n && i < 5; i++) { x->d[i] = dims[i]; x->s[i] = strides[i]; } return OK; }
EXPORT cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t* d) { *d = (cudnnFilterDescriptor_t) new Tensor(); return OK; }
EXPORT cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t d) { delete (Tensor*)d; return OK; }
EXPORT cudnnStatus_t cudnnSetFilterNdDescriptor(cudnnFilterDescriptor_t d, cudnnDataType_t t, cudnnTensorFormat_t f, int n, const int* dims) { Tensor* x = (Tensor*)d; x->k = kind_of(t); x->n = n; for (int i = 0; i < n && i < 5; i++) x->d[i] = dims[i];
    if (f == CUDNN_TENSOR_NCHW) { int s = 1; for (int i = n - 1; i >= 0; i--) { x->s[i] = s; s *= dims[i]; } } else { x->s[1] = 1; int s = dims[1]; for (int i = n - 1; i >= 2; i--) { x->s[i] = s; s *= dims[i]; } x->s[0] = s; } return OK; }
EXPORT cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t* d) { Conv* c = new Conv(); c->groups = 1; *d = (cudnnConvolutionDescriptor_t)c; return OK; }
EXPORT cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t d) { delete (Conv*)d; return OK; }
EXPORT cudnnStatus_t cudnnSetConvolutionNdDescriptor(cudnnConvolutionDescriptor_t d, int n, const int* p, const int* s, const int* l, cudnnConvolutionMode_t, cudnnDataType_t t) { Conv* c = (Conv*)d; for (int i = 0; i < n; i++) { c->pad[i] = p[i]; c->stride[i] = s[i]; c->dil[i] = l[i]; } c->k = kind_of(t); return OK; }
EXPORT cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t d, int g) { ((Conv*)d)->groups = g; return OK; }
EXPORT cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t d, cudnnMathType_t m) { ((Conv*)d)->math = m; return OK; }
#define WS(NAME, A, B, C_, ALGO) EXPORT cudnnStatus_t NAME(cudnnHandle_t, const A, const B, const cudnnConvolutionDescriptor_t, const C_, ALGO, size_t* n) { *n = 64; return OK; }
WS(cudnnGetConvolutionForwardWorkspaceSize, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t, cudnnTensorDescriptor_t, cudnnConvolutionFwdAlgo_t)
WS(cudnnGetConvolutionBackwardDataWorkspaceSize, cudnnFilterDescriptor_t, cudnnTensorDescriptor_t, cudnnTensorDescriptor_t, cudnnConvolutionBwdDataAlgo_t)
WS(cudnnGetConvolutionBackwardFilterWorkspaceSize, cudnnTensorDescriptor_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t, cudnnConvolutionBwdFilterAlgo_t)
// The first algorithm is what float32 gets here; like the real one, it does not compute in half precision.
template <class P, class A> static cudnnStatus_t one(int* n, P* r, const void* c, A single, A half) { memset(r, 0, sizeof *r); r->algo = ((const Conv*)c)->k == F16 ? half : single; r->status = OK; *n = 1; return OK; }
static bool refused(const void* c, bool winograd) { if (((const Conv*)c)->k != F16 || !winograd) return false; count("ERROR float32's algorithm asked for half precision"); return true; }
EXPORT cudnnStatus_t cudnnFindConvolutionForwardAlgorithmEx(cudnnHandle_t, const cudnnTensorDescriptor_t, const void*, const cudnnFilterDescriptor_t, const void*, const cudnnConvolutionDescriptor_t c, const cudnnTensorDescriptor_t, void*, const int, int* n, cudnnConvolutionFwdAlgoPerf_t* r, void*, size_t) { return one(n, r, c, CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM); }
EXPORT cudnnStatus_t cudnnFindConvolutionBackwardDataAlgorithmEx(cudnnHandle_t, const cudnnFilterDescriptor_t, const void*, const cudnnTensorDescriptor_t, const void*, const cudnnConvolutionDescriptor_t c, const cudnnTensorDescriptor_t, void*, const int, int* n, cudnnConvolutionBwdDataAlgoPerf_t* r, void*, size_t) { return one(n, r, c, CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD, CUDNN_CONVOLUTION_BWD_DATA_ALGO_1); }
EXPORT cudnnStatus_t cudnnFindConvolutionBackwardFilterAlgorithmEx(cudnnHandle_t, const cudnnTensorDescriptor_t, const void*, const cudnnTensorDescriptor_t, const void*, const cudnnConvolutionDescriptor_t c, const cudnnFilterDescriptor_t, void*, const int, int* n, cudnnConvolutionBwdFilterAlgoPerf_t* r, void*, size_t) { return one(n, r, c, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1); }
EXPORT cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t, const cudnnTensorDescriptor_t, const cudnnFilterDescriptor_t, const cudnnConvolutionDescriptor_t c, const cudnnTensorDescriptor_t, const int, int* n, cudnnConvolutionFwdAlgoPerf_t* r) { return one(n, r, c, CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM); }
EXPORT cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t, const cudnnFilterDescriptor_t, const cudnnTensorDescriptor_t, const cudnnConvolutionDescriptor_t c, const cudnnTensorDescriptor_t, const int, int* n, cudnnConvolutionBwdDataAlgoPerf_t* r) { return one(n, r, c, CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD, CUDNN_CONVOLUTION_BWD_DATA_ALGO_1); }
EXPORT cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t, const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t, const cudnnConvolutionDescriptor_t c, const cudnnFilterDescriptor_t, const int, int* n, cudnnConvolutionBwdFilterAlgoPerf_t* r) { return one(n, r, c, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1); }
// what = 0 forward, 1 gradient of x, 2 gradient of w. Every operand is gathered to dense float (double for float64).
template <class R> static void conv(int what, const Tensor& X, void* x, const Tensor& W, void* w, const Conv& c, const Tensor& Y, void* y, double alpha, double beta) {
    int N = X.d[0], C = X.d[1], H = X.d[2], Wd = X.d[3], O = W.d[0], I = W.d[1], KH = W.d[2], KW = W.d[3], YH = Y.d[2], YW = Y.d[3], G = c.groups, OG = O / G;
    size_t K = (size_t)I * KH * KW, P = (size_t)YH * YW;
    std::vector<R> ww((size_t)O * K), cols(K * P), yy((size_t)OG * P), dw(what == 2 ? (size_t)O * K : 0), tr, dx;
    if (what != 2) for (int o = 0; o < O; o++) for (int i = 0; i < I; i++) for (int a = 0; a < KH; a++) for (int b = 0; b < KW; b++) ww[((size_t)o * I + i) * KH * KW + a * KW + b] = get(w, (size_t)o * W.s[0] + (size_t)i * W.s[1] + (size_t)a * W.s[2] + (size_t)b * W.s[3], W.k);
    for (int n = 0; n < N; n++) { if (what == 1) dx.assign((size_t)C * H * Wd, 0);
    for (int g = 0; g < G; g++) {
        if (what != 1) for (int i = 0; i < I; i++) for (int a = 0; a < KH; a++) for (int b = 0; b < KW; b++) { R* row = &cols[((size_t)i * KH * KW + a * KW + b) * P];
            for (int p = 0; p < YH; p++) for (int q = 0; q < YW; q++) { int h = p * c.stride[0] - c.pad[0] + a * c.dil[0], v = q * c.stride[1] - c.pad[1] + b * c.dil[1];
                row[p * YW + q] = h < 0 || v < 0 || h >= H || v >= Wd ? 0 : get(x, (size_t)n * X.s[0] + (size_t)(g * I + i) * X.s[1] + (size_t)h * X.s[2] + (size_t)v * X.s[3], X.k); } }
        if (what) for (int o = 0; o < OG; o++) for (int p = 0; p < YH; p++) for (int q = 0; q < YW; q++) yy[(size_t)o * P + p * YW + q] = get(y, (size_t)n * Y.s[0] + (size_t)(g * OG + o) * Y.s[1] + (size_t)p * Y.s[2] + (size_t)q * Y.s[3], Y.k);
        if (what == 0) { std::fill(yy.begin(), yy.end(), R(0)); gemm<R>(OG, P, K, &ww[(size_t)g * OG * K], cols.data(), yy.data());
            for (int o = 0; o < OG; o++) for (int p = 0; p < YH; p++) for (int q = 0; q < YW; q++) { size_t at = (size_t)n * Y.s[0] + (size_t)(g * OG + o) * Y.s[1] + (size_t)p * Y.s[2] + (size_t)q * Y.s[3]; put(y, at, alpha * yy[(size_t)o * P + p * YW + q] + (beta ? beta * get(y, at, Y.k) : 0), Y.k); } }
        if (what == 1) { tr.resize(K * OG); for (size_t l = 0; l < K; l++) for (int o = 0; o < OG; o++) tr[l * OG + o] = ww[((size_t)g * OG + o) * K + l];
            std::fill(cols.begin(), cols.end(), R(0)); gemm<R>(K, P, OG, tr.data(), yy.data(), cols.data());
            for (int i = 0; i < I; i++) for (int a = 0; a < KH; a++) for (int b = 0; b < KW; b++) for (int p = 0; p < YH; p++) for (int q = 0; q < YW; q++) { int h = p * c.stride[0] - c.pad[0] + a * c.dil[0], v = q * c.stride[1] - c.pad[1] + b * c.dil[1];
                if (h >= 0 && v >= 0 && h < H && v < Wd) dx[((size_t)(g * I + i) * H + h) * Wd + v] += cols[((size_t)i * KH * KW + a * KW + b) * P + p * YW + q]; } }
        if (what == 2) { tr.resize(P * K); for (size_t l = 0; l < K; l++) for (size_t p = 0; p < P; p++) tr[p * K + l] = cols[l * P + p]; gemm<R>(OG, K, P, yy.data(), tr.data(), &dw[(size_t)g * OG * K]); } }
    if (what == 1) for (int i = 0; i < C; i++) for (int h = 0; h < H; h++) for (int v = 0; v < Wd; v++) { size_t at = (size_t)n * X.s[0] + (size_t)i * X.s[1] + (size_t)h * X.s[2] + (size_t)v * X.s[3]; put(x, at, alpha * dx[((size_t)i * H + h) * Wd + v] + (beta ? beta * get(x, at, X.k) : 0), X.k); } }
    if (what == 2) for (int o = 0; o < O; o++) for (int i = 0; i < I; i++) for (int a = 0; a < KH; a++) for (int b = 0; b < KW; b++) { size_t at = (size_t)o * W.s[0] + (size_t)i * W.s[1] + (size_t)a * W.s[2] + (size_t)b * W.s[3]; put(w, at, alpha * dw[((size_t)o * I + i) * KH * KW + a * KW + b] + (beta ? beta * get(w, at, W.k) : 0), W.k); } }
static cudnnStatus_t conv_any(int what, const void* X, const void* x, const void* W, const void* w, const void* c, const void* Y, const void* y, const void* al, const void* be) {
    const Tensor &xt = *(const Tensor*)X, &wt = *(const Tensor*)W, &yt = *(const Tensor*)Y; const Conv& cd = *(const Conv*)c;
    static const char* names[] = {"float", "double", "half", "bfloat16"};
    count("cudnn conv " + std::to_string(what) + " x " + names[xt.k] + " w " + names[wt.k] + " y " + names[yt.k] + " compute " + names[cd.k]);
    if (xt.k != wt.k || xt.k != yt.k) { count("ERROR cudnn conv of mixed types"); return CUDNN_STATUS_NOT_SUPPORTED; }
    if (xt.n != 4) { count("ERROR stub: only 2-D convolutions"); return CUDNN_STATUS_NOT_SUPPORTED; }
    double a = xt.k == F64 ? *(const double*)al : *(const float*)al, b = xt.k == F64 ? *(const double*)be : *(const float*)be;
    if (cd.k == F16) conv<_Float16>(what, xt, (void*)x, wt, (void*)w, cd, yt, (void*)y, a, b);  // sums in half precision too
    else if (xt.k == F64) conv<double>(what, xt, (void*)x, wt, (void*)w, cd, yt, (void*)y, a, b); else conv<float>(what, xt, (void*)x, wt, (void*)w, cd, yt, (void*)y, a, b);
    return OK; }
EXPORT cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t, const void* al, const cudnnTensorDescriptor_t X, const void* x, const cudnnFilterDescriptor_t W, const void* w, const cudnnConvolutionDescriptor_t c, cudnnConvolutionFwdAlgo_t algo, void*, size_t, const void* be, const cudnnTensorDescriptor_t Y, void* y) { if (refused(c, algo == CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD)) return CUDNN_STATUS_NOT_SUPPORTED; return conv_any(0, X, x, W, w, c, Y, y, al, be); }
EXPORT cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t, const void* al, const cudnnFilterDescriptor_t W, const void* w, const cudnnTensorDescriptor_t Y, const void* y, const cudnnConvolutionDescriptor_t c, cudnnConvolutionBwdDataAlgo_t algo, void*, size_t, const void* be, const cudnnTensorDescriptor_t X, void* x) { if (refused(c, algo == CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD)) return CUDNN_STATUS_NOT_SUPPORTED; return conv_any(1, X, x, W, w, c, Y, y, al, be); }
EXPORT cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t, const void* al, const cudnnTensorDescriptor_t X, const void* x, const cudnnTensorDescriptor_t Y, const void* y, const cudnnConvolutionDescriptor_t c, cudnnConvolutionBwdFilterAlgo_t algo, void*, size_t, const void* be, const cudnnFilterDescriptor_t W, void* w) { if (refused(c, algo == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING)) return CUDNN_STATUS_NOT_SUPPORTED; return conv_any(2, X, x, W, w, c, Y, y, al, be); }

// ---- cuRAND
static std::mt19937_64 random_engine(1);
EXPORT curandStatus_t curandCreateGenerator(curandGenerator_t* g, curandRngType_t) { *g = (curandGenerator_t)8; return CURAND_STATUS_SUCCESS; }
EXPORT curandStatus_t curandSetPseudoRandomGeneratorSeed(curandGenerator_t, unsigned long long s) { random_engine.seed(s); return CURAND_STATUS_SUCCESS; }
EXPORT curandStatus_t curandGenerateUniform(curandGenerator_t, float* o, size_t n) { for (size_t i = 0; i < n; i++) o[i] = ((random_engine() >> 40) + 1) / 16777216.0f; return CURAND_STATUS_SUCCESS; }
EXPORT curandStatus_t curandGenerateUniformDouble(curandGenerator_t, double* o, size_t n) { for (size_t i = 0; i < n; i++) o[i] = ((random_engine() >> 11) + 1) / 9007199254740992.0; return CURAND_STATUS_SUCCESS; }
EXPORT curandStatus_t curandGenerateNormal(curandGenerator_t, float* o, size_t n, float m, float s) { if (n & 1) { count("ERROR curandGenerateNormal of an odd count"); return CURAND_STATUS_LENGTH_NOT_MULTIPLE; } std::normal_distribution<float> d(m, s); for (size_t i = 0; i < n; i++) o[i] = d(random_engine); return CURAND_STATUS_SUCCESS; }
EXPORT curandStatus_t curandGenerateNormalDouble(curandGenerator_t, double* o, size_t n, double m, double s) { if (n & 1) return CURAND_STATUS_LENGTH_NOT_MULTIPLE; std::normal_distribution<double> d(m, s); for (size_t i = 0; i < n; i++) o[i] = d(random_engine); return CURAND_STATUS_SUCCESS; }
