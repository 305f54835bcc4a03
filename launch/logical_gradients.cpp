#include "launch/logical_gradients.h"

#include "comm/expert_slices.h"
#include "runtime/base/run_context.h"

namespace moesaic {

namespace {

std::vector<double> as_doubles(ConstTensorView values) {
    std::vector<double> result(static_cast<std::size_t>(values.elements()));
    if (values.dtype == DType::f64) {
        std::copy_n(values.as<double>(), values.elements(), result.begin());
    } else {
        std::copy_n(values.as<float>(), values.elements(), result.begin());
    }
    return result;
}

}  // namespace

LogicalTensors gather_gradients(RankRuntime& runtime) {
    StepContext context = runtime.context(Phase::train, run_context().step);
    runtime.gradient_sync->gather_gradients(context);
    Communicator& experts = runtime.mesh->experts();
    const i64 elements = runtime.store.elements(Placement::expert);
    Tensor all = runtime.backend->allocate({experts.size() * elements}, runtime.store.real());
    if (elements > 0) {
        context.exchange.wait(context.compute.record());
        experts.all_gather(context.exchange, runtime.store.gradients(Placement::expert), all,
                           {"gradients of all experts"});
    }
    context.exchange.synchronize();
    LogicalTensors tensors;
    for (std::size_t i = 0; i < runtime.store.parameters().size(); ++i) {
        const Parameter& parameter = runtime.store.parameters()[i];
        if (parameter.placement == Placement::replicated) {
            tensors[parameter.name] = as_doubles(parameter.grad);
            continue;
        }
        for (int owner = 0; owner < experts.size(); ++owner) {
            const int slices = runtime.mesh->expert_tensor();
            const i64 expert = runtime.mesh->counterpart(parameter, owner / slices);
            const i64 at = owner * elements + runtime.store.offset_of(i);
            std::vector<double>& whole = tensors[parameter.name_for_expert(expert)];
            whole.resize(static_cast<std::size_t>(parameter.whole_shape().elements()));
            const std::vector<double> slice = as_doubles(all.view().flat(at, parameter.shape.elements()));
            put_slice(parameter, owner % slices, view_of(slice.data(), parameter.shape),
                      view_of(whole.data(), parameter.whole_shape()));
        }
    }
    return tensors;
}

}  // namespace moesaic
