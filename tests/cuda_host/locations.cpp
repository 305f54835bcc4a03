#include "tests/cuda_host/locations.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

// The linker's: where the program, or the library that holds this, begins in memory.
extern "C" [[gnu::visibility("hidden")]] const char __ehdr_start;

namespace cuda_host {

namespace {

constexpr Location kLine = 0x80000000u;

struct Lines {
    std::map<std::pair<const char*, int>, Location> numbers;
    std::vector<Place> places;
};
Lines& lines() {
    static Lines all;
    return all;
}

std::string without_folders(const std::string& path) {
    return path.substr(path.rfind('/') + 1);
}

/// What addr2line says of an instruction: "path:line" of the innermost function, then of those it is inlined
/// in.
std::vector<std::string> inlined_places(Location location) {
    Dl_info here{};
    const bool in_library =
        dladdr(&__ehdr_start, &here) != 0 && std::string_view(here.dli_fname).ends_with(".so");
    const std::string command = fmt::format("addr2line -i -e {} {:#x} 2>&1",
                                            in_library ? here.dli_fname : "/proc/$PPID/exe", location);
    const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
    std::vector<std::string> places;
    std::array<char, 1024> line;
    while (pipe && std::fgets(line.data(), line.size(), pipe.get())) {
        std::string place = line.data();
        place = place.substr(0, place.find_first_of("\n("));
        while (place.ends_with(' ')) place.pop_back();
        places.push_back(place);
    }
    return places;
}

}  // namespace

Location location_of(const void* return_address) {
    // One before: the call itself, not what comes after it.
    return static_cast<Location>(static_cast<const char*>(return_address) - &__ehdr_start) - 1;
}

Location location_of(Place place) {
    const auto [found, fresh] = lines().numbers.try_emplace({place.file, place.line}, 0);
    if (fresh) {
        found->second = kLine | static_cast<Location>(lines().places.size());
        lines().places.push_back(place);
    }
    return found->second;
}

bool is_helper(const std::string& path) {
    if (path.starts_with("/usr/")) return true;
    for (const char* shared : {"/kernels/device.h", "/kernels/quads.h", "/kernels/tile_kernels.h",
                               "/cuda/gpu.h", "/cuda_host/device.h"})
        if (path.find(shared) != std::string::npos) return true;
    return false;
}

std::string text_of(Location location) {
    if (location & kLine) {
        const Place& place = lines().places[location & ~kLine];
        return fmt::format("{}:{}", without_folders(place.file), place.line);
    }
    const std::vector<std::string> places = inlined_places(location);
    for (const std::string& place : places)
        if (!is_helper(place)) return without_folders(place);
    return places.empty() ? fmt::format("instruction {:#x}", location) : without_folders(places.front());
}

}  // namespace cuda_host
