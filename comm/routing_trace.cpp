#include "comm/routing_trace.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

std::string text_of(const RoutingTraceShape& shape) {
    return fmt::format("{} steps, {} layers, {} tokens, {} choices", shape.steps, shape.layers, shape.tokens,
                       shape.choices);
}

i64 elements_of(const RoutingTraceShape& shape) {
    return shape.steps * shape.layers * shape.tokens * shape.choices;
}

}  // namespace

RoutingTrace::RoutingTrace(const std::string& path, i64 layers, i64 choices, i64 experts)
    : array_(map_npy_ids(path, experts, 4,
                         fmt::format("a trace for {} experts has their numbers, 0 to {}, and nothing else; "
                                     "record one with as many experts, in a run where tokens choose",
                                     experts, experts - 1))) {
    const std::vector<i64>& shape = array_.shape;
    if (shape.size() != 4)
        throw UserError(
            fmt::format("{}: an array of {} dimensions is no routing trace; record one with "
                        "metrics.record_routing",
                        path, shape.size()));
    shape_ = {shape[0], shape[1], shape[2], shape[3]};
    if (shape_.layers == layers && shape_.choices == choices && elements_of(shape_) > 0) return;
    throw UserError(
        fmt::format("{}: a trace of {} does not fit a model with {} layers of experts and {} "
                    "choices; set model.layers, model.moe.every and model.moe.top_k as in the run "
                    "that recorded it",
                    path, text_of(shape_), layers, choices));
}

void RoutingTrace::read(i64 step, i64 layer, i64 first_token, std::span<i32> experts) const {
    const i64 recorded_step = (step - 1) % shape_.steps;
    i64 token = first_token % shape_.tokens;
    for (std::span<i32> rest = experts; !rest.empty(); token = 0) {
        const i64 count = std::min((shape_.tokens - token) * shape_.choices, std::ssize(rest));
        const i64 first = ((recorded_step * shape_.layers + layer) * shape_.tokens + token) * shape_.choices;
        array_.ids.read(first, count, rest.data());
        rest = rest.subspan(static_cast<std::size_t>(count));
    }
    const auto choices = static_cast<std::size_t>(shape_.choices);
    for (std::size_t i = 0; i < experts.size(); ++i) {
        const auto row = experts.begin() + static_cast<std::ptrdiff_t>(i - i % choices);
        const auto here = experts.begin() + static_cast<std::ptrdiff_t>(i);
        if (std::find(row, here, *here) == here) continue;
        throw UserError(
            fmt::format("{}: token {} of layer {} at step {} has expert {} twice; was the run "
                        "that recorded it stopped before that step?",
                        array_.ids.path(), (first_token + static_cast<i64>(i / choices)) % shape_.tokens,
                        layer, recorded_step + 1, *here));
    }
}

RoutingTraceWriter::RoutingTraceWriter(std::string path, const RoutingTraceShape& shape)
    : path_(std::move(path)), shape_(shape) {
    const std::string header = npy_header("<i4", {shape.steps, shape.layers, shape.tokens, shape.choices});
    header_bytes_ = static_cast<i64>(header.size());
    file_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file_ < 0)
        throw UserError(
            fmt::format("metrics.record_routing: {}: cannot be written: {}; give a file in a "
                        "folder that all ranks share",
                        path_, std::strerror(errno)));
    // All ranks may come here at once: each writes the same header and size, and a file that is being made
    // is empty or ends within it.
    std::string found(header.size(), '\0');
    const ssize_t bytes = pread(file_, found.data(), found.size(), 0);
    if (bytes == static_cast<ssize_t>(found.size()) && found != header) {
        close(file_);
        throw UserError(
            fmt::format("metrics.record_routing: {}: is another file than a trace of {}; remove "
                        "it or give another name",
                        path_, text_of(shape)));
    }
    write_at(0, header.data(), header_bytes_);
    if (ftruncate(file_, header_bytes_ + elements_of(shape) * i64{sizeof(i32)}) != 0)
        throw Error(fmt::format("{}: {}", path_, std::strerror(errno)));
}

RoutingTraceWriter::~RoutingTraceWriter() {
    if (file_ >= 0) close(file_);
}

void RoutingTraceWriter::write(i64 step, i64 layer, i64 first_token, std::span<const i32> experts) {
    MOESAIC_ASSERT(step >= 1 && step <= shape_.steps && layer < shape_.layers &&
                       first_token * shape_.choices + std::ssize(experts) <= shape_.tokens * shape_.choices,
                   "step {}, layer {}, {} choices from token {} in a trace of {}", step, layer,
                   experts.size(), first_token, text_of(shape_));
    const i64 first = (((step - 1) * shape_.layers + layer) * shape_.tokens + first_token) * shape_.choices;
    write_at(header_bytes_ + first * i64{sizeof(i32)}, experts.data(),
             std::ssize(experts) * i64{sizeof(i32)});
}

void RoutingTraceWriter::write_at(i64 byte, const void* data, i64 bytes) {
    for (i64 done = 0; done < bytes;) {
        const ssize_t written = pwrite(file_, static_cast<const char*>(data) + done,
                                       static_cast<std::size_t>(bytes - done), byte + done);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) throw Error(fmt::format("{}: cannot be written: {}", path_, std::strerror(errno)));
        done += written;
    }
}

}  // namespace moesaic
