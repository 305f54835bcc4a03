#include "runtime/machine/network_facts.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <array>
#include <bit>
#include <memory>

#include "runtime/machine/text_file.h"

namespace moesaic {

namespace {

std::string address_text(in_addr address) {
    std::array<char, INET_ADDRSTRLEN> text{};
    ::inet_ntop(AF_INET, &address, text.data(), text.size());
    return text.data();
}

in_addr ipv4_of(const sockaddr* address) {
    return reinterpret_cast<const sockaddr_in*>(address)->sin_addr;
}

}  // namespace

std::vector<NetworkInterface> read_network_interfaces() {
    ifaddrs* list = nullptr;
    std::vector<NetworkInterface> interfaces;
    if (::getifaddrs(&list) != 0) return interfaces;
    const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, &::freeifaddrs);
    for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
        if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET) continue;
        if ((one->ifa_flags & IFF_LOOPBACK) != 0 || (one->ifa_flags & IFF_RUNNING) == 0) continue;
        NetworkInterface interface;
        interface.name = one->ifa_name;
        interface.address = address_text(ipv4_of(one->ifa_addr));
        if (one->ifa_netmask != nullptr) interface.prefix = std::popcount(ipv4_of(one->ifa_netmask).s_addr);
        const std::string folder = "/sys/class/net/" + interface.name;
        interface.mtu = read_number_file("", folder + "/mtu").value_or(0);
        const auto speed = read_number_file("", folder + "/speed");
        if (speed && *speed > 0) interface.megabits_per_second = speed;  // -1: unknown to the driver
        interfaces.push_back(std::move(interface));
    }
    return interfaces;
}

std::string network_of(const NetworkInterface& interface) {
    in_addr address{};
    if (::inet_pton(AF_INET, interface.address.c_str(), &address) != 1) return interface.address;
    const u32 mask = interface.prefix == 0 ? 0 : ~u32{0} << (32 - interface.prefix);
    address.s_addr = htonl(ntohl(address.s_addr) & mask);
    return fmt::format("{}/{}", address_text(address), interface.prefix);
}

}  // namespace moesaic
