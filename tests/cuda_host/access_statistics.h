// How well the warps' accesses use the memory system, by line of the source: sectors of device memory, and
// passes of shared memory.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/cuda_host/ptx_thread.h"

namespace cuda_host {

/// What a GPU fetches in one piece, and the banks of its shared memory, of 4 bytes each.
inline constexpr std::uint64_t kSectorBytes = 32, kBanks = 32;

/// A warp's lanes make a request together: those that come to an instruction for the n-th time in a block
/// count as together, which is exact where the lanes of a loop take the same turns.
class AccessStatistics {
  public:
    struct Count {
        std::uint64_t requests = 0;
        std::uint64_t pieces = 0;  ///< sectors that requests touch, or passes over the banks
        std::uint64_t least = 0;   ///< as few as the same bytes need if they follow one another
        [[nodiscard]] double ratio() const {
            return static_cast<double>(pieces) / static_cast<double>(least);
        }
    };

    void add(const PtxInstruction& instruction, PtxSpace space, const void* data, std::size_t bytes);
    /// After the launches whose accesses are wanted; by "file:line" and " shared" for shared memory.
    [[nodiscard]] std::map<std::string, Count> counts();

  private:
    struct Request {
        PtxSpace space;
        Location location;
        std::vector<std::pair<std::uint64_t, std::uint32_t>> accesses;  // address, bytes
    };
    void end_block();

    std::uint64_t block_ = 0;
    std::unordered_map<std::uint64_t, std::uint32_t> turns_;  // by thread and instruction
    std::map<std::uint64_t, Request> requests_;               // by warp, instruction, turn
    std::map<std::pair<Location, PtxSpace>, Count> counts_;
};

}  // namespace cuda_host
