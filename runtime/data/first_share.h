// Data of which training sees a share only: what a prior of PAC-Bayes is trained on, so that the rest
// certifies.
#pragma once

#include <memory>

#include "runtime/data/task_data.h"

namespace moesaic {

/// The same samples as of `data` by the same numbers, but the stream keeps to the first `share` of the first
/// epoch of `data`: it begins as that of `data` does, and comes back to these samples, in an order of its own
/// for every further epoch.
class FirstShare final : public TaskData {
  public:
    /// share in (0, 1); at least one sample is kept.
    FirstShare(std::unique_ptr<TaskData> data, double share);

    /// How many of so many samples are kept: all of them where share is 1.
    [[nodiscard]] static i64 size_of(double share, i64 samples);

    [[nodiscard]] i64 training_windows() const override;
    [[nodiscard]] i64 training_sequence(u64 seed, i64 number) const override;
    [[nodiscard]] i64 first_epoch_sequences(u64 seed) const override;
    [[nodiscard]] std::string fingerprint() const override;

    [[nodiscard]] SampleShape shape() const override { return data_->shape(); }
    [[nodiscard]] i64 validation_windows() const override { return data_->validation_windows(); }
    [[nodiscard]] std::vector<WindowDocument> documents_of(DataPart part, i64 window) const override {
        return data_->documents_of(part, window);
    }
    [[nodiscard]] std::vector<WindowDocument> documents_first_met(u64 seed, i64 number) const override {
        return data_->documents_first_met(seed, number);
    }
    void training_window(i64 index, WindowBuffer out) const override { data_->training_window(index, out); }
    void validation_window(i64 index, WindowBuffer out) const override {
        data_->validation_window(index, out);
    }
    [[nodiscard]] i64 shifted_windows() const override { return data_->shifted_windows(); }
    [[nodiscard]] SampleError error() const override { return data_->error(); }
    [[nodiscard]] double distance_unit() const override { return data_->distance_unit(); }
    [[nodiscard]] std::span<const std::string> domains() const override { return data_->domains(); }
    [[nodiscard]] std::size_t domain_of_validation(i64 window) const override {
        return data_->domain_of_validation(window);
    }
    [[nodiscard]] std::span<const float> prototypes() const override { return data_->prototypes(); }
    [[nodiscard]] std::string unit() const override { return data_->unit(); }
    [[nodiscard]] std::string row_name() const override { return data_->row_name(); }
    [[nodiscard]] std::string loss_unit() const override { return data_->loss_unit(); }
    [[nodiscard]] std::span<const std::string> warnings() const override { return data_->warnings(); }
    [[nodiscard]] std::vector<std::string> files() const override { return data_->files(); }

  private:
    [[nodiscard]] i64 kept(u64 seed) const;

    std::unique_ptr<TaskData> data_;
    double share_;
};

}  // namespace moesaic
