#include "launch/model_measures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>

#include "comm/expert_slices.h"
#include "layers/layer.h"
#include "layers/router.h"
#include "runtime/bfloat16.h"
#include "runtime/metrics/bounds/norms.h"
#include "runtime/metrics/load_summary.h"

namespace moesaic {

namespace {

constexpr double kSwigluFactor = 4.21;
constexpr i64 kMatrixNumbers = 4;  // of MatrixNorms

std::vector<int> expert_layers(const ModelSpec& spec) {
    std::vector<int> layers;
    if (!spec.routes_rows()) return layers;
    for (int layer = 0; layer < spec.layers; ++layer) {
        if (spec.has_experts(layer)) layers.push_back(layer);
    }
    return layers;
}

std::vector<float> host_values(RankRuntime& runtime, ConstTensorView value) {
    const auto count = static_cast<std::size_t>(value.elements());
    const auto copied = [&](auto element) {
        std::vector<decltype(element)> values(count);
        runtime.backend->copy(*runtime.compute, value, view_of(values.data(), value.shape));
        runtime.compute->synchronize();
        return values;
    };
    std::vector<float> floats(count);
    const auto convert = [&](const auto& values) {
        std::transform(values.begin(), values.end(), floats.begin(),
                       [](auto element) { return static_cast<float>(element); });
    };
    switch (value.dtype) {
        case DType::f32:
            return copied(0.0F);
        case DType::f64:
            convert(copied(0.0));
            return floats;
        default:
            break;
    }
    MOESAIC_ASSERT(value.dtype == DType::bf16, "weights of type {}", name_of(value.dtype));
    const std::vector<BFloat16> values = copied(BFloat16{});
    std::transform(values.begin(), values.end(), floats.begin(),
                   [](BFloat16 element) { return static_cast<float>(widened(element)); });
    return floats;
}

/// Collective over mesh.slices() where experts are cut.
std::vector<float> whole_values(RankRuntime& runtime, const Parameter& parameter) {
    std::vector<float> values = host_values(runtime, parameter.value);
    if (!parameter.is_cut()) return values;
    StepContext context = runtime.context(Phase::evaluate, 0);
    const std::vector<std::byte> whole = whole_tensor(
        context, parameter, view_of(std::as_const(values).data(), parameter.shape), "norms of the experts");
    values.resize(static_cast<std::size_t>(parameter.whole_shape().elements()));
    std::memcpy(values.data(), whole.data(), whole.size());
    return values;
}

/// The matrices of an expert in the order of ExpertNorms::matrices.
std::vector<std::string> matrix_names(const ModelSpec& spec) {
    std::vector<std::string> names{"up_proj", "down_proj"};
    if (activation_halves(spec.activation) == 2) names.emplace_back("gate_proj");
    return names;
}

std::string expert_name(int layer, i64 expert, const std::string& matrix) {
    return block_parameter_name(layer, fmt::format("mlp.experts.{}.{}.weight", expert, matrix));
}

/// Collective over mesh.slices() where experts are cut. factor, then the numbers of each matrix; on slice 0.
void measure_expert(RankRuntime& runtime, const std::map<std::string, const Parameter*>& parameters,
                    int layer, i64 expert, double radius, double* numbers) {
    const ModelSpec& spec = runtime.model.spec();
    std::vector<std::vector<float>> weights;
    double product = 1, gate = 0;
    double* at = numbers + 1;
    for (const std::string& matrix : matrix_names(spec)) {
        const Parameter& parameter = *parameters.at(expert_name(layer, expert, matrix));
        weights.push_back(whole_values(runtime, parameter));
        if (runtime.mesh->slice() != 0) continue;
        const Shape shape = parameter.whole_shape();
        const MatrixNorms norms = matrix_norms(weights.back(), shape[0], shape[1], parameter.name);
        product *= norms.frobenius;
        gate = norms.largest_row;
        for (const double number : {norms.frobenius, norms.spectral, norms.row_sum, norms.largest_row})
            *at++ = number;
    }
    if (runtime.mesh->slice() != 0) return;
    numbers[0] = spec.activation == ActivationKind::swiglu
                     ? kSwigluFactor * radius * gate * path_norm(weights[1], weights[0], spec.hidden)
                     : product;
}

GateKind softmax_kind(const ModelSpec& spec) {
    const bool over_chosen = spec.router.normalize || spec.router.score == RouterScore::softmax_over_top_k;
    return over_chosen ? GateKind::softmax : GateKind::softmax_all;
}

/// As in evaluation, without noise; empty where theorem 1 has no kind for it: sigmoid scores, choices that
/// more than the order of a token's own logits decides.
std::optional<GateKind> gate_of(const ModelSpec& spec) {
    if (spec.capacity) return {};
    if (!router_traits(spec.router).learns) return GateKind::frozen;
    constexpr std::array kByOrder{"top_k", "switch", "noisy_top_k"};
    if (std::find(kByOrder.begin(), kByOrder.end(), spec.router.kind) == kByOrder.end()) return {};
    if (spec.top_k == 1 && spec.router.normalize) return GateKind::uniform;
    if (spec.router.score == RouterScore::sigmoid) return {};
    return softmax_kind(spec);
}

}  // namespace

RoutingMeasure::RoutingMeasure(RankRuntime& runtime, RoutingObserver* next)
    : runtime_(runtime), next_(next), layers_(expert_layers(runtime.model.spec())), sums_(layers_.size()) {
    for (Layer& sums : sums_) sums.load.assign(static_cast<std::size_t>(runtime.model.spec().experts), 0.0);
}

void RoutingMeasure::routed(StepContext& context, int layer, const Routing& routing) {
    if (next_ != nullptr) next_->routed(context, layer, routing);
    const auto place = std::find(layers_.begin(), layers_.end(), layer) - layers_.begin();
    Layer& sums = sums_.at(static_cast<std::size_t>(place));
    const std::vector<float> weights = host_values(runtime_, routing.weight);
    std::vector<i32> experts(static_cast<std::size_t>(routing.expert.elements()));
    context.backend.copy(context.compute, routing.expert,
                         view_of(experts.data(), {routing.expert.rows(), routing.expert.cols()}));
    context.compute.synchronize();
    sums.tokens += static_cast<double>(routing.expert.rows());
    for (std::size_t i = 0; i < experts.size(); ++i) {
        if (experts[i] < 0) continue;
        ++sums.load[static_cast<std::size_t>(experts[i])];
        sums.squared_weights += static_cast<double>(weights[i]) * static_cast<double>(weights[i]);
    }
}

std::vector<RoutingMeasure::Layer> RoutingMeasure::finish() {
    std::vector<double> numbers;
    for (const Layer& sums : sums_) {
        numbers.push_back(sums.tokens);
        numbers.push_back(sums.squared_weights);
        numbers.insert(numbers.end(), sums.load.begin(), sums.load.end());
    }
    if (numbers.empty()) return {};
    runtime_.mesh->world().all_reduce(*runtime_.exchange, view_of(numbers.data(), {std::ssize(numbers)}),
                                      ReduceOp::sum, {"routing of the evaluation"});
    runtime_.exchange->synchronize();
    std::vector<Layer> layers = sums_;
    auto at = numbers.begin();
    for (Layer& layer : layers) {
        layer.tokens = *at++;
        layer.squared_weights = *at++;
        std::copy_n(at, layer.load.size(), layer.load.begin());
        at += std::ssize(layer.load);
    }
    return layers;
}

double RoutingMeasure::Layer::k_eff() const {
    return squared_weights > 0 ? tokens / squared_weights : 0;
}

double RoutingMeasure::Layer::effective_experts() const {
    double total = 0, entropy = 0;
    for (const double count : load) total += count;
    for (const double count : load) {
        if (count > 0) entropy -= count / total * std::log(count / total);
    }
    return total > 0 ? std::exp(entropy) : 0;
}

const ExpertNorms& LayerNormsOfExperts::largest() const {
    return *std::max_element(experts.begin(), experts.end(),
                             [](const auto& a, const auto& b) { return a.factor < b.factor; });
}

double LayerNormsOfExperts::stacked_factor() const {
    double squares = 0;
    for (const ExpertNorms& expert : experts) squares += expert.factor * expert.factor;
    return std::sqrt(squares);
}

std::vector<LayerNormsOfExperts> measure_experts(RankRuntime& runtime) {
    const ModelSpec& spec = runtime.model.spec();
    const std::vector<int> layers = expert_layers(spec);
    // Without a norm before the experts nothing bounds their inputs; a MoMLP's experts are whole networks.
    if (layers.empty() || spec.kind == ModelKind::momlp || !spec.residual) return {};
    std::map<std::string, const Parameter*> parameters;
    for (const Parameter& parameter : std::as_const(runtime.store).parameters())
        parameters[parameter.name] = &parameter;
    const auto matrices = static_cast<i64>(matrix_names(spec).size());
    const i64 of_expert = 1 + matrices * kMatrixNumbers;
    std::vector<LayerNormsOfExperts> norms(layers.size());
    std::vector<double> numbers(layers.size() * static_cast<std::size_t>(spec.experts * of_expert), 0.0);
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const std::string norm = block_parameter_name(layers[i], spec.kind == ModelKind::transformer
                                                                     ? "post_attention_layernorm.weight"
                                                                     : "norm.weight");
        for (const float weight : host_values(runtime, parameters.at(norm)->value))
            norms[i].radius = std::max(norms[i].radius, std::abs(static_cast<double>(weight)));
        norms[i].radius *= std::sqrt(static_cast<double>(spec.width));
        if (runtime.mesh->replicas().rank() != 0) continue;  // an expert's replicas hold the same weights
        for (const i32 expert : runtime.mesh->own_experts(layers[i]))
            measure_expert(runtime, parameters, layers[i], expert, norms[i].radius,
                           numbers.data() + (static_cast<i64>(i) * spec.experts + expert) * of_expert);
    }
    runtime.mesh->world().all_reduce(*runtime.exchange, view_of(numbers.data(), {std::ssize(numbers)}),
                                     ReduceOp::sum, {"norms of the experts"});
    runtime.exchange->synchronize();
    const double* at = numbers.data();
    for (LayerNormsOfExperts& layer : norms) {
        for (i64 expert = 0; expert < spec.experts; ++expert) {
            ExpertNorms& one = layer.experts.emplace_back();
            one.factor = *at++;
            for (i64 matrix = 0; matrix < matrices; ++matrix, at += kMatrixNumbers)
                one.matrices.push_back({at[0], at[1], at[2], at[3]});
        }
    }
    return norms;
}

std::map<std::string, std::vector<double>> measures_by_name(const std::vector<RoutingMeasure::Layer>& routing,
                                                            const std::vector<LayerNormsOfExperts>& norms) {
    std::map<std::string, std::vector<double>> measures;
    for (const RoutingMeasure::Layer& layer : routing) {
        measures["k_eff"].push_back(layer.k_eff());
        measures["effective_experts"].push_back(layer.effective_experts());
    }
    for (const LayerNormsOfExperts& layer : norms) {
        const auto largest = [&](double MatrixNorms::*norm) {
            double value = 0;
            for (const ExpertNorms& expert : layer.experts) {
                for (const MatrixNorms& matrix : expert.matrices) value = std::max(value, matrix.*norm);
            }
            return value;
        };
        measures["radius"].push_back(layer.radius);
        measures["expert_factor"].push_back(layer.largest().factor);
        measures["stacked_factor"].push_back(layer.stacked_factor());
        measures["expert_frobenius"].push_back(largest(&MatrixNorms::frobenius));
        measures["expert_spectral"].push_back(largest(&MatrixNorms::spectral));
        measures["expert_rows"].push_back(largest(&MatrixNorms::row_sum));
    }
    return measures;
}

BoundInputs gap_bound_inputs(const ModelSpec& spec, const std::vector<LayerNormsOfExperts>& norms,
                             const TrainedUnits& trained, double margin, double delta) {
    BoundInputs inputs;
    if (norms.empty() || trained.units < 1) return inputs;
    const LayerNormsOfExperts& layer = *std::max_element(
        norms.begin(), norms.end(),
        [](const auto& a, const auto& b) { return a.stacked_factor() < b.stacked_factor(); });
    const auto experts = static_cast<double>(spec.experts), width = static_cast<double>(spec.width);
    inputs.samples = trained.units;
    inputs.routed_tokens = std::max(1.0, trained.rows / trained.units);
    inputs.experts = experts;
    inputs.top_k = static_cast<double>(spec.top_k);
    inputs.delta = delta;
    inputs.classes = static_cast<double>(spec.head_outputs());
    inputs.lipschitz = std::numbers::sqrt2 / margin;  // of the ramp, in the logits
    inputs.router_inputs = width;
    inputs.router_bias = false;
    inputs.natarajan = experts * width;  // a linear router's masks, for every k
    // Weights that sum to at most `scale` are those of the theorem on experts that are `scale` times as
    // large.
    inputs.norm = spec.router.scale * layer.largest().factor;
    inputs.stacked_norm = spec.router.scale * layer.stacked_factor();
    inputs.radius = layer.radius;
    inputs.rademacher = linear_rademacher(*inputs.norm, layer.radius, trained.units);
    inputs.expert_layers = spec.activation == ActivationKind::relu ? 2 : 1;
    inputs.shared_experts = static_cast<double>(spec.shared_experts);
    inputs.gate = gate_of(spec);
    inputs.gate_of_no_kind = !inputs.gate;
    inputs.layers_below_frozen = false;
    inputs.caps_a_priori = false;    // measured after training
    inputs.experts_covered = false;  // a residual, a norm and the head make the logits of what experts return
    inputs.margin = margin;
    for (const MatrixNorms& matrix : layer.largest().matrices) {
        inputs.layer_spectral.push_back(matrix.spectral);
        inputs.layer_frobenius.push_back(matrix.frobenius);
        inputs.layer_rows.push_back(matrix.row_sum);
    }
    inputs.expert_widths = {width, static_cast<double>(spec.hidden), width};
    return inputs;
}

}  // namespace moesaic
