// Libraries that are opened at run time and take what they need of the runtime from the program.
#pragma once

#include <string>

namespace moesaic {

struct ModuleLibrary {
    void* handle = nullptr;  ///< for dlsym; stays open: what comes from it may live as long as the program
    std::string path;
    std::string problem;  ///< why there is no handle, as part of a sentence
};

/// The library that the environment's `variable` names, or else `file`, which stands beside the program or in
/// ../lib of it; empty where there is none.
[[nodiscard]] std::string module_path(const char* variable, const char* file);

/// Opens it. `what` says what it is, such as "CUDA back end".
[[nodiscard]] ModuleLibrary open_module(const char* variable, const char* file, const char* what);

/// Null where it has no such function.
[[nodiscard]] void* function_of(const ModuleLibrary& library, const char* name);

}  // namespace moesaic
