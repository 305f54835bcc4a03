// What one rank has to do in a training step, in operations and bytes, by closed forms of the model's shape.
#pragma once

#include "launch/run_setup.h"

namespace moesaic {

struct PlannedLayout {
    i64 ranks = 1, expert_parallel = 1, expert_tensor = 1;
    [[nodiscard]] i64 group() const { return expert_parallel * expert_tensor; }
    [[nodiscard]] i64 replicas() const { return ranks / group(); }
};

/// Of the rank with most micro-batches and the mean load of rows; forward and backward. Bytes are what has to
/// be read and written at least once, in the stored type, unless said otherwise.
struct StepWork {
    double micro_steps = 0;
    double projection_flops = 0;  ///< of attention, dense feed-forwards and shared experts
    double score_flops = 0;       ///< attention's two products, causal ones half
    double expert_flops = 0, router_flops = 0, head_flops = 0;
    double attention_bytes = 0, expert_row_bytes = 0;
    double expert_weight_bytes = 0;  ///< weights, and their gradients' sums, in every micro-step
    double router_scores = 0;        ///< tokens times experts times 8
    double logit_bytes = 0;
    double packing_bytes = 0;  ///< rows gathered for other ranks and added up again
    double folding_bytes = 0;  ///< replicated gradients into their sums, in every micro-step
    double update_bytes = 0;   ///< weights, moments and gradients that the rank owns
    double operations = 0;     ///< calls of the back end
    double collectives = 0;    ///< of rows and counts
    /// Sums of gradients and weights back, sent by this rank: over the world, and over replicas.
    double replicated_sync_bytes = 0, expert_sync_bytes = 0;

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("micro_steps", micro_steps);
        visit("projection_flops", projection_flops);
        visit("score_flops", score_flops);
        visit("expert_flops", expert_flops);
        visit("router_flops", router_flops);
        visit("head_flops", head_flops);
        visit("attention_bytes", attention_bytes);
        visit("expert_row_bytes", expert_row_bytes);
        visit("expert_weight_bytes", expert_weight_bytes);
        visit("router_scores", router_scores);
        visit("logit_bytes", logit_bytes);
        visit("packing_bytes", packing_bytes);
        visit("folding_bytes", folding_bytes);
        visit("update_bytes", update_bytes);
        visit("operations", operations);
        visit("collectives", collectives);
        visit("replicated_sync_bytes", replicated_sync_bytes);
        visit("expert_sync_bytes", expert_sync_bytes);
    }
};

/// With `on_host` as the CPU computes it.
[[nodiscard]] StepWork step_work(const RunSetup& run, const PlannedLayout& layout, bool on_host);

}  // namespace moesaic
