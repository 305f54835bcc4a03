#include "runtime/data/tables/cell_tree.h"

#include <algorithm>
#include <limits>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

constexpr int kIterations = 25;

double squared_distance(const float* a, const float* b, i64 columns) {
    double sum = 0;
    for (i64 i = 0; i < columns; ++i) {
        const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        sum += difference * difference;
    }
    return sum;
}

/// The nearest of [count, columns], ties to the first.
i64 nearest(const float* x, const std::vector<float>& centres, i64 columns) {
    i64 best = 0;
    double least = std::numeric_limits<double>::infinity();
    for (i64 i = 0; i * columns < std::ssize(centres); ++i) {
        const double distance = squared_distance(x, centres.data() + i * columns, columns);
        if (distance < least) {
            least = distance;
            best = i;
        }
    }
    return best;
}

std::vector<float> mean_of(const float* features, i64 rows, i64 columns) {
    std::vector<float> mean;
    for (i64 column = 0; column < columns; ++column) {
        double sum = 0;
        for (i64 row = 0; row < rows; ++row) sum += static_cast<double>(features[row * columns + column]);
        mean.push_back(static_cast<float>(sum / static_cast<double>(rows)));
    }
    return mean;
}

std::vector<float> farthest_points(const float* features, i64 rows, i64 columns, i64 count) {
    std::vector<double> distance(static_cast<std::size_t>(rows));
    const std::vector<float> mean = mean_of(features, rows, columns);
    for (i64 row = 0; row < rows; ++row)
        distance[static_cast<std::size_t>(row)] =
            squared_distance(features + row * columns, mean.data(), columns);
    i64 next = std::min_element(distance.begin(), distance.end()) - distance.begin();
    std::fill(distance.begin(), distance.end(), std::numeric_limits<double>::infinity());
    std::vector<float> chosen;
    while (std::ssize(chosen) < count * columns) {
        chosen.insert(chosen.end(), features + next * columns, features + (next + 1) * columns);
        for (i64 row = 0; row < rows; ++row) {
            double& least = distance[static_cast<std::size_t>(row)];
            least = std::min(least,
                             squared_distance(features + row * columns, features + next * columns, columns));
        }
        const auto farthest = std::max_element(distance.begin(), distance.end());
        if (*farthest == 0) break;  // every row is chosen already
        next = farthest - distance.begin();
    }
    return chosen;
}

/// One iteration of Lloyd's algorithm; a centre without rows stays where it is. Returns whether any moved.
bool move_centres(const float* features, i64 rows, i64 columns, std::vector<float>& centres) {
    std::vector<double> sums(centres.size(), 0.0);
    std::vector<i64> counts(centres.size() / static_cast<std::size_t>(columns), 0);
    for (i64 row = 0; row < rows; ++row) {
        const i64 cell = nearest(features + row * columns, centres, columns);
        ++counts[static_cast<std::size_t>(cell)];
        for (i64 i = 0; i < columns; ++i)
            sums[static_cast<std::size_t>(cell * columns + i)] +=
                static_cast<double>(features[row * columns + i]);
    }
    bool moved = false;
    for (std::size_t i = 0; i < centres.size(); ++i) {
        const i64 count = counts[i / static_cast<std::size_t>(columns)];
        if (count == 0) continue;
        const auto mean = static_cast<float>(sums[i] / static_cast<double>(count));
        moved = moved || mean != centres[i];
        centres[i] = mean;
    }
    return moved;
}

}  // namespace

std::vector<float> choose_prototypes(const float* features, i64 rows, i64 columns, i64 count,
                                     std::string_view method) {
    std::vector<float> centres = farthest_points(features, rows, columns, count);
    if (method == "farthest_point") return centres;
    for (int i = 0; i < kIterations && move_centres(features, rows, columns, centres); ++i) {
    }
    return centres;
}

CellTree::CellTree(std::vector<float> prototypes, i64 columns, i64 branches)
    : prototypes_(std::move(prototypes)), columns_(columns) {
    MOESAIC_ASSERT(branches >= 2 && columns >= 1 && cells() >= 1, "{} branches, {} cells", branches, cells());
    std::vector<i64> all;
    for (i64 i = 0; i < cells(); ++i) all.push_back(i);
    grow(all, branches, 0);
}

/// Adds the node of these prototypes below those that a walk has compared with; returns its number.
std::size_t CellTree::grow(const std::vector<i64>& members, i64 branches, i64 walked) {
    Node node;
    std::vector<float> points;
    for (const i64 member : members)
        points.insert(points.end(), prototypes_.data() + member * columns_,
                      prototypes_.data() + (member + 1) * columns_);
    node.centre = mean_of(points.data(), std::ssize(members), columns_);
    if (members.size() == 1) {
        node.prototype = members[0];
        longest_walk_ = std::max(longest_walk_, walked);
    } else {
        const std::vector<float> centres =
            choose_prototypes(points.data(), std::ssize(members), columns_, branches, "k_means");
        std::vector<std::vector<i64>> groups(centres.size() / static_cast<std::size_t>(columns_));
        for (std::size_t i = 0; i < members.size(); ++i) {
            const float* const point = points.data() + static_cast<i64>(i) * columns_;
            groups[static_cast<std::size_t>(nearest(point, centres, columns_))].push_back(members[i]);
        }
        std::erase_if(groups, [](const std::vector<i64>& group) { return group.empty(); });
        // Prototypes that lie on one another: one stands for all, since no input is nearer to the others.
        if (groups.size() < 2) groups = {{members[0]}};
        for (const std::vector<i64>& group : groups)
            node.children.push_back(grow(group, branches, walked + std::ssize(groups)));
    }
    nodes_.push_back(std::move(node));
    return nodes_.size() - 1;
}

i64 CellTree::cell_of(const float* x) const {
    const Node* node = &nodes_.back();
    while (node->prototype < 0) {
        const Node* best = nullptr;
        double least = std::numeric_limits<double>::infinity();
        for (const std::size_t child : node->children) {
            const double distance = squared_distance(x, nodes_[child].centre.data(), columns_);
            if (best != nullptr && distance >= least) continue;
            least = distance;
            best = &nodes_[child];
        }
        node = best;
    }
    return node->prototype;
}

i64 CellTree::nearest_prototype(const float* x) const {
    return nearest(x, prototypes_, columns_);
}

}  // namespace moesaic
