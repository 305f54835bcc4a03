#include "runtime/module_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>

namespace moesaic {

std::string module_path(const char* variable, const char* file) {
    namespace fs = std::filesystem;
    if (const char* const named = std::getenv(variable)) return named;
    std::error_code error;
    const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
    for (const fs::path& path : {folder / file, folder.parent_path() / "lib" / file})
        if (fs::exists(path, error)) return path.string();
    return {};
}

ModuleLibrary open_module(const char* variable, const char* file, const char* what) {
    ModuleLibrary library;
    library.path = module_path(variable, file);
    if (library.path.empty()) {
        library.problem = fmt::format("this build has no {} ({})", what, file);
        return library;
    }
    library.handle = dlopen(library.path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library.handle) library.problem = fmt::format("{} cannot be opened: {}", library.path, dlerror());
    return library;
}

void* function_of(const ModuleLibrary& library, const char* name) {
    return library.handle ? dlsym(library.handle, name) : nullptr;
}

}  // namespace moesaic
