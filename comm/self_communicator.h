// A world of one rank, without threads or messages.
#pragma once

#include "comm/host_communicator.h"

namespace moesaic {

class SelfCommunicator final : public HostCommunicator {
  public:
    explicit SelfCommunicator(std::string name = "world",
                              std::shared_ptr<CommunicatorSettings> settings = nullptr)
        : HostCommunicator(0, 1, std::move(name), std::move(settings)) {}

    void barrier(Label) override {}
    [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key, std::string name) override;
    void abort(std::string_view) noexcept override {}  // there is no other rank to stop

  protected:
    [[nodiscard]] std::unique_ptr<SharedWindow> make_window(i64 bytes, Label label) override;
    void exchange_now(const Exchange& exchange) override;
    void gather_now(const Gather& gather) override;
    void broadcast_now(const Message&) override {}
    void send_now(const Message&) override {}  // no peer passes the check
    void recv_now(const Message&) override {}
};

}  // namespace moesaic
