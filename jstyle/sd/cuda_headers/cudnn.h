// cuDNN 9 with the functions of cuDNN 8 that Jittor 1.3.11's recurrent operators name. They answer
// "not supported"; nothing here uses them. The real header lies beside this one as cudnn_real.h.
#pragma once
#include "cudnn_real.h"
#ifndef CUDNN_H_
#define CUDNN_H_ 1  // Jittor's helper_cuda.h asks for cuDNN 8's guard
#endif
#if CUDNN_MAJOR >= 9
#define JSTYLE_NOT_THERE(NAME)                    \
    template <class... Arguments>                 \
    static inline cudnnStatus_t NAME(Arguments...) { return CUDNN_STATUS_NOT_SUPPORTED; }
JSTYLE_NOT_THERE(cudnnSetRNNDescriptor_v6)
JSTYLE_NOT_THERE(cudnnGetRNNParamsSize)
JSTYLE_NOT_THERE(cudnnGetRNNWorkspaceSize)
JSTYLE_NOT_THERE(cudnnGetRNNTrainingReserveSize)
JSTYLE_NOT_THERE(cudnnGetRNNLinLayerMatrixParams)
JSTYLE_NOT_THERE(cudnnGetRNNLinLayerBiasParams)
JSTYLE_NOT_THERE(cudnnRNNForwardTraining)
JSTYLE_NOT_THERE(cudnnRNNForwardInference)
JSTYLE_NOT_THERE(cudnnRNNBackwardData)
JSTYLE_NOT_THERE(cudnnRNNBackwardWeights)
#undef JSTYLE_NOT_THERE
#endif
