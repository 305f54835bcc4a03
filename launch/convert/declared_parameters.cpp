#include "launch/convert/declared_parameters.h"

#include "comm/self_communicator.h"
#include "layers/model.h"

namespace moesaic {

namespace {

/// Calls `read` with a store that declares a model of this shape.
template <class Read>
auto with_declared(const ModelSpec& spec, const Read& read) {
    const auto backend = make_cpu_backend(1, StreamMode::inline_execution, 0);
    SelfCommunicator world;
    const Mesh mesh(world, {}, static_cast<int>(spec.experts));
    ParameterStore store(*backend, DType::f32);
    ModelSpec still = spec;
    still.exchange = {.name = "flat"};  // no row travels, and only a run can choose
    const Model model(still, mesh, store);
    return read(store);
}

}  // namespace

std::vector<Parameter> declared_parameters(const ModelSpec& spec) {
    return with_declared(spec, [](const ParameterStore& store) {
        return std::vector<Parameter>(store.parameters().begin(), store.parameters().end());
    });
}

std::map<std::string, Shape> declared_buffers(const ModelSpec& spec) {
    return with_declared(spec, [](const ParameterStore& store) {
        std::map<std::string, Shape> shapes;
        for (const Buffer& buffer : store.buffers()) shapes[buffer.name] = buffer.shape;
        return shapes;
    });
}

double count_declared(const ModelSpec& spec) {
    const double norms = spec.qk_norm == QkNorm::none ? 0 : 2;
    const double sparse = spec.expert_layers(), layers = spec.layers;
    const double shared = (spec.shared_experts > 0 ? 3 : 0) + (spec.shared_gate ? 1 : 0);
    return 3 + layers * (6 + norms) +
           sparse * (router_traits(spec.router).matrices + shared + 3 * static_cast<double>(spec.experts)) +
           (layers - sparse) * 3;
}

}  // namespace moesaic
