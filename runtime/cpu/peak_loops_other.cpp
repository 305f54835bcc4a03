// Stands in for the assembly loops on architectures that have none yet, and for assemblers that are too old.
#include "runtime/cpu/peak_loops.h"

namespace moesaic {

std::vector<PeakLoop> assembly_peak_loops(PeakType) {
    return {};
}

bool has_bf16_dot_product() {
    return false;
}
bool has_quick_bf16_dot_product() {
    return false;
}
bool has_amx_bf16() {
    return false;
}

}  // namespace moesaic
