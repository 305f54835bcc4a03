#include "comm/accounting_communicator.h"

#include "comm/process_window.h"

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

std::unique_ptr<SharedWindow> AccountingCommunicator::make_window(i64 bytes, Label) {
    const i64 segment = SharedWindow::rounded(bytes);
    return std::make_unique<ProcessWindow>(ProcessWindow::address_space(segment * size()), segment,
                                           ProcessWindow::Waiting{});
}

}  // namespace moesaic
