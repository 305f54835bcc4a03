#include "launch/convert/declared_parameters.h"

#include "comm/self_communicator.h"
#include "layers/model.h"

namespace moesaic {

std::vector<Parameter> declared_parameters(const ModelSpec& spec) {
    const auto backend = make_cpu_backend(1, StreamMode::inline_execution, 0);
    SelfCommunicator world;
    const Mesh mesh(world, {}, static_cast<int>(spec.experts));
    ParameterStore store(*backend, DType::f32);
    const Model model(spec, mesh, store);
    return {store.parameters().begin(), store.parameters().end()};
}

double count_declared(const ModelSpec& spec) {
    const double norms = spec.qk_norm == QkNorm::none ? 0 : 2;
    const double sparse = spec.expert_layers(), layers = spec.layers;
    const double shared = (spec.shared_experts > 0 ? 3 : 0) + (spec.shared_gate ? 1 : 0);
    return 3 + layers * (6 + norms) + sparse * (1 + shared + 3 * static_cast<double>(spec.experts)) +
           (layers - sparse) * 3;
}

}  // namespace moesaic
