// What the benchmarks are made of: sizes, tables, patterns of bytes, splits of traffic, stragglers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/bench/bench_world.h"
#include "launch/bench/byte_pattern.h"
#include "launch/bench/dispatch_problem.h"
#include "launch/bench/element_access.h"
#include "launch/bench/nccl_table.h"
#include "launch/bench/straggler.h"

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(BenchOptions, SizesAsPeopleTypeThem) {
    for (const auto& [text, bytes] : {std::pair<const char*, i64>{"8", 8},
                                      {"1K", 1024},
                                      {"1k", 1024},
                                      {"64M", i64{64} << 20},
                                      {"1.5G", i64{3} << 29},
                                      {"2KB", 2048},
                                      {"1MiB", i64{1} << 20}})
        EXPECT_EQ(parse_size(text), bytes) << text;
    for (const char* text : {"", "K", "1X", "1Kx", "-1", "1KK", "1e300", "nan"})
        EXPECT_FALSE(parse_size(text).has_value()) << text;
    EXPECT_EQ(parse_dtype("bfloat16"), DType::bf16);
    EXPECT_FALSE(parse_dtype("int8").has_value());
}

TEST(NcclTable, NumbersFitTheirColumns) {
    EXPECT_EQ(fitted(1.234, 7), "   1.23");
    EXPECT_EQ(fitted(12345.678, 7), "12345.7");
    EXPECT_EQ(fitted(123456.78, 7), " 123457");
    EXPECT_EQ(fitted(123456789.0, 7), "1.2e+08");
    EXPECT_EQ(fitted(99.999, 6), "100.00");
}

TEST(NcclTable, SweepsByFactorAndByStep) {
    EXPECT_THAT((SizeSweep{1024, 10000, 3, true}.sizes()), ElementsAre(1024, 3072, 9216));
    EXPECT_THAT((SizeSweep{1000, 3000, 1000, false}.sizes()), ElementsAre(1000, 2000, 3000));
}

TEST(NcclTable, GatesFailWithASentenceEach) {
    ExchangeLine slow, fast;
    slow.size = 1024;
    slow.busbw = 1;
    slow.algbw = 2;
    slow.slowest.p99 = 50;
    slow.imbalance = 3;
    fast.busbw = 3;
    fast.algbw = 6;
    EXPECT_THAT(failures_of({slow, fast}, {2.0, 4.0, 50.0, 3.0}), testing::IsEmpty());
    EXPECT_THAT(failures_of({slow, fast}, {2.1, 4.1, 49.0, 2.9}),
                ElementsAre(HasSubstr("2 GB/s on average, less than --min-busbw 2.1"),
                            HasSubstr("4 GB/s on average, less than --min-algbw 4.1"),
                            HasSubstr("p99 of 1024 bytes is 50 us, more than --max-p99-us 49"),
                            HasSubstr("imbalance of 1024 bytes is 3, more than --max-imbalance 2.9")));
    fast.wrong = 7;
    slow.wrong = 0;
    EXPECT_THAT(failures_of({slow, fast}, {}), ElementsAre("7 elements are wrong"));
}

/// What travels from one rank's memory to another's, by the matrix.
void deliver(std::vector<ExchangeBuffers>& buffers, const RankMatrix& rows, i64 row_bytes) {
    for (int to = 0; to < rows.ranks; ++to) {
        std::byte* at = buffers[static_cast<std::size_t>(to)].recv();
        for (int from = 0; from < rows.ranks; ++from) {
            std::byte* source = buffers[static_cast<std::size_t>(from)].send();
            for (int before = 0; before < to; ++before) source += rows.at(from, before) * row_bytes;
            at = std::copy_n(source, rows.at(from, to) * row_bytes, at);
        }
    }
}

TEST(BytePattern, EveryByteCounts) {
    const RankMatrix rows{3, {2, 0, 1, 3, 1, 0, 0, 0, 0}};
    constexpr i64 kRowBytes = 20;  // ends within a word
    std::vector<ExchangeBuffers> buffers;
    for (int rank = 0; rank < 3; ++rank) buffers.emplace_back(80, 100);
    const auto wrong = [&](int rank, i64 element = 4) {
        return buffers[static_cast<std::size_t>(rank)].count_wrong(rows, kRowBytes, rank, 9, element);
    };
    const auto again = [&] {
        for (int rank = 0; rank < 3; ++rank)
            buffers[static_cast<std::size_t>(rank)].prepare(rows, kRowBytes, rank, 9);
        deliver(buffers, rows, kRowBytes);
    };
    again();
    for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(wrong(rank), 0) << rank;
    for (i64 byte = 0; byte < 100; ++byte) {  // rank 0 receives two rows from itself and three from rank 1
        again();
        buffers[0].recv()[byte] ^= std::byte{4};
        EXPECT_EQ(wrong(0), 1) << byte;
        EXPECT_EQ(wrong(0, 2), 1) << byte;
    }
    again();
    buffers[0].recv()[100] = std::byte{0};  // one beyond what it receives
    EXPECT_EQ(wrong(0), 1);
    again();
    std::swap_ranges(buffers[0].recv(), buffers[0].recv() + 20, buffers[0].recv() + 20);
    EXPECT_EQ(wrong(0), 10);  // rows of one source in another order
    again();
    EXPECT_GT(buffers[0].count_wrong(rows, kRowBytes, 0, 8, 4), 20) << "bytes of an earlier exchange pass";
    again();
    std::fill_n(buffers[0].recv(), 100, std::byte{0xA5});
    EXPECT_EQ(wrong(0), 25) << "an exchange that does nothing passes";
}

/// What a right exchange would hand to a rank, by the definitions.
struct RightAnswers {
    std::vector<float> rows, d_rows, y, dx, d_weight;
};

RightAnswers answers_of(const DispatchProblem& problem, const std::vector<DispatchProblem>& all, int rank,
                        const PatternShape& shape, i64 width) {
    RightAnswers answers;
    const i64 local_experts = shape.experts / shape.ranks;
    for (i64 expert = rank * local_experts; expert < (rank + 1) * local_experts; ++expert) {
        for (const DispatchProblem& source : all) {
            for (i64 token = 0; token < source.tokens(); ++token) {
                for (i64 k = 0; k < shape.top_k; ++k) {
                    if (source.expert(token, k) != expert) continue;
                    for (i64 h = 0; h < width; ++h) {
                        answers.rows.push_back(static_cast<float>(source.x(token, h)));
                        answers.d_rows.push_back(
                            static_cast<float>(source.weight(token, k) * source.dy(token, h)));
                    }
                }
            }
        }
    }
    for (i64 token = 0; token < problem.tokens(); ++token) {
        std::vector<double> y(static_cast<std::size_t>(width)), dx = y;
        for (i64 k = 0; k < shape.top_k; ++k) {
            const double scale = problem.expert(token, k) % 2 == 0 ? 1 : 2;
            double product = 0;
            for (i64 h = 0; h < width; ++h) {
                y[static_cast<std::size_t>(h)] += problem.weight(token, k) * scale * problem.x(token, h);
                dx[static_cast<std::size_t>(h)] += problem.weight(token, k) * scale * problem.dy(token, h);
                product += problem.dy(token, h) * scale * problem.x(token, h);
            }
            answers.d_weight.push_back(static_cast<float>(product));
        }
        answers.y.insert(answers.y.end(), y.begin(), y.end());
        answers.dx.insert(answers.dx.end(), dx.begin(), dx.end());
    }
    return answers;
}

TEST(DispatchProblem, SeesEveryWrongValue) {
    constexpr i64 kWidth = 3;
    const PatternShape shape{6, 2, 3, 5, 1};
    const auto traffic = make_traffic("ragged", shape);
    std::vector<DispatchProblem> all;
    for (int rank = 0; rank < 3; ++rank) all.emplace_back(*traffic, rank, kWidth);
    for (int rank = 0; rank < 3; ++rank) {
        const DispatchProblem& problem = all[static_cast<std::size_t>(rank)];
        EXPECT_EQ(problem.most_tokens(), all[2].tokens());
        RightAnswers answers = answers_of(problem, all, rank, shape, kWidth);
        ASSERT_EQ(std::ssize(answers.rows), problem.rows().received_by(rank) * kWidth);
        const auto view = [](std::vector<float>& values, i64 columns) {
            return view_of(values.data(), {std::ssize(values) / columns, columns});
        };
        const auto wrong = [&] {
            return problem.wrong_arrivals(view(answers.rows, kWidth), false) +
                   problem.wrong_arrivals(view(answers.d_rows, kWidth), true) +
                   problem.wrong_results(view(answers.y, kWidth)) +
                   problem.wrong_gradients(view(answers.dx, kWidth), view(answers.d_weight, 2));
        };
        EXPECT_EQ(wrong(), 0);
        for (std::vector<float>* values :
             {&answers.rows, &answers.d_rows, &answers.y, &answers.dx, &answers.d_weight}) {
            for (float& value : *values) {
                const float right = value;
                value += 0.25F;
                EXPECT_EQ(wrong(), 1);
                value = right;
            }
        }
    }
}

BenchWorld world_of(const std::vector<int>& nodes) {
    BenchWorld world;
    for (const int node : nodes) world.ranks.push_back({0, fmt::format("host{}", node), "", node, 0});
    return world;
}

TEST(BenchWorld, SplitsByDistance) {
    const RankMatrix matrix{3, {1, 2, 4, 8, 16, 32, 64, 128, 256}};
    const TravelSplit split = split_by_distance(matrix, world_of({0, 1, 0}));
    EXPECT_EQ(split.self, 1 + 16 + 256);
    EXPECT_EQ(split.same_node, 4 + 64);
    EXPECT_EQ(split.cross_node, 2 + 8 + 32 + 128);
    EXPECT_DOUBLE_EQ(imbalance_of(matrix), 3.0 * (4 + 32 + 256) / 511);
    EXPECT_DOUBLE_EQ(imbalance_of({2, {0, 0, 0, 0}}), 1.0);
}

TEST(Stragglers, ScoresAreRobust) {
    // Median 11, deviations 1 0 1 89: their median 1.
    EXPECT_THAT(robust_scores({10, 11, 12, 100, 11}),
                ElementsAre(testing::DoubleNear(-1 / 1.4826, 1e-9), 0, testing::DoubleNear(1 / 1.4826, 1e-9),
                            testing::DoubleNear(89 / 1.4826, 1e-9), 0));
    EXPECT_THAT(robust_scores({5, 5, 5}), testing::Each(0));
    EXPECT_THAT(robust_scores({0, 0}), testing::Each(0));
}

TEST(Stragglers, NamesTheOddRankAndItsHost) {
    // Rank 2 of four is slow in two iterations of three, the others now and then a little.
    const RankTimes own{4, {10, 10, 12, 11, 10, 10, 30, 30, 0, 10, 10, 11}};
    const StragglerReport report = find_stragglers(own, world_of({0, 0, 1, 1}));
    EXPECT_DOUBLE_EQ(report.ranks[2].own_us, 20);
    EXPECT_DOUBLE_EQ(report.ranks[2].wait_us, 12.0 / 3);
    EXPECT_DOUBLE_EQ(report.ranks[1].wait_us, (19.0 + 20 + 2) / 3);
    EXPECT_FALSE(report.ranks[1].odd);
    EXPECT_TRUE(report.ranks[2].odd);
    EXPECT_FALSE(report.ranks[3].odd);
    ASSERT_EQ(report.hosts.size(), 2u);
    EXPECT_DOUBLE_EQ(report.hosts[1].own_us, (20 + 31.0 / 3) / 2);
    EXPECT_THAT(report.verdict(), HasSubstr("rank 2 ("));
    const RankTimes even{3, {10, 10.1, 10.2}};
    EXPECT_EQ(find_stragglers(even, world_of({0, 0, 0})).verdict(), "no rank stands out");
    // Of two the slower one, though no score of two can be large.
    const RankTimes pair{2, {10, 13}};
    EXPECT_THAT(find_stragglers(pair, world_of({0, 0})).verdict(), HasSubstr("rank 1 (1.30 times"));
}

}  // namespace
}  // namespace moesaic
