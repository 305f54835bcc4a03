#include "runtime/data/first_share.h"

#include <algorithm>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/data/permutation.h"

namespace moesaic {

i64 FirstShare::size_of(double share, i64 samples) {
    return std::max<i64>(1, static_cast<i64>(share * static_cast<double>(samples)));
}

FirstShare::FirstShare(std::unique_ptr<TaskData> data, double share) : data_(std::move(data)), share_(share) {
    MOESAIC_ASSERT(0 < share && share < 1, "share {}", share);
}

i64 FirstShare::kept(u64 seed) const {
    return size_of(share_, data_->first_epoch_sequences(seed));
}

i64 FirstShare::training_windows() const {
    return size_of(share_, data_->training_windows());
}

i64 FirstShare::first_epoch_sequences(u64 seed) const {
    return kept(seed);
}

i64 FirstShare::training_sequence(u64 seed, i64 number) const {
    const i64 size = kept(seed), epoch = number / size, position = number % size;
    if (epoch == 0) return data_->training_sequence(seed, position);
    const KeyedPermutation order(size, seed, fmt::format("first share epoch {}", epoch));
    return data_->training_sequence(seed, order(position));
}

std::string FirstShare::fingerprint() const {
    return fmt::format("{} first {}", data_->fingerprint(), share_);
}

}  // namespace moesaic
