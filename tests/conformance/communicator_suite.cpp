#include "tests/conformance/communicator_suite.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <functional>
#include <numeric>
#include <thread>

#include "tests/conformance/shared_window_checks.h"

namespace moesaic::conformance {

namespace {

std::byte pattern(i64 source, i64 destination, i64 index) {
    const u64 mixed = static_cast<u64>(source * 7919 + destination * 104729 + index) * 0x9E3779B97F4A7C15u;
    return static_cast<std::byte>(mixed >> 53);
}

struct Width {
    DType dtype;
    i64 cols;
};
constexpr std::array kWidths{Width{DType::bf16, 1},   Width{DType::bf16, 3},  Width{DType::f32, 5},
                             Width{DType::f64, 2},    Width{DType::int32, 1}, Width{DType::int64, 33},
                             Width{DType::bf16, 4097}};

/// Rows in memory of a device; a guard behind them shows writes past the end.
struct Rows {
    Rows(i64 rows, Width width, Device device)
        : pool(device),
          count(rows * width.cols * size_of(width.dtype)),
          block(pool.take(count + kGuard)),
          bytes(static_cast<std::byte*>(block.data), static_cast<std::size_t>(count + kGuard)),
          view{{block.data, width.dtype, device, {rows, width.cols}}} {
        std::ranges::fill(bytes, std::byte{0xA5});
    }
    ~Rows() { pool.give_back(block); }
    Rows(const Rows&) = delete;
    Rows& operator=(const Rows&) = delete;
    [[nodiscard]] bool guard_stands() const {
        return std::ranges::all_of(bytes.last(kGuard), [](std::byte b) { return b == std::byte{0xA5}; });
    }
    static constexpr i64 kGuard = 16;
    MemoryPool pool;
    i64 count;
    MemoryPool::Block block;
    std::span<std::byte> bytes;
    TensorView view;
};

using CountRule = i64 (*)(int source, int destination, int size);
struct NamedRule {
    std::string_view name;
    CountRule rows;
};
constexpr std::array kRules{
    NamedRule{"uneven", [](int s, int d, int) -> i64 { return (s * 3 + d * 5 + 1) % 4; }},
    NamedRule{"nothing", [](int, int, int) -> i64 { return 0; }},
    NamedRule{"one pair", [](int s, int d, int n) -> i64 { return s == 0 && d == n - 1 ? 9 : 0; }},
    NamedRule{"all to rank 0", [](int s, int d, int) -> i64 { return d == 0 ? s + 1 : 0; }},
    NamedRule{"last sends nothing", [](int s, int d, int n) -> i64 { return s == n - 1 ? 0 : d + 2; }},
    NamedRule{"rank 0 gets nothing", [](int s, int d, int) -> i64 { return d == 0 ? 0 : s + d; }},
};

void all_to_all_case(Communicator& world, Stream& stream, Device memory, NamedRule rule, Width width,
                     Failures& failures) {
    const int me = world.rank(), size = world.size();
    std::vector<i64> out, in;
    for (int peer = 0; peer < size; ++peer) {
        out.push_back(rule.rows(me, peer, size));
        in.push_back(rule.rows(peer, me, size));
    }
    Rows send(std::reduce(out.begin(), out.end()), width, memory),
        recv(std::reduce(in.begin(), in.end()), width, memory);
    const i64 row_bytes = width.cols * size_of(width.dtype);
    std::size_t at = 0;
    for (int peer = 0; peer < size; ++peer) {
        for (i64 i = 0; i < out[static_cast<std::size_t>(peer)] * row_bytes; ++i)
            send.bytes[at++] = pattern(me, peer, i);
    }
    auto out_passed = out, in_passed = in;
    world.all_to_all_rows(stream, send.view, out_passed, recv.view, in_passed, {"check", 3});
    std::ranges::fill(out_passed, -1);  // the verb keeps its own copy
    std::ranges::fill(in_passed, -1);
    stream.synchronize();
    at = 0;
    for (int peer = 0; peer < size; ++peer) {
        i64 wrong = 0;
        for (i64 i = 0; i < in[static_cast<std::size_t>(peer)] * row_bytes; ++i) {
            wrong += recv.bytes[at++] != pattern(peer, me, i);
        }
        failures.expect(wrong == 0, "{} of {} columns: {} wrong bytes from rank {}", rule.name, width.cols,
                        wrong, peer);
    }
    failures.expect(recv.guard_stands(), "{}: written past the end", rule.name);
}

void all_to_all(Communicator& world, const Surroundings& at, Failures& failures) {
    const Streams streams = at.make_streams(world);
    for (const NamedRule& rule : kRules) {
        for (const Width& width : kWidths)
            all_to_all_case(world, *streams.exchange, at.memory, rule, width, failures);
    }
    const NamedRule large{"large", [](int, int d, int) -> i64 { return 100 + d; }};
    all_to_all_case(world, *streams.exchange, at.memory, large, {DType::f32, 4001}, failures);
}

void all_gather_case(Communicator& world, Stream& stream, Device memory, Width width, bool in_place,
                     Failures& failures) {
    std::vector<i64> rows;
    for (int rank = 0; rank < world.size(); ++rank) rows.push_back((rank * 2 + world.size()) % 3);
    const auto me = static_cast<std::size_t>(world.rank());
    const i64 row_bytes = width.cols * size_of(width.dtype);
    const i64 first = std::reduce(rows.begin(), rows.begin() + world.rank());
    Rows all(std::reduce(rows.begin(), rows.end()), width, memory), apart(rows[me], width, memory);
    const TensorView mine = in_place ? all.view.slice_rows(first, rows[me]) : apart.view;
    for (i64 i = 0; i < rows[me] * row_bytes; ++i)
        static_cast<std::byte*>(mine.data)[i] = pattern(world.rank(), 0, i);
    auto rows_passed = rows;
    world.all_gather_rows(stream, mine, all.view, rows_passed, {"check"});
    std::ranges::fill(rows_passed, -1);
    stream.synchronize();
    std::size_t at = 0;
    for (int peer = 0; peer < world.size(); ++peer) {
        i64 wrong = 0;
        for (i64 i = 0; i < rows[static_cast<std::size_t>(peer)] * row_bytes; ++i) {
            wrong += all.bytes[at++] != pattern(peer, 0, i);
        }
        failures.expect(wrong == 0, "in place {}: {} wrong bytes from rank {}", in_place, wrong, peer);
    }
    failures.expect(all.guard_stands(), "written past the end");
}

void all_gather(Communicator& world, const Surroundings& at, Failures& failures) {
    const Streams streams = at.make_streams(world);
    for (const Width& width : kWidths) {
        for (const bool in_place : {false, true})
            all_gather_case(world, *streams.exchange, at.memory, width, in_place, failures);
    }
    std::vector<i64> all(static_cast<std::size_t>(world.size()), -1);
    const i64 mine = world.rank() * 11;
    world.all_gather(*streams.exchange, view_of(&mine, {1}), view_of(all.data(), {world.size()}),
                     {"numbers"});
    streams.exchange->synchronize();
    for (int peer = 0; peer < world.size(); ++peer) {
        failures.expect(all[static_cast<std::size_t>(peer)] == peer * 11, "rank {}'s number is wrong", peer);
    }
}

void broadcast(Communicator& world, const Surroundings& at, Failures& failures) {
    const Streams streams = at.make_streams(world);
    for (int root = 0; root < world.size(); ++root) {
        for (const i64 rows : {0, 1, 50}) {
            Rows data(rows, {DType::bf16, 3}, at.memory);
            for (i64 i = 0; i < rows * 6; ++i)
                data.bytes[static_cast<std::size_t>(i)] = pattern(world.rank(), root, i);
            world.broadcast(*streams.exchange, data.view, root, {"check"});
            streams.exchange->synchronize();
            i64 wrong = 0;
            for (i64 i = 0; i < rows * 6; ++i)
                wrong += data.bytes[static_cast<std::size_t>(i)] != pattern(root, root, i);
            failures.expect(wrong == 0 && data.guard_stands(), "{} wrong bytes from root {}", wrong, root);
        }
    }
}

/// Numbers of very different size, so that another order of summation gives other bits.
template <class T>
T addend(int rank, i64 index) {
    const auto raw =
        static_cast<i64>(static_cast<u64>(rank * 31 + index * 17 + 5) * 2654435761u % 2000003u) - 1000001;
    if constexpr (std::is_integral_v<T>) return static_cast<T>(raw);
    constexpr std::array kScales{1.0, 1e-7, 1e9, 3e-3};
    return static_cast<T>(static_cast<double>(raw) / 3 * kScales[static_cast<std::size_t>(rank + index) % 4]);
}

template <class T>
T reduced(ReduceOp op, int size, i64 index) {
    T value = addend<T>(0, index);
    for (int rank = 1; rank < size; ++rank) {
        const T other = addend<T>(rank, index);
        if (op == ReduceOp::sum) value = static_cast<T>(value + other);
        if (op == ReduceOp::max) value = std::max(value, other);
        if (op == ReduceOp::min) value = std::min(value, other);
    }
    return value;
}

template <class T>
i64 wrong_bits(const T* values, ReduceOp op, int size, i64 first, i64 count) {
    i64 wrong = 0;
    for (i64 i = 0; i < count; ++i) {
        const T want = reduced<T>(op, size, first + i);
        wrong += std::memcmp(values + i, &want, sizeof(T)) != 0;
    }
    return wrong;
}

template <class T>
void all_reduce_of(Communicator& world, Stream& stream, Device memory, Failures& failures) {
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
        for (const i64 count : {0, 1, 7, 2001, 20011}) {  // the last ones are cut among the ranks
            for (const i64 first : {0, 13}) {             // a part of a larger buffer gives the same bits
                Rows data(first + count, {dtype_of<T>(), 1}, memory);
                for (i64 i = 0; i < first + count; ++i) data.view.as<T>()[i] = addend<T>(world.rank(), i);
                world.all_reduce(stream, data.view.slice_rows(first, count), op, {"sum"});
                stream.synchronize();
                const i64 wrong = wrong_bits(data.view.as<T>() + first, op, world.size(), first, count);
                failures.expect(wrong == 0, "{} of {} values of {} differ, operation {}", wrong, count,
                                name_of(dtype_of<T>()), static_cast<int>(op));
            }
        }
    }
}

void all_reduce(Communicator& world, const Surroundings& at, Failures& failures) {
    const Streams streams = at.make_streams(world);
    all_reduce_of<float>(world, *streams.exchange, at.memory, failures);
    all_reduce_of<double>(world, *streams.exchange, at.memory, failures);
    all_reduce_of<i64>(world, *streams.exchange, at.memory, failures);
    all_reduce_of<i32>(world, *streams.exchange, at.memory, failures);
}

void reduce_scatter(Communicator& world, const Surroundings& at, Failures& failures) {
    const Streams streams = at.make_streams(world);
    constexpr i64 kCols = 3;
    for (const bool in_place : {false, true}) {
        std::vector<i64> rows;
        for (int rank = 0; rank < world.size(); ++rank) rows.push_back((rank * 7 + 5) % 6);  // 5, 0, 1, ...
        const i64 total = std::reduce(rows.begin(), rows.end());
        const i64 first = std::reduce(rows.begin(), rows.begin() + world.rank());
        const i64 own = rows[static_cast<std::size_t>(world.rank())];
        std::vector<float> data, apart(static_cast<std::size_t>(own * kCols));
        for (i64 i = 0; i < total * kCols; ++i) data.push_back(addend<float>(world.rank(), i));
        const TensorView whole = view_of(data.data(), {total, kCols});
        const TensorView mine = in_place ? whole.slice_rows(first, own) : view_of(apart.data(), {own, kCols});
        world.reduce_scatter_rows(*streams.exchange, whole, rows, mine, ReduceOp::sum, {"check"});
        streams.exchange->synchronize();
        const i64 wrong =
            wrong_bits(mine.as<float>(), ReduceOp::sum, world.size(), first * kCols, own * kCols);
        failures.expect(wrong == 0, "in place {}: {} of {} values differ", in_place, wrong, own * kCols);
    }
}

void split(Communicator& world, const Surroundings& at, Failures& failures) {
    const int me = world.rank(), size = world.size();
    const auto half = world.split(me % 2, -me, "half");  // odd and even, ranked backwards
    const int members = (size + 1 - me % 2) / 2;
    failures.expect(half->name() == "half" && half->size() == members && half->rank() == members - 1 - me / 2,
                    "rank {} of {} in '{}'", half->rank(), half->size(), half->name());
    world.set_timeout_seconds(123);
    failures.expect(half->timeout_seconds() == 123, "the time-out is not shared");
    const Streams streams = at.make_streams(world);
    std::vector<i64> seen(static_cast<std::size_t>(half->size()), -1);
    const i64 mine = me;
    half->all_gather(*streams.exchange, view_of(&mine, {1}), view_of(seen.data(), {half->size()}),
                     {"members"});
    streams.exchange->synchronize();
    for (int place = 0; place < half->size(); ++place) {
        const i64 want = 2 * (members - 1 - place) + me % 2;
        failures.expect(seen[static_cast<std::size_t>(place)] == want, "place {} is rank {}, not {}", place,
                        seen[static_cast<std::size_t>(place)], want);
    }
    all_to_all(*half, at, failures);
    const auto alone = half->split(half->rank(), 0, "alone");
    failures.expect(alone->size() == 1, "{} ranks alone", alone->size());
    all_to_all(*alone, at, failures);
    all_reduce(world, at, failures);  // the parent still works
}

void ring(Communicator& world, const Surroundings& at, Failures& failures) {
    const int me = world.rank(), size = world.size();
    if (size == 1) return;
    const Streams streams = at.make_streams(world);
    for (const i64 count : {0, 1, 30000}) {
        std::vector<i64> out(static_cast<std::size_t>(count)), in(static_cast<std::size_t>(count), -1);
        std::iota(out.begin(), out.end(), me * 1000000);
        const auto give = [&] {
            world.send(*streams.exchange, view_of(out.data(), {count}), (me + 1) % size, {"ring"});
        };
        const auto take = [&] {
            world.recv(*streams.exchange, view_of(in.data(), {count}), (me + size - 1) % size, {"ring"});
        };
        if (me % 2 == 0) give();
        take();
        if (me % 2 == 1) give();
        streams.exchange->synchronize();
        const i64 first = (me + size - 1) % size * 1000000;
        for (i64 i = 0; i < count; ++i) {
            failures.expect(in[static_cast<std::size_t>(i)] == first + i, "element {} of {} is wrong", i,
                            count);
        }
    }
}

void ordered_by_events(Communicator& world, const Surroundings& at, Failures& failures) {
    const Streams streams = at.make_streams(world);
    for (int round = 0; round < 5; ++round) {
        double value = -1, seen = -1;
        run_on_host(*streams.compute, [&] { value = world.rank() + round; });
        streams.exchange->wait(streams.compute->record());
        world.all_reduce(*streams.exchange, view_of(&value, {1}), ReduceOp::sum, {"check"});
        streams.compute->wait(streams.exchange->record());
        run_on_host(*streams.compute, [&] { seen = value; });
        streams.compute->synchronize();
        const double want = world.size() * (world.size() - 1) / 2.0 + round * world.size();
        failures.expect(seen == want, "round {}: {} instead of {}", round, seen, want);
    }
}

i64 clock_ns() {  // one clock for all processes of a machine
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

void barrier(Communicator& world, const Surroundings& at, Failures& failures) {
    const Streams streams = at.make_streams(world);
    for (int late = 0; late < world.size(); ++late) {
        if (world.rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(10));
        i64 entered = clock_ns();
        world.barrier({"check"});
        const i64 left = clock_ns();
        world.broadcast(*streams.exchange, view_of(&entered, {1}), late, {"entered"});
        streams.exchange->synchronize();
        failures.expect(left >= entered, "left {} ns before rank {} came", entered - left, late);
    }
}

constexpr std::array kChecks{
    CommunicatorCheck{"all_to_all_rows", all_to_all},
    CommunicatorCheck{"all_gather_rows", all_gather},
    CommunicatorCheck{"broadcast", broadcast},
    CommunicatorCheck{"all_reduce", all_reduce},
    CommunicatorCheck{"reduce_scatter_rows", reduce_scatter},
    CommunicatorCheck{"split", split},
    CommunicatorCheck{"ring", ring},
    CommunicatorCheck{"ordered_by_events", ordered_by_events},
    CommunicatorCheck{"barrier", barrier},
    CommunicatorCheck{"windows_hold_what_peers_write", windows_hold_what_peers_write},
    CommunicatorCheck{"meetings_wait_for_the_last", meetings_wait_for_the_last},
    CommunicatorCheck{"windows_of_a_part", windows_of_a_part},
};

}  // namespace

Surroundings on_host(StreamMode mode) {
    return {[mode](const Communicator& world) {
        const auto scheduler =
            std::make_shared<HostStreamScheduler>(mode, static_cast<u64>(world.rank()) + 1);
        return Streams{scheduler, scheduler->make_stream("exchange"), scheduler->make_stream("compute")};
    }};
}

std::span<const CommunicatorCheck> communicator_checks() {
    return kChecks;
}

}  // namespace moesaic::conformance
