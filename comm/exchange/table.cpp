// The table of exchanges.
#include "comm/exchange/dedup_exchange.h"
#include "comm/exchange/exchange.h"
#include "comm/exchange/flat_exchange.h"
#include "comm/exchange/hierarchical_exchange.h"
#include "comm/exchange/shared_memory_exchange.h"

namespace moesaic {

namespace {

std::unique_ptr<Exchange> make_flat(const Mesh&, const ExchangeSizes& sizes,
                                    const ExchangeSettings& settings) {
    return std::make_unique<FlatExchange>(sizes, Wire(settings.wire));
}

/// On one node there is nothing to cross.
template <class Kind>
std::unique_ptr<Exchange> make_by_node(const Mesh& mesh, const ExchangeSizes& sizes,
                                       const ExchangeSettings& settings) {
    if (mesh.grid().nodes == 1) return make_flat(mesh, sizes, settings);
    return std::make_unique<Kind>(mesh, sizes, Wire(settings.wire));
}

std::unique_ptr<Exchange> make_dedup(const Mesh& mesh, const ExchangeSizes& sizes,
                                     const ExchangeSettings& settings) {
    return settings.reduce_on_node ? make_by_node<NodeReducingExchange>(mesh, sizes, settings)
                                   : make_by_node<DedupExchange>(mesh, sizes, settings);
}

}  // namespace

const std::vector<ExchangeKind>& exchange_table() {
    static const std::vector<ExchangeKind> kExchanges{
        {"flat", "one all-to-all over all expert-parallel ranks", false, false, false, &make_flat,
         &expected_flat},
        {"hierarchical", "across nodes between partners, then within the node", true, false, true,
         &make_by_node<HierarchicalExchange>, &expected_hierarchical},
        {"dedup", "as hierarchical, but a token crosses to a node once", true, false, false, &make_dedup,
         &expected_dedup},
        {"shared_memory", "ranks of one machine write and read each other's rows in place", false, true,
         false, &make_shared_memory_exchange, &expected_flat},
    };
    return kExchanges;
}

std::unique_ptr<Exchange> make_exchange(const Mesh& mesh, const ExchangeSizes& sizes,
                                        const ExchangeSettings& settings) {
    std::string names;
    for (const ExchangeKind& kind : exchange_table()) {
        names += fmt::format("{}{}", names.empty() ? "" : ", ", kind.name);
        if (kind.name != settings.name) continue;
        if (kind.needs_even_nodes && !mesh.grid().even())
            throw UserError(
                fmt::format("parallel.exchange: {} needs as many ranks of an expert-parallel group on every "
                            "node, and this "
                            "one has {}; flat works on any",
                            kind.name, mesh.grid().text()));
        return kind.make(mesh, sizes, settings);
    }
    throw UserError(
        fmt::format("parallel.exchange: '{}' is no exchange; there are {}", settings.name, names));
}

}  // namespace moesaic
