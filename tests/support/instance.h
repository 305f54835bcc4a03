// One generated instance, as tests look at it.
#pragma once

#include "runtime/data/task_data.h"

namespace moesaic {

struct Instance {
    std::vector<i32> tokens, targets;
};

[[nodiscard]] inline Instance instance_of(const TaskData& data, bool heldout, i64 index) {
    const auto length = static_cast<std::size_t>(data.shape().seq_len);
    Instance one{std::vector<i32>(length), std::vector<i32>(length)};
    WindowBuffer buffer(one.tokens.data());
    buffer.targets = one.targets.data();
    heldout ? data.validation_window(index, buffer) : data.training_window(index, buffer);
    return one;
}

}  // namespace moesaic
