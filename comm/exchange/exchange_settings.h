// What a configuration says of exchanges, every `auto` resolved.
#pragma once

#include <string>

namespace moesaic {

/// `parallel.exchange` and what goes with it.
struct ExchangeSettings {
    std::string name = "flat";  ///< of exchange_table()
};

}  // namespace moesaic
