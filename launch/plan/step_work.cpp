#include "launch/plan/step_work.h"

#include <algorithm>

#include "launch/micro_batches.h"
#include "launch/rank_runtime.h"
#include "launch/trainer.h"

namespace moesaic {

namespace {

/// Of an element of what products are summed in.
double sum_element_bytes(const RunSetup& run) {
    return static_cast<double>(size_of(accumulation_type(precision_of(run.config))));
}

/// Forward and both products of the backward: 6 per weight and row. With recomputation the forward twice.
double product_flops(const ModelSpec& spec, double weights, double rows) {
    return (spec.recompute ? 8.0 : 6.0) * weights * rows;
}

/// Of layers, per token of all of the rank's micro-steps.
void add_layers(const ModelSpec& spec, const PlannedLayout& layout, double tokens, double stored,
                double sum_bytes, StepWork& work) {
    const auto width = static_cast<double>(spec.width), layers = static_cast<double>(spec.layers);
    const auto query = static_cast<double>(spec.heads * spec.head_dim);
    const auto key = static_cast<double>(spec.kv_heads * spec.head_dim);
    const double moe = spec.expert_layers(), dense = layers - moe;
    if (spec.kind == ModelKind::transformer) {
        const double keys = static_cast<double>(spec.seq_len) * (spec.causal ? 0.5 : 1.0);
        work.projection_flops += layers * product_flops(spec, width * (2 * query + 2 * key), tokens);
        work.score_flops += layers * product_flops(spec, 2 * keys * query, tokens);
        work.attention_bytes += layers * tokens * stored * (10 * width + 8 * query + 8 * key);
    }
    const auto dense_weights = static_cast<double>(spec.feed_forward_parameters(spec.dense_hidden));
    const auto shared =
        static_cast<double>(spec.shared_experts > 0 ? spec.feed_forward_parameters(spec.shared_hidden()) : 0);
    work.projection_flops += product_flops(spec, dense * dense_weights + moe * shared, tokens);
    if (moe == 0) return;
    const auto experts = static_cast<double>(spec.experts);
    const auto expert = static_cast<double>(spec.feed_forward_parameters(spec.hidden));
    const auto slices = static_cast<double>(layout.expert_tensor);
    const double rows =
        tokens * static_cast<double>(spec.top_k);  // as many as arrive from others, in the mean
    const double columns = static_cast<double>(spec.hidden * (1 + activation_halves(spec.activation)));
    work.expert_flops += moe * product_flops(spec, expert, rows);
    work.expert_row_bytes += moe * rows * stored * (4 * width * slices + 3 * columns);
    const double held = moe * experts * expert / static_cast<double>(layout.group());
    work.expert_weight_bytes += work.micro_steps * held * (2 * stored + sum_bytes);
    work.router_flops +=
        moe * product_flops(spec, router_traits(spec.router).matrices * width * experts, tokens);
    work.router_scores += moe * tokens * experts * 8;
    work.packing_bytes += moe * rows * slices * width * stored * 8;
}

void add_weights(const RunSetup& run, const PlannedLayout& layout, double stored, bool once, StepWork& work) {
    const ModelSpec& spec = run.spec;
    const double all = static_cast<double>(count_parameters(spec).total);
    const double experts =
        static_cast<double>(spec.feed_forward_parameters(spec.hidden) * spec.experts * spec.expert_layers());
    const double replicated = all - experts, held = experts / static_cast<double>(layout.group());
    const auto ranks = static_cast<double>(layout.ranks), replicas = static_cast<double>(layout.replicas());
    const double owners = run.config.parallel.zero == 1 ? 1 : 0;  // whether moments are shared out
    const double own = owners > 0 ? replicated / ranks + held / replicas : replicated + held;
    const double real = sum_element_bytes(run);
    work.folding_bytes += work.micro_steps * replicated * (once ? 2 * real : stored + 16);
    work.update_bytes += own * (7 * real);
    const double back = owners > 0 ? stored : real;
    work.replicated_sync_bytes = replicated * (8 + back) * (ranks - 1) / ranks;
    work.expert_sync_bytes = held * (8 + back) * (replicas - 1) / replicas;
}

}  // namespace

StepWork step_work(const RunSetup& run, const PlannedLayout& layout, bool on_host) {
    const ModelSpec& spec = run.spec;
    const TrainConfig& train = run.config.train;
    const MicroBatches batches{train.batch_sequences, train.micro_sequences, static_cast<int>(layout.ranks)};
    StepWork work;
    work.micro_steps = static_cast<double>(batches.micro_steps());
    const double sequences = static_cast<double>(
        std::min<i64>(train.batch_sequences, train.micro_sequences * batches.micro_steps()));
    const double tokens = sequences * static_cast<double>(spec.seq_len);
    const auto stored = static_cast<double>(size_of(precision_of(run.config)));
    const bool once = on_host && adds_gradients_once(run.config, spec, layout.ranks);
    const double sum_bytes = once ? sum_element_bytes(run) : 16;  // written; or in f64, read and written
    add_layers(spec, layout, tokens, stored, sum_bytes, work);
    const auto outputs = static_cast<double>(spec.head_outputs()), width = static_cast<double>(spec.width);
    work.head_flops = 6 * outputs * width * tokens;
    work.logit_bytes = tokens * outputs * 4 * 6;
    add_weights(run, layout, stored, once, work);
    const double moe = spec.expert_layers(), dense = spec.layers - moe;
    work.operations = work.micro_steps * (20 + 60 * moe + 45 * dense);
    work.collectives = layout.group() > 1 ? work.micro_steps * moe * 5 : 0;
    return work;
}

}  // namespace moesaic
