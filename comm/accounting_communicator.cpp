#include "comm/accounting_communicator.h"

#include "comm/process_window.h"

namespace moesaic {

AccountingCommunicator::AccountingCommunicator(int rank, int size, AccountingGroups groups, std::string name,
                                               std::shared_ptr<CommunicatorSettings> settings)
    : HostCommunicator(rank, size, std::move(name), std::move(settings),
                       std::make_shared<MemoryPool>(Device::cpu, PoolMode::address_space)),
      groups_(groups) {}

Topology AccountingCommunicator::topology() const {
    if (groups_.ranks_per_node == 0) return {1, size(), rank(), 0};
    const int each = groups_.ranks_per_node;
    return {(size() + each - 1) / each, each, rank() % each, rank() / each};
}

int AccountingCommunicator::group_size(const std::string& name) const {
    if (name == "experts") return groups_.experts;
    if (name == "replicas") return groups_.replicas;
    if (name == "slices") return groups_.expert_tensor;
    if (name == "same slice") return groups_.experts / groups_.expert_tensor;
    // Of an expert-parallel group that spans nodes, see Mesh.
    if (name == "node") return groups_.ranks_per_node;
    MOESAIC_ASSERT(name == "across nodes", "a dry run splits off '{}'", name);
    return groups_.experts / groups_.ranks_per_node;
}

std::unique_ptr<Communicator> AccountingCommunicator::split(int, int key, std::string name) {
    const int size = group_size(name);
    return std::make_unique<AccountingCommunicator>(key, size, groups_, std::move(name), settings());
}

std::unique_ptr<SharedWindow> AccountingCommunicator::make_window(i64 bytes, Label) {
    const i64 segment = SharedWindow::rounded(bytes);
    return std::make_unique<ProcessWindow>(ProcessWindow::address_space(segment * size()), segment,
                                           ProcessWindow::Waiting{});
}

}  // namespace moesaic
