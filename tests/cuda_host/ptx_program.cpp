#include "tests/cuda_host/ptx_program.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <stdexcept>

namespace cuda_host {

namespace fs = std::filesystem;

namespace {

std::vector<std::pair<const unsigned char*, std::size_t>>& constants() {
    static std::vector<std::pair<const unsigned char*, std::size_t>> all;
    return all;
}

std::vector<fs::path> files_of(int architecture) {
    std::vector<fs::path> files;
    for (const char* folder : {MOESAIC_PTX_FOLDER, MOESAIC_DEFECTS_PTX_FOLDER}) {
        if (!fs::exists(folder)) continue;
        for (const auto& file : fs::directory_iterator(folder))
            if (file.path().filename().string().ends_with(fmt::format(".compute_{}.ptx", architecture)))
                files.push_back(file.path());
    }
    return files;
}

}  // namespace

PtxProgram& PtxProgram::of(int architecture) {
    static std::map<int, PtxProgram> programs;
    const auto found = programs.find(architecture);
    return found != programs.end() ? found->second
                                   : programs.try_emplace(architecture, files_of(architecture)).first->second;
}

bool PtxProgram::is_there(int architecture) {
    return !files_of(architecture).empty();
}

PtxProgram::PtxProgram(const std::vector<fs::path>& files) {
    for (const fs::path& path : files) {
        std::ifstream file(path);
        modules_.push_back(parse_ptx({std::istreambuf_iterator<char>(file), {}}, path.filename().string()));
        const PtxModule& module = modules_.back();
        for (const auto& [symbol, function] : module.index) kernels_[symbol] = {&module, function};
        for (const auto& [name, bytes] : module.constants)
            constants().emplace_back(bytes.data(), bytes.size());
    }
}

decltype(Settings::translate) PtxProgram::translation(AccessStatistics* statistics) const {
    return [this, statistics](const std::string& symbol, const std::vector<std::byte>& parameters) {
        const auto found = kernels_.find(symbol);
        if (found == kernels_.end())
            throw std::runtime_error("nvcc made no PTX of the kernel '" + symbol + "'");
        const Kernel kernel = found->second;
        const std::vector<PtxFunction>& functions = kernel.module->functions;
        const std::size_t wanted = functions[kernel.function].parameter_bytes;
        if (parameters.size() > wanted)
            throw std::runtime_error(fmt::format("{} takes {} bytes of arguments and is given {}", symbol,
                                                 wanted, parameters.size()));
        std::vector<std::byte> padded = parameters;
        padded.resize(wanted);
        return std::function<void()>([&functions, kernel, statistics, bytes = std::move(padded)] {
            run_ptx(functions, functions[kernel.function], bytes.data(), nullptr, statistics);
        });
    };
}

bool is_ptx_constant(const void* data, std::size_t bytes) {
    const auto* const first = static_cast<const unsigned char*>(data);
    for (const auto& [begin, size] : constants())
        if (first >= begin && first + bytes <= begin + size) return true;
    return false;
}

}  // namespace cuda_host
