// Keeps copies of experts what their experts are: new values go out, gradients come home.
#pragma once

#include <map>
#include <string_view>
#include <vector>

#include "comm/gradient_buckets.h"
#include "comm/mesh.h"
#include "comm/step_context.h"

namespace moesaic {

/// The sums of gradients; values are kCopiedExpertsPhase.
inline constexpr std::string_view kCopiedGradientsPhase = "gradients of copied experts";

/// Of the copies that Mesh::copies speaks of, whose weights lie in ParameterStore::copies. What travels goes
/// bucket by bucket as gradients do, so one all-to-all carries all copies of a bucket, and memory is what
/// they take of one bucket.
class CopiedExperts {
  public:
    /// `buckets` are those of GradientSync.
    CopiedExperts(ParameterStore& store, std::span<const GradientBucket> buckets);

    /// Collective over mesh.same_slice(), between steps: after an update, and after other copies were
    /// decided.
    void refresh(StepContext& context);
    /// Collective over mesh.same_slice(), before GradientSync::segment_ready of the same segment: where that
    /// completes a bucket of experts, adds what the copies have to the sums of their experts, in the order of
    /// their places.
    void segment_ready(StepContext& context, int segment);

  private:
    /// One tensor of every expert of a layer, e.g. the gates: indices of parameters.
    struct Tensors {
        int layer = -1;
        std::vector<std::size_t> experts, places;  // [e], [N]
    };
    struct Bucket {
        int first_segment = 0;
        std::vector<Tensors> tensors;
    };
    /// A tensor that travels between an expert's home and a copy, seen from either.
    struct Passage {
        int peer = 0;  // rank of mesh.same_slice()
        std::size_t parameter = 0;
    };
    /// What this rank has of one side, by peer, then in the order of tensors and places.
    struct Side {
        ParameterStore& store;
        std::vector<Passage> passages;
        std::vector<i64> elements;  // [W] by peer
        [[nodiscard]] i64 total() const;
    };
    struct Sides {
        Side homes, copies;
    };
    [[nodiscard]] static bool any_copies(const Mesh& mesh, const Bucket& bucket);
    [[nodiscard]] Sides sides_of(const Mesh& mesh, const Bucket& bucket) const;
    /// In a dry run, which decides on no copies: the memory of all places in use, as many of them by this
    /// rank's experts as it holds places.
    void rehearse(StepContext& context, const Bucket& bucket, DType dtype) const;
    void bring_gradients_home(StepContext& context, const Bucket& bucket) const;
    void send_values(StepContext& context, const Bucket& bucket) const;

    ParameterStore& store_;
    std::vector<Bucket> buckets_;  // of experts, in backward order
};

}  // namespace moesaic
