#include "comm/traffic_ledger.h"

namespace moesaic {

SentBytes& SentBytes::operator+=(const SentBytes& other) {
    self += other.self;
    same_node += other.same_node;
    cross_node += other.cross_node;
    return *this;
}

SentBytes operator-(const SentBytes& a, const SentBytes& b) {
    return {a.self - b.self, a.same_node - b.same_node, a.cross_node - b.cross_node};
}

void TrafficLedger::record(std::string_view operation, int layer, const SentBytes& bytes) {
    bytes_[{operation, layer}] += bytes;
}

std::vector<TrafficLedger::Line> TrafficLedger::lines() const {
    std::vector<Line> lines;
    for (const auto& [key, bytes] : bytes_) lines.push_back({key.first, key.second, bytes});
    return lines;
}

SentBytes TrafficLedger::of(std::string_view operation) const {
    SentBytes sum;
    for (const auto& [key, bytes] : bytes_) {
        if (key.first == operation) sum += bytes;
    }
    return sum;
}

SentBytes TrafficLedger::of(std::string_view operation, int layer) const {
    const auto found = bytes_.find({operation, layer});
    return found == bytes_.end() ? SentBytes{} : found->second;
}

SentBytes TrafficLedger::of_rows() const {
    SentBytes sum;
    for (const std::string_view phase : kRowPhases) sum += of(phase);
    return sum;
}

}  // namespace moesaic
