// What a configuration says of exchanges, every `auto` resolved.
#pragma once

#include <optional>
#include <string>

#include "runtime/tensor.h"

namespace moesaic {

/// `parallel.exchange`, `parallel.dedup_reduce` and `parallel.wire`.
struct ExchangeSettings {
    std::string name = "flat";  ///< of exchange_table(), or "auto": choose_exchange()
    /// dedup only: a token's results are added on the experts' node and travel back as one row. Sums are then
    /// in another order: not the same bits as the other exchanges.
    bool reduce_on_node = false;
    std::optional<DType> wire = {};  ///< type of rows between ranks; empty: their own
};

}  // namespace moesaic
