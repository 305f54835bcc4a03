#include "tests/cuda_host/access_statistics.h"

#include <algorithm>
#include <set>

namespace cuda_host {

void AccessStatistics::add(const PtxInstruction& instruction, PtxSpace space, const void* data,
                           std::size_t bytes) {
    const std::uint64_t block = std::uint64_t{blockIdx.y} << 32 | blockIdx.x;
    if (block != block_) end_block();
    block_ = block;
    const auto thread = static_cast<std::uint64_t>(thread_number());
    const std::uint32_t turn = turns_[thread << 32 | instruction.identity]++;
    const std::uint64_t key = (thread / 32) << 58 | std::uint64_t{instruction.identity} << 32 | turn;
    Request& request = requests_[key];
    request.space = space;
    request.location = instruction.location;
    request.accesses.emplace_back(reinterpret_cast<std::uint64_t>(data), static_cast<std::uint32_t>(bytes));
}

void AccessStatistics::end_block() {
    for (const auto& [key, request] : requests_) {
        std::set<std::uint64_t> words, sectors;
        for (const auto& [address, bytes] : request.accesses) {
            for (std::uint64_t byte = address / 2 * 2; byte < address + bytes; byte += 2)
                words.insert(byte / 2);
            for (std::uint64_t sector = address / kSectorBytes; sector * kSectorBytes < address + bytes;
                 ++sector)
                sectors.insert(sector);
        }
        Count& count = counts_[{request.location, request.space}];
        ++count.requests;
        if (request.space == PtxSpace::global) {
            count.pieces += sectors.size();
            count.least += (words.size() * 2 + kSectorBytes - 1) / kSectorBytes;
            continue;
        }
        std::uint64_t in_bank[kBanks] = {};
        std::set<std::uint64_t> banked;
        for (const std::uint64_t word : words) banked.insert(word / 2);
        for (const std::uint64_t word : banked) ++in_bank[word % kBanks];
        count.pieces += *std::max_element(std::begin(in_bank), std::end(in_bank));
        count.least += (banked.size() + kBanks - 1) / kBanks;
    }
    requests_.clear();
    turns_.clear();
}

std::map<std::string, AccessStatistics::Count> AccessStatistics::counts() {
    end_block();
    std::map<std::string, Count> named;
    for (const auto& [where, count] : counts_) {
        Count& sum = named[text_of(where.first) + (where.second == PtxSpace::global ? "" : " shared")];
        sum.requests += count.requests;
        sum.pieces += count.pieces;
        sum.least += count.least;
    }
    return named;
}

}  // namespace cuda_host
