#include "launch/prototypes.h"

#include <algorithm>

namespace moesaic {

void adopt_prototypes(RankRuntime& runtime, const RunSetup& run, const std::string& checkpoint) {
    if (run.spec.kind != ModelKind::momlp) return;
    const std::span<const float> prototypes = run.dataset->prototypes();
    const auto buffer = std::find_if(runtime.store.buffers().begin(), runtime.store.buffers().end(),
                                     [](const Buffer& one) { return one.name == "model.prototypes"; });
    MOESAIC_ASSERT(
        buffer != runtime.store.buffers().end() && buffer->value.elements() == std::ssize(prototypes),
        "{} prototypes' elements", prototypes.size());
    runtime.compute->synchronize();
    const auto adopt = [&](auto* values) {
        using Real = std::remove_pointer_t<decltype(values)>;
        if (checkpoint.empty()) {
            std::copy(prototypes.begin(), prototypes.end(), values);  // exact: f32 or wider
        } else if (!std::equal(prototypes.begin(), prototypes.end(), values,
                               [](float found, Real kept) { return static_cast<Real>(found) == kept; })) {
            throw UserError(
                fmt::format("{}: the data give other prototypes than it was trained with; use the data, "
                            "task.data.split_seed, validation and standardize of the training",
                            checkpoint));
        }
    };
    if (buffer->value.dtype() == DType::f64) {
        adopt(buffer->value.as<double>());
    } else {
        adopt(buffer->value.as<float>());
    }
}

}  // namespace moesaic
