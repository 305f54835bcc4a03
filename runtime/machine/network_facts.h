// The network interfaces of this machine that other machines could be reached by.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// One IPv4 address of an interface that is up and no loopback.
struct NetworkInterface {
    std::string name;                        ///< "eth0"
    std::string address;                     ///< "10.0.0.7"
    int prefix = 0;                          ///< bits of the address that name the network: 24
    i64 mtu = 0;                             ///< largest packet in bytes; 0 where unknown
    std::optional<i64> megabits_per_second;  ///< as the driver says

    bool operator==(const NetworkInterface&) const = default;
};
[[nodiscard]] std::vector<NetworkInterface> read_network_interfaces();

/// "10.0.0.0/24": the network that the address is in.
[[nodiscard]] std::string network_of(const NetworkInterface& interface);

}  // namespace moesaic
