// How parts of a sum are rounded so that their order does not show.
#pragma once

namespace moesaic {

/// What Backend::fold does to a part before it is added. With a step, a power of two, each element is rounded
/// to a multiple of it, and a number beyond +-limit becomes infinity (infinities become NaN): sums of up to
/// 2^52 step / limit parts are then exact, and so the same in any order.
struct FoldRounding {
    double step = 0;  ///< 0: parts are added as they are
    double limit = 0;
};

}  // namespace moesaic
