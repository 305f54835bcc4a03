#include "launch/doctor/advice.h"

#include <algorithm>
#include <array>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

struct Installable {
    const char* name;    ///< of the finding
    const char* debian;  ///< packages of Debian and Ubuntu
    const char* redhat;  ///< packages of RHEL and its kin
    const char* redhat_repository;
    const char* redhat_note;
    const char* note;  ///< for everybody
};

constexpr const char* kCrb = "the repository crb (RHEL 8 and kin: powertools)";
constexpr const char* kNvidia = "from NVIDIA's repository, developer.nvidia.com/cuda-downloads";

constexpr const char* kModule = "module load mpi/openmpi-x86_64 puts it on PATH";

constexpr std::array kInstallable{
    Installable{"C++ compiler", "g++", "gcc-c++", "", "RHEL 8: gcc-toolset-12 instead", ""},
    Installable{"Clang", "clang", "clang", "", "", "only to build with it"},
    Installable{"CMake", "cmake", "cmake", "", "", ""},
    Installable{"Ninja", "ninja-build", "ninja-build", kCrb, "", "make does as well"},
    Installable{"git", "git", "git", "", "", "only for the commit in the version"},
    Installable{"gnuplot", "gnuplot-nox", "gnuplot", "", "", "only for `report`"},
    Installable{"MPI library", "libopenmpi-dev openmpi-bin", "openmpi openmpi-devel", "", kModule,
                "then build again"},
    Installable{"launcher", "openmpi-bin", "openmpi", "", kModule, ""},
    Installable{"CUDA compiler", "nvidia-cuda-toolkit", "cuda-toolkit", "", "", kNvidia},
    Installable{"CUDA driver", "nvidia-driver", "cuda-drivers", "", "", kNvidia},
    Installable{"CUDA runtime", "nvidia-cuda-toolkit", "cuda-toolkit", "", "", kNvidia},
    Installable{"NCCL", "libnccl2 libnccl-dev", "libnccl libnccl-devel", "", "", kNvidia},
};

}  // namespace

std::string install_command(const OsRelease& os, const std::string& packages) {
    if (os.family == OsRelease::Family::debian) return "apt-get install -y " + packages;
    if (os.family == OsRelease::Family::redhat) return "dnf install -y " + packages;
    return packages;
}

InstallAdvice install_advice(const OsRelease& os, std::string_view what) {
    const auto* const entry = std::ranges::find(kInstallable, what, &Installable::name);
    MOESAIC_ASSERT(entry != kInstallable.end(), "no advice for '{}'", what);
    InstallAdvice advice;
    std::string repository, note;
    if (os.family == OsRelease::Family::debian) advice.packages = entry->debian;
    if (os.family == OsRelease::Family::redhat) {
        advice.packages = entry->redhat;
        repository = entry->redhat_repository;
        note = entry->redhat_note;
        if (os.id == "fedora") repository.clear();  // has everything in one
    }
    advice.text = advice.packages.empty()
                      ? fmt::format("install it; Debian calls it {}, Fedora {}", entry->debian, entry->redhat)
                      : install_command(os, advice.packages);
    if (!repository.empty()) advice.text += fmt::format(" (needs {})", repository);
    if (!note.empty()) advice.text += "; " + note;
    if (*entry->note) advice.text += fmt::format("; {}", entry->note);
    return advice;
}

std::vector<std::string> installable() {
    std::vector<std::string> names;
    for (const Installable& entry : kInstallable) names.emplace_back(entry.name);
    return names;
}

}  // namespace moesaic
