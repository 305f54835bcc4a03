// The PTX that nvcc made of the kernels, ready to run in place of g++'s code.
#pragma once

#include <deque>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tests/cuda_host/emulator.h"
#include "tests/cuda_host/ptx_thread.h"

namespace cuda_host {

/// One file's functions and constants.
struct PtxModule {
    std::vector<PtxFunction> functions;
    std::map<std::string, std::size_t> index;  ///< of functions, by symbol
    std::map<std::string, std::vector<unsigned char>> constants;
    std::deque<std::string> files;
};
/// Throws std::runtime_error at what the interpreter does not know, so that nothing is skipped silently.
[[nodiscard]] PtxModule parse_ptx(const std::string& text, const std::string& path);

/// All kernels that were built for an architecture.
class PtxProgram {
  public:
    /// Of compute capability 8.0 as 80.
    static PtxProgram& of(int architecture);
    /// Whether nvcc built for it.
    static bool is_there(int architecture);
    explicit PtxProgram(const std::vector<std::filesystem::path>& files);
    PtxProgram(const PtxProgram&) = delete;
    PtxProgram& operator=(const PtxProgram&) = delete;

    /// For Settings::translate. A kernel that is not there throws. The program and the statistics have to
    /// live on.
    [[nodiscard]] decltype(Settings::translate) translation(AccessStatistics* statistics = nullptr) const;

  private:
    struct Kernel {
        const PtxModule* module;
        std::size_t function;
    };
    std::deque<PtxModule> modules_;
    std::map<std::string, Kernel> kernels_;
};

/// Whether it is part of a constant of a module.
[[nodiscard]] bool is_ptx_constant(const void* data, std::size_t bytes);

}  // namespace cuda_host
