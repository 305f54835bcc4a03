#include "comm/accounting_communicator.h"

namespace moesaic {

AccountingCommunicator::AccountingCommunicator(int rank, int size, AccountingGroups groups, std::string name,
                                               std::shared_ptr<CommunicatorSettings> settings)
    : HostCommunicator(rank, size, std::move(name), std::move(settings),
                       std::make_shared<MemoryPool>(Device::cpu, PoolMode::address_space)),
      groups_(groups) {}

std::unique_ptr<Communicator> AccountingCommunicator::split(int, int key, std::string name) {
    MOESAIC_ASSERT(name == "experts" || name == "replicas", "a dry run splits off '{}'", name);
    const int size = name == "experts" ? groups_.experts : groups_.replicas;
    return std::make_unique<AccountingCommunicator>(key, size, groups_, std::move(name), settings());
}

}  // namespace moesaic
