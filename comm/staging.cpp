#include "comm/staging.h"

#include <algorithm>
#include <bit>

namespace moesaic {

StagingPool::~StagingPool() {
    for (const auto& [bytes, data] : free_) source_->release_staging(data);
}

void* StagingPool::take(DeviceMemorySource& source, i64& bytes) {
    source_ = &source;
    if (const auto fit = free_.lower_bound(bytes); fit != free_.end()) {
        void* const data = fit->second;
        bytes = fit->first;
        free_.erase(fit);
        return data;
    }
    // Rows that are routed differ a little from step to step.
    constexpr i64 kLeast = 4096;
    bytes = static_cast<i64>(std::bit_ceil(static_cast<u64>(std::max(bytes, kLeast))));
    void* const data = source.allocate_staging(bytes);
    if (!data)
        throw Error(fmt::format("out of memory that host and device share: {} bytes were refused", bytes));
    return data;
}

StagedRows::StagedRows(StagingPool& pool, Stream& stream, TensorView rows, Use use)
    : pool_(pool), stream_(stream), rows_(rows), use_(use) {
    const bool on_device = rows.device != Device::cpu && static_cast<HostStream&>(stream).of_device();
    if (!on_device || rows.bytes() == 0) return;
    source_ = device_memory(rows.device);
    capacity_ = rows.bytes();
    copy_ = pool_.take(*source_, capacity_);
    if (use_ == Use::write) return;
    try {
        source_->copy(stream_, rows_.data, copy_, rows_.bytes());
    } catch (...) {  // there will be no destructor
        pool_.give_back(copy_, capacity_);
        throw;
    }
}

StagedRows::~StagedRows() {
    if (copy_) pool_.give_back(copy_, capacity_);
}

void StagedRows::finish() {
    if (!copy_ || use_ == Use::read) return;
    source_->copy(stream_, copy_, rows_.data, rows_.bytes());
    stream_.synchronize();  // the next verb may write the copy
}

}  // namespace moesaic
