#include "launch/batch_windows.h"

#include <algorithm>
#include <numeric>

#include "runtime/bfloat16.h"

namespace moesaic {

namespace {

/// Rounded once where `to` is narrower.
void store_features(const std::vector<float>& from, i64 count, TensorView to) {
    if (to.dtype == DType::f64) {
        std::copy_n(from.data(), count, to.as<double>());
    } else if (to.dtype == DType::f32) {
        std::copy_n(from.data(), count, to.as<float>());
    } else {
        std::transform(from.data(), from.data() + count, to.as<BFloat16>(),
                       [](float value) { return to_bfloat16(value); });
    }
}

}  // namespace

SampleShape sample_shape(const ModelSpec& spec) {
    SampleShape shape;
    shape.seq_len = spec.seq_len;
    shape.vocabulary = spec.vocabulary;
    shape.features = spec.features;
    shape.outputs = spec.outputs;
    shape.targets_at_end = spec.targets_at_end;
    shape.real_targets = spec.loss == LossKind::squared_error;
    return shape;
}

BatchWindows::BatchWindows(Backend& backend, const Mesh& mesh, const ModelSpec& spec, DType dtype,
                           i64 sequences, bool document_mask)
    : shape_(sample_shape(spec)), first_expert_(first_cell_of(mesh)) {
    const i64 rows = sequences * shape_.seq_len;
    const bool next_token = spec.predicts_next_token();
    if (spec.kind == ModelKind::momlp) {
        rows_per_expert_.resize(static_cast<std::size_t>(mesh.local_experts()));
        host_cells_.resize(static_cast<std::size_t>(rows), static_cast<i32>(first_expert_));
        order_ = backend.allocate({rows}, DType::int32);
        slot_ = backend.allocate({rows, 1}, DType::int32);
    }
    if (shape_.features > 0) {
        host_features_.resize(static_cast<std::size_t>(rows * shape_.features));
        features_ = backend.allocate({rows, shape_.features}, dtype);
    } else {
        windows_.resize(static_cast<std::size_t>(next_token ? rows + sequences : rows));
        tokens_ = backend.allocate({rows}, DType::int32);
    }
    if (shape_.real_targets) {
        host_values_.resize(static_cast<std::size_t>(rows * shape_.outputs));
        values_ = backend.allocate({rows, shape_.outputs}, DType::f64);
        return;
    }
    targets_ = backend.allocate({rows}, DType::int32);
    if (!next_token) host_targets_.resize(static_cast<std::size_t>(rows));
    if (!document_mask) return;
    documents_.resize(windows_.size());
    first_key_ = backend.allocate({rows}, DType::int32);
}

WindowBuffer BatchWindows::host() {
    WindowBuffer buffer(windows_.data(), documents_.empty() ? nullptr : documents_.data());
    buffer.targets = host_targets_.data();
    buffer.features = host_features_.data();
    buffer.values = host_values_.data();
    buffer.cells = host_cells_.empty() ? nullptr : host_cells_.data();
    return buffer;
}

i64 BatchWindows::targets(i64 sequence) const {
    const i64 seq_len = shape_.seq_len;
    i64 count = 0;
    if (!host_targets_.empty()) {
        const i32* const targets = host_targets_.data() + sequence * seq_len;
        return std::count_if(targets, targets + seq_len, [](i32 target) { return target >= 0; });
    }
    if (documents_.empty()) return seq_len;
    for (i64 t = 0; t < seq_len; ++t) count += begins_document(sequence, t + 1) ? 0 : 1;
    return count;
}

Batch BatchWindows::load(i64 count, i64 first_sequence) {
    const i64 rows = count * shape_.seq_len;
    Batch batch;
    batch.sequences = count;
    batch.seq_len = shape_.seq_len;
    batch.first_sequence = first_sequence;
    if (features_) {
        store_features(host_features_, rows * shape_.features, features_);
        batch.features = features_.slice_rows(0, rows);
    } else {
        load_windows(count);
        batch.tokens = tokens_.slice_rows(0, rows);
    }
    if (values_) {
        std::copy_n(host_values_.data(), rows * shape_.outputs, values_.as<double>());
        batch.values = values_.slice_rows(0, rows);
        if (order_) load_cells(count, batch);
        return batch;
    }
    if (!host_targets_.empty()) std::copy_n(host_targets_.data(), rows, targets_.as<i32>());
    batch.targets = targets_.slice_rows(0, rows);
    if (first_key_) batch.first_key = first_key_.slice_rows(0, rows);
    if (order_) load_cells(count, batch);
    return batch;
}

bool BatchWindows::is_here(i64 sequence) const {
    if (host_cells_.empty()) return true;
    const i64 expert = host_cells_[static_cast<std::size_t>(sequence)] - first_expert_;
    return 0 <= expert && expert < std::ssize(rows_per_expert_);
}

void BatchWindows::load_cells(i64 count, Batch& batch) {
    std::fill(rows_per_expert_.begin(), rows_per_expert_.end(), 0);
    const auto expert_of = [&](i64 sample) {
        return static_cast<std::size_t>(host_cells_[static_cast<std::size_t>(sample)] - first_expert_);
    };
    for (i64 i = 0; i < count; ++i) {
        if (is_here(i)) ++rows_per_expert_[expert_of(i)];
    }
    std::vector<i64> next(rows_per_expert_.size(), 0);
    std::exclusive_scan(rows_per_expert_.begin(), rows_per_expert_.end(), next.begin(), i64{0});
    i64 rows = 0;
    for (i64 i = 0; i < count; ++i) {
        slot_.as<i32>()[i] = -1;
        if (is_here(i)) {
            const i64 place = next[expert_of(i)]++;
            order_.as<i32>()[place] = static_cast<i32>(i);
            slot_.as<i32>()[i] = static_cast<i32>(place);
            ++rows;
        } else if (targets_) {
            targets_.as<i32>()[i] = -1;
        } else {
            std::fill_n(values_.as<double>() + i * shape_.outputs, shape_.outputs, 0.0);  // as the outputs
        }
    }
    batch.cells = {order_.slice_rows(0, rows), slot_.slice_rows(0, count), rows_per_expert_};
}

/// Tokens, and where token t of a window predicts token t+1 the targets.
void BatchWindows::load_windows(i64 count) {
    const i64 seq_len = shape_.seq_len;
    if (!host_targets_.empty()) {
        std::copy_n(windows_.data(), count * seq_len, tokens_.as<i32>());
        return;
    }
    for (i64 s = 0; s < count; ++s) {
        const i32* const window = windows_.data() + s * (seq_len + 1);
        std::copy_n(window, seq_len, tokens_.as<i32>() + s * seq_len);
        std::copy_n(window + 1, seq_len, targets_.as<i32>() + s * seq_len);
        if (!documents_.empty()) mask_documents(s);
    }
}

bool BatchWindows::begins_document(i64 sequence, i64 place) const {
    return documents_[static_cast<std::size_t>(sequence * (shape_.seq_len + 1) + place)] == place;
}

void BatchWindows::mask_documents(i64 sequence) {
    const i64 seq_len = shape_.seq_len, row = sequence * seq_len;
    const i32* const documents = documents_.data() + sequence * (seq_len + 1);
    for (i64 t = 0; t < seq_len; ++t) {
        first_key_.as<i32>()[row + t] = static_cast<i32>(row + documents[t]);
        if (begins_document(sequence, t + 1)) targets_.as<i32>()[row + t] = -1;
    }
}

}  // namespace moesaic
