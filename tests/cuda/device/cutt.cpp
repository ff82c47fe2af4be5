// cuTT: transposes. Plans are kept for ever, as Jittor keeps them.
#include "cutt.h"
#include "CudaUtils.h"
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

void count(const std::string& name);
__attribute__((visibility("default"))) void (*custom_cuda_malloc)(void**, size_t, size_t&) = nullptr;
__attribute__((visibility("default"))) void (*custom_cuda_free)(void*, size_t, size_t&) = nullptr;

struct Plan { std::vector<int> dim, permutation; size_t item; };
static std::vector<Plan> plans;
static std::mutex plans_mutex;

__attribute__((visibility("default"))) cuttResult cuttPlan(
    cuttHandle* plan, int rank, int* dim, int* permutation, size_t item, cudaStream_t) {
    if (rank < 2 || (item != 1 && item != 2 && item != 4 && item != 8)) {
        count("ERROR cuttPlan of a rank or item that cuTT refuses");
        return CUTT_INVALID_PARAMETER;
    }
    std::lock_guard<std::mutex> guard(plans_mutex);
    *plan = plans.size();
    plans.push_back({{dim, dim + rank}, {permutation, permutation + rank}, item});
    return CUTT_SUCCESS;
}

__attribute__((visibility("default"))) cuttResult cuttExecute(cuttHandle plan, void* from, void* to) {
    Plan p;
    {
        std::lock_guard<std::mutex> guard(plans_mutex);
        if (plan >= plans.size()) return CUTT_INVALID_PLAN;
        p = plans[plan];
    }
    count("transpose");
    size_t rank = p.dim.size(), total = 1;
    std::vector<size_t> stride(rank), at(rank, 0);
    for (size_t i = 0; i < rank; i++) { stride[i] = total; total *= p.dim[i]; }
    for (size_t n = 0, source = 0; n < total; n++) {
        memcpy((char*)to + n * p.item, (char*)from + source * p.item, p.item);
        for (size_t i = 0; i < rank; i++) {  // the next place of the output
            size_t axis = p.permutation[i];
            source += stride[axis];
            if (++at[i] < (size_t)p.dim[axis]) break;
            source -= stride[axis] * p.dim[axis];
            at[i] = 0;
        }
    }
    return CUTT_SUCCESS;
}

__attribute__((visibility("default"))) cuttResult cuttDestroy(cuttHandle) { return CUTT_SUCCESS; }
