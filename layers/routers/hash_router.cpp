#include "layers/routers/hash_router.h"

#include "runtime/data/permutation.h"

namespace moesaic {

HashRouter::HashRouter(const ModelSpec& spec, int layer, ParameterStore& store) : top_k_(spec.top_k) {
    const KeyedPermutation permutation(spec.vocabulary, spec.router.hash_seed,
                                       block_parameter_name(layer, "mlp.hash"));
    std::vector<i32> experts;
    for (i64 id = 0; id < spec.vocabulary; ++id) {
        const i64 place = permutation(id);
        for (i64 k = 0; k < top_k_; ++k)
            experts.push_back(static_cast<i32>((place + k * (spec.experts / top_k_)) % spec.experts));
    }
    Backend& backend = store.backend();
    const auto stream = backend.make_stream("hash table");
    table_ = backend.allocate({spec.vocabulary, top_k_}, DType::int32);
    backend.copy(*stream, view_of(experts.data(), table_.shape()), table_);
    stream->synchronize();
}

Routing HashRouter::route(StepContext& context, const LayerInput& in, RouterSaved&) const {
    Backend& backend = context.backend;
    MOESAIC_ASSERT(in.token_ids.elements() == in.x.rows(), "{} ids of {} tokens", in.token_ids.elements(),
                   in.x.rows());
    Routing routing{backend.allocate({in.x.rows(), top_k_}, DType::int32),
                    backend.allocate({in.x.rows(), top_k_}, accumulation_type(in.x.dtype))};
    backend.gather_rows(context.compute, {.in = table_, .index = in.token_ids, .out = routing.expert});
    backend.fill(context.compute, 1.0 / static_cast<double>(top_k_), routing.weight);
    return routing;
}

}  // namespace moesaic
