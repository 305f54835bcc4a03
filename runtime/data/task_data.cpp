#include "runtime/data/task_data.h"

#include "runtime/base/error.h"

namespace moesaic {

WindowBuffer WindowBuffer::from(i64 number, const SampleShape& shape) const {
    const i64 rows = number * shape.seq_len;
    const i64 ids = shape.outputs == 0 ? rows + number : rows;  // a window holds one token more
    const auto moved = [](auto* memory, i64 elements) { return memory ? memory + elements : memory; };
    WindowBuffer buffer(moved(tokens, ids), moved(documents, ids));
    buffer.targets = moved(targets, rows);
    buffer.features = moved(features, rows * shape.features);
    buffer.values = moved(values, rows * shape.outputs);
    buffer.cells = moved(cells, number);
    return buffer;
}

void TaskData::training_batch(u64 seed, i64 step, i64 batch_sequences, i64 first, i64 count,
                              WindowBuffer out) const {
    MOESAIC_ASSERT(step >= 1 && 0 <= first && 0 <= count && first + count <= batch_sequences,
                   "step {} first {} count {} batch_sequences {}", step, first, count, batch_sequences);
    const SampleShape sample = shape();
    for (i64 i = 0; i < count; ++i) {
        training_window(training_sequence(seed, (step - 1) * batch_sequences + first + i),
                        out.from(i, sample));
    }
}

}  // namespace moesaic
