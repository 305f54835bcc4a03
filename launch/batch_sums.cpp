#include "launch/batch_sums.h"

namespace moesaic {

BatchSums::BatchSums(const MicroBatches& batches, const ModelSpec& spec)
    : batches_(batches),
      real_sums_(spec.balance.importance > 0 || spec.balance.load > 0),
      slots_(static_cast<std::size_t>(spec.expert_layers() * spec.experts)),
      counts_(slots_, 0) {
    if (real_sums_) real_.resize(static_cast<std::size_t>(batches.micro_steps()) * 2 * slots_, 0.0);
}

void BatchSums::add(i64 micro_step, const std::vector<RouterStatistics>& routers) {
    std::size_t slot = 0;
    double* const real =
        real_sums_ ? real_.data() + static_cast<std::size_t>(micro_step) * 2 * slots_ : nullptr;
    for (const RouterStatistics& router : routers) {
        for (std::size_t e = 0; e < router.balance_counts.size(); ++e, ++slot) {
            counts_[slot] += router.balance_counts[e];
            if (!real_sums_) continue;
            real[slot] = router.weights[e];
            real[slots_ + slot] = router.loads[e];
        }
    }
}

void BatchSums::gather(Communicator& world, Stream& exchange, GlobalBatch& global) {
    world.all_reduce(exchange, view_of(counts_.data(), {static_cast<i64>(slots_)}), ReduceOp::sum,
                     {"choices of the batch"});
    exchange.synchronize();
    global.expert_counts = counts_;
    if (!real_sums_) return;
    const auto size = static_cast<i64>(real_.size());
    std::vector<double> all(real_.size() * static_cast<std::size_t>(world.size()));
    world.all_gather(exchange, view_of(real_.data(), {size}), view_of(all.data(), {size * world.size()}),
                     {"weights and loads of the batch"});
    exchange.synchronize();
    global.expert_weights.assign(slots_, 0.0);
    global.expert_loads.assign(slots_, 0.0);
    for (i64 step = 0; step < batches_.micro_steps(); ++step) {
        for (i64 rank = 0; rank < world.size(); ++rank) {
            const double* const part = all.data() + rank * size + step * 2 * static_cast<i64>(slots_);
            for (std::size_t slot = 0; slot < slots_; ++slot) {
                global.expert_weights[slot] += part[slot];
                global.expert_loads[slot] += part[slots_ + slot];
            }
        }
    }
}

}  // namespace moesaic
