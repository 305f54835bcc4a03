// Bytes that a rank hands to communicators, by purpose, layer and how far they go.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// Sent by one rank, or by several.
struct SentBytes {
    i64 self = 0;        ///< to the rank itself: a copy
    i64 same_node = 0;   ///< to other ranks of its node
    i64 cross_node = 0;  ///< to ranks of other nodes

    [[nodiscard]] i64 to_others() const { return same_node + cross_node; }
    SentBytes& operator+=(const SentBytes& other);
    bool operator==(const SentBytes&) const = default;
};
[[nodiscard]] SentBytes operator-(const SentBytes& a, const SentBytes& b);

/// Purpose and layer are a collective's Label. Counts what is passed to all_to_all_rows and all_gather_rows,
/// where a gathered row counts once for every rank that it is sent to.
class TrafficLedger {
  public:
    struct Line {
        std::string_view operation;
        int layer = -1;
        SentBytes bytes;
    };

    void record(std::string_view operation, int layer, const SentBytes& bytes);

    /// By operation and layer.
    [[nodiscard]] std::vector<Line> lines() const;
    /// Of all layers.
    [[nodiscard]] SentBytes of(std::string_view operation) const;
    [[nodiscard]] SentBytes of(std::string_view operation, int layer) const;
    /// Of the operations that move token rows, see kRowPhases.
    [[nodiscard]] SentBytes of_rows() const;

  private:
    std::map<std::pair<std::string_view, int>, SentBytes> bytes_;  // operations are string literals
};

/// What the exchanges call the uses of a plan.
inline constexpr std::string_view kCountsPhase = "counts per expert", kPlacesPhase = "places of rows",
                                  kDispatchPhase = "dispatch", kCombinePhase = "combine",
                                  kCombineBackwardPhase = "combine backward",
                                  kDispatchBackwardPhase = "dispatch backward";
/// Weights and optimizer state of experts that get another place.
inline constexpr std::string_view kMovedExpertsPhase = "moved experts";
inline constexpr std::string_view kCopiedExpertsPhase = "copied experts";
/// Those whose bytes are `exchange_bytes` of a step's record.
inline constexpr std::string_view kRowPhases[] = {kPlacesPhase, kDispatchPhase, kCombinePhase,
                                                  kCombineBackwardPhase, kDispatchBackwardPhase};

}  // namespace moesaic
