// Keeps copies of experts what their experts are: new values go out, gradients come home.
#pragma once

#include <map>
#include <vector>

#include "comm/mesh.h"
#include "comm/step_context.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// Of the copies that Mesh::copies speaks of, whose weights lie in ParameterStore::copies. Copies travel one
/// by one, in the order of their places, so that memory for one is enough and sums have one order.
class CopiedExperts {
  public:
    explicit CopiedExperts(ParameterStore& store);

    /// Collective over mesh.same_slice(), between steps: after an update, and after other copies were
    /// decided.
    void refresh(StepContext& context);
    /// Collective over mesh.same_slice(), after the last backward of a layer and before GradientSync sums its
    /// gradients: adds what the copies have to the sums of their experts.
    void bring_gradients_home(StepContext& context, int layer);

  private:
    /// One tensor of every expert of a layer, e.g. the gates: indices of parameters.
    struct Tensors {
        std::vector<std::size_t> experts, places;  // [e], [N]
    };
    struct Copy {
        int holder = 0, owner = 0;          // ranks of mesh.same_slice()
        std::size_t place = 0, expert = 0;  // local indices there
    };
    [[nodiscard]] static std::vector<Copy> copies_of(const Mesh& mesh, int layer);

    ParameterStore& store_;
    std::map<int, std::vector<Tensors>> layers_;
    i64 largest_ = 0;  // elements of a tensor
};

}  // namespace moesaic
