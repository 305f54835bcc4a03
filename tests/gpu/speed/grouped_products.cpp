// Products of groups of rows: as the back end does them at once, and one by one.
#include <numeric>

#include "tests/gpu/speed/speed_bench.h"

namespace moesaic::speed {

namespace {

i64 sum_of(const std::vector<i64>& numbers) {
    return std::accumulate(numbers.begin(), numbers.end(), i64{0});
}

/// Calls `multiply(first, rows, group)` for every group that has rows.
template <class Multiply>
void each_group(const Grouping& grouping, const Multiply& multiply) {
    i64 first = 0, group = 0;
    for (const i64 rows : grouping.rows) {
        if (rows > 0) multiply(first, rows, group);
        first += rows;
        ++group;
    }
}

Seconds product_of_rows(SpeedBench& bench, const Grouping& grouping, i64 n, i64 k, bool trans_b) {
    const i64 rows = sum_of(grouping.rows);
    Tensor a = bench.random({rows, k}, DType::bf16), c = bench.empty({rows, n}, DType::bf16);
    Tensor b = bench.random({std::ssize(grouping.rows), grouping.n, grouping.k}, DType::bf16);
    return bench.time([&] {
        if (!grouping.one_by_one)
            return bench.backend().grouped_gemm(
                bench.stream(),
                {.a = a, .b = b, .c = c, .rows_per_group = grouping.rows, .trans_b = trans_b});
        each_group(grouping, [&](i64 first, i64 here, i64 group) {
            bench.backend().gemm(bench.stream(),
                                 {.a = a.slice_rows(first, here),
                                  .b = b.slice_rows(group, 1).reshaped({grouping.n, grouping.k}),
                                  .c = c.slice_rows(first, here),
                                  .trans_b = trans_b});
        });
    });
}

}  // namespace

std::vector<i64> even_groups(i64 rows, i64 groups) {
    std::vector<i64> counts(static_cast<std::size_t>(groups), rows / groups);
    counts.back() += rows % groups;
    return counts;
}

Seconds grouped_product(SpeedBench& bench, const Grouping& grouping) {
    return product_of_rows(bench, grouping, grouping.n, grouping.k, true);
}

Seconds grouped_input_gradient(SpeedBench& bench, const Grouping& grouping) {
    return product_of_rows(bench, grouping, grouping.k, grouping.n, false);
}

Seconds grouped_weight_gradient(SpeedBench& bench, const Grouping& grouping) {
    const i64 rows = sum_of(grouping.rows), groups = std::ssize(grouping.rows),
              weight = grouping.n * grouping.k;
    Tensor dy = bench.random({rows, grouping.n}, DType::bf16),
           x = bench.random({rows, grouping.k}, DType::bf16);
    Tensor sum = bench.zeros({groups, grouping.n, grouping.k}, DType::f64);
    Tensor part = bench.empty({grouping.n, grouping.k}, DType::f32);
    return bench.time([&] {
        if (!grouping.one_by_one)
            return bench.backend().grouped_gemm_weight_grad(
                bench.stream(), {.a = dy, .b = x, .c = sum, .rows_per_part = grouping.rows});
        each_group(grouping, [&](i64 first, i64 here, i64 group) {
            bench.backend().gemm(bench.stream(), {.a = dy.slice_rows(first, here),
                                                  .b = x.slice_rows(first, here),
                                                  .c = part,
                                                  .trans_a = true});
            bench.backend().fold(bench.stream(), part.view().flat(0, weight),
                                 sum.slice_rows(group, 1).reshaped({weight}), {});
        });
    });
}

}  // namespace moesaic::speed
