// The table of exchanges.
#include "comm/exchange/exchange.h"
#include "comm/exchange/flat_exchange.h"
#include "comm/exchange/shared_memory_exchange.h"

namespace moesaic {

namespace {

template <class Kind>
std::unique_ptr<Exchange> make(const Mesh&, const ExchangeSizes& sizes, const ExchangeSettings&) {
    return std::make_unique<Kind>(sizes);
}

}  // namespace

const std::vector<ExchangeKind>& exchange_table() {
    static const std::vector<ExchangeKind> kExchanges{
        {"flat", "one all-to-all over all expert-parallel ranks", &make<FlatExchange>},
        {"shared_memory", "ranks of one machine write and read each other's rows in place",
         &make_shared_memory_exchange},
    };
    return kExchanges;
}

std::unique_ptr<Exchange> make_exchange(const Mesh& mesh, const ExchangeSizes& sizes,
                                        const ExchangeSettings& settings) {
    std::string names;
    for (const ExchangeKind& kind : exchange_table()) {
        if (kind.name == settings.name) return kind.make(mesh, sizes, settings);
        names += fmt::format("{}{}", names.empty() ? "" : ", ", kind.name);
    }
    throw UserError(
        fmt::format("parallel.exchange: '{}' is no exchange; there are {}", settings.name, names));
}

}  // namespace moesaic
