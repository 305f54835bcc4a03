#include "tests/cuda_host/hopper/instructions_model.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <utility>
#include <vector>

#include "tests/cuda_host/block.h"

namespace cuda_host {

namespace {

constexpr int kWarpgroup = 128;

struct Copy {
    unsigned shared;
    ModelMap map;
    int x, y, z;
};
struct Barrier {
    unsigned arrivals = 0, missing = 0;
    std::int64_t missing_bytes = 0;
    unsigned phase = 0;
    std::vector<Copy> copies = {};  ///< that have not begun
};
struct Meeting {
    int arrived = 0;
    unsigned meetings = 0;
};
/// Of a warpgroup, in order, as far as they have not run; each thread's sums.
struct Products {
    struct One {
        ModelProduct product;
        std::array<float*, kWarpgroup> sums;
        int joined;
    };
    std::vector<One> all;
    std::array<std::size_t, kWarpgroup> started{}, committed{};
    std::array<std::vector<std::size_t>, kWarpgroup> commits{};  ///< how many had started
    std::size_t done = 0;
};
/// What the instructions of a block share.
struct BlockState {
    unsigned block = ~0u;
    std::map<unsigned, Barrier> barriers;
    std::map<int, Meeting> meetings;
    std::array<Products, 8> products;
    unsigned copies = 0;
};

BlockState& state() {
    static BlockState current;
    if (current.block != blockIdx.x) {
        current = {};
        current.block = blockIdx.x;
    }
    return current;
}

[[noreturn]] void fail(const std::string& what) {
    BlockExecutor::instance().fail(what);
}

/// Lets others run until `is_over()`.
template <class IsOver>
void wait_until(const IsOver& is_over, const std::string& what) {
    constexpr int kMostTurns = 20000;  // of all threads
    for (int turn = 0; !is_over(); ++turn) {
        if (turn == kMostTurns) fail(fmt::format("thread {} waits for ever: {}", thread_number(), what));
        BlockExecutor::instance().pause();
    }
}

/// 16 bytes stand where bits 4 to 6 of their address are changed by bits 7 to 9.
unsigned swizzled(unsigned address) {
    return address ^ (address >> 7 & 7) << 4;
}

Barrier& barrier_at(unsigned address) {
    const auto found = state().barriers.find(address);
    if (found == state().barriers.end()) fail(fmt::format("no barrier was started at {}", address));
    return found->second;
}

void end_phase_if_complete(Barrier& barrier) {
    if (barrier.missing > 0 || barrier.missing_bytes != 0) return;
    ++barrier.phase;
    barrier.missing = barrier.arrivals;
}

/// Boxes have rows of 64 elements.
void carry_out(const Copy& copy, Barrier& barrier) {
    for (int row = 0; row < copy.map.box_rows; ++row) {
        for (int i = 0; i < 64; ++i) {
            const std::int64_t x = copy.x + i, y = copy.y + row, z = copy.z;
            const auto& [columns, rows, count] = copy.map.extents;
            const bool inside = x >= 0 && x < columns && y >= 0 && y < rows && z >= 0 && z < count;
            const std::uint16_t value = inside ? copy.map.data[(z * rows + y) * columns + x] : 0;
            const unsigned to = swizzled(copy.shared + static_cast<unsigned>(row * 128 + i * 2));
            std::memcpy(shared_bytes(to, sizeof value), &value, sizeof value);
        }
    }
    barrier.missing_bytes -= std::int64_t{128} * copy.map.box_rows;
}

/// An operand's element (i, k) for rows or columns i and terms k, as its descriptor says.
float element(std::uint64_t descriptor, bool transposed, int i, int k) {
    if (descriptor >> 62 != 1) fail("an operand without a swizzle of 128 bytes");
    const auto field = [&](int bit) { return static_cast<unsigned>(descriptor >> bit & 0x3FFF) << 4; };
    const unsigned begin = field(0), boxes = field(16), eights = field(32);
    const auto row = static_cast<unsigned>(transposed ? k : i),
               column = static_cast<unsigned>(transposed ? i : k);
    const unsigned box = column / 64 * boxes;
    std::uint16_t value;
    std::memcpy(&value,
                shared_bytes(swizzled(begin + box + row / 8 * eights + row % 8 * 128 + column % 64 * 2), 2),
                2);
    return __uint_as_float(static_cast<unsigned>(value) << 16);
}

void carry_out(const Products::One& one) {
    constexpr int kRows = 64, kColumns = 256, kTerms = 16;
    static float a[kRows][kTerms], b[kColumns][kTerms];
    for (int k = 0; k < kTerms; ++k) {
        for (int i = 0; i < kRows; ++i) a[i][k] = element(one.product.a, one.product.transpose_a, i, k);
        for (int j = 0; j < kColumns; ++j) b[j][k] = element(one.product.b, one.product.transpose_b, j, k);
    }
    for (int i = 0; i < kRows; ++i) {
        for (int j = 0; j < kColumns; ++j) {
            const int thread = i / 16 * 32 + i % 8 * 4 + j % 8 / 2;
            float& sum = one.sums[static_cast<std::size_t>(thread)][j / 8 * 4 + i % 16 / 8 * 2 + j % 2];
            float result = one.product.onto ? sum : 0;
            for (int k = 0; k < kTerms; ++k) result += a[i][k] * b[j][k];
            sum = result;
        }
    }
}

Products& products() {
    return state().products[static_cast<std::size_t>(thread_number() / kWarpgroup)];
}
std::size_t place_in_warpgroup() {
    return static_cast<std::size_t>(thread_number() % kWarpgroup);
}

}  // namespace

CUtensorMap map_of(const ModelMap& map) {
    static_assert(sizeof map <= sizeof(CUtensorMap));
    CUtensorMap opaque{};
    std::memcpy(&opaque, &map, sizeof map);
    return opaque;
}

unsigned char* shared_bytes(unsigned address, std::size_t bytes) {
    if (address < kFirstSharedAddress || address % bytes != 0)
        fail(fmt::format("shared address {}", address));
    return static_cast<unsigned char*>(dynamic_shared()) + (address - kFirstSharedAddress);
}

void barrier_start(unsigned barrier, unsigned arrivals) {
    shared_bytes(barrier, 8);
    state().barriers[barrier] = {.arrivals = arrivals, .missing = arrivals};
}

void barrier_arrive(unsigned address, unsigned bytes) {
    Barrier& barrier = barrier_at(address);
    if (barrier.missing == 0) fail(fmt::format("more arrivals than {} at a barrier", barrier.arrivals));
    --barrier.missing;
    barrier.missing_bytes += bytes;
    end_phase_if_complete(barrier);
}

void barrier_wait(unsigned address, unsigned parity) {
    Barrier& barrier = barrier_at(address);
    wait_until(
        [&] {
            for (const Copy& copy : std::exchange(barrier.copies, {})) {
                carry_out(copy, barrier);
                end_phase_if_complete(barrier);
            }
            return (barrier.phase & 1) != parity;
        },
        fmt::format("a barrier of phase {}, {} arrivals and {} bytes missing", barrier.phase, barrier.missing,
                    barrier.missing_bytes));
}

void meet_some(int number, int threads) {
    Meeting& meeting = state().meetings[number];
    const unsigned mine = meeting.meetings;
    if (++meeting.arrived == threads) {
        meeting.arrived = 0;
        ++meeting.meetings;
    }
    wait_until([&] { return meeting.meetings != mine; }, fmt::format("named barrier {}", number));
}

/// Every second one at once, and the others as late as can be: what is overwritten too early is found by the
/// first, and what is read too early by the second.
void copy_box(unsigned shared, const CUtensorMap& map, unsigned address, int x, int y, int z) {
    Copy copy{shared, {}, x, y, z};
    std::memcpy(&copy.map, &map, sizeof copy.map);
    if (shared % 1024 != 0) fail("a box that begins at no multiple of 1024 bytes");
    Barrier& barrier = barrier_at(address);
    if (++state().copies % 2 == 0) return barrier.copies.push_back(copy);
    carry_out(copy, barrier);
    end_phase_if_complete(barrier);
}

void start_product(const ModelProduct& product, float* sums) {
    Products& mine = products();
    const std::size_t thread = place_in_warpgroup(), number = mine.started[thread]++;
    if (number == mine.all.size()) mine.all.push_back({product, {}, 0});
    Products::One& one = mine.all[number];
    if (!(one.product == product)) fail("threads of a warpgroup start different products");
    one.sums[thread] = sums;
    ++one.joined;
}

void commit_products() {
    const std::size_t thread = place_in_warpgroup();
    products().commits[thread].push_back(products().started[thread]);
}

/// Products run as late as can be, so that what is read or overwritten too early is wrong.
void wait_for_products(int running) {
    Products& mine = products();
    const std::vector<std::size_t>& commits = mine.commits[place_in_warpgroup()];
    if (commits.size() <= static_cast<std::size_t>(running)) return;
    const std::size_t last = commits[commits.size() - 1 - static_cast<std::size_t>(running)];
    for (std::size_t i = 0; i < last; ++i)
        wait_until([&] { return mine.all[i].joined == kWarpgroup; }, "a product of part of a warpgroup");
    while (mine.done < last) carry_out(mine.all[mine.done++]);
}

}  // namespace cuda_host
