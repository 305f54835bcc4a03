// One rank of a world that is not there, for dry runs that only count memory.
#pragma once

#include "comm/host_communicator.h"

namespace moesaic {

/// What a dry run takes for granted of routing.
enum class AssumedRouting : std::uint8_t {
    even,     ///< every expert gets as many rows
    hot_rank  ///< the first rank of a group gets all that tokens can send to one: no routing needs more
              ///< memory
};

/// How Mesh splits the world that is imagined.
struct AccountingGroups {
    int experts = 1, replicas = 1;
    int expert_tensor = 1;   ///< divides `experts`
    int ranks_per_node = 0;  ///< in blocks; 0: all on one node
    AssumedRouting routing = AssumedRouting::even;
};

/// Allocates what any communicator allocates; sends nothing and receives nothing. For streams of
/// StreamMode::accounting.
class AccountingCommunicator final : public HostCommunicator {
  public:
    AccountingCommunicator(int rank, int size, AccountingGroups groups, std::string name = "world",
                           std::shared_ptr<CommunicatorSettings> settings = nullptr);

    [[nodiscard]] bool connected() const override { return false; }
    [[nodiscard]] AssumedRouting assumed_routing() const { return groups_.routing; }
    [[nodiscard]] Topology topology() const override;
    void barrier(Label) override {}
    /// For the groups of a mesh: `key` is the rank in the new group, its name tells its size.
    [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key, std::string name) override;
    void abort(std::string_view) noexcept override {}

  protected:
    /// Address space for the whole group, counted as this rank's share.
    [[nodiscard]] std::unique_ptr<SharedWindow> make_window(i64 bytes, Label label) override;
    void exchange_now(const Exchange&) override {}
    void gather_now(const Gather&) override {}
    void broadcast_now(const Message&) override {}
    void send_now(const Message&) override {}
    void recv_now(const Message&) override {}

  private:
    [[nodiscard]] int group_size(const std::string& name) const;

    AccountingGroups groups_;
};

}  // namespace moesaic
