// Where this build has no NCCL.
#include "tests/cuda_host/nccl_ranks.h"

namespace cuda_host {

std::int64_t nccl_ranks() {
    return 0;
}
std::string nccl_waiting() {
    return {};
}
void reset_nccl() {}

}  // namespace cuda_host
