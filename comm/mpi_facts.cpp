#include "comm/mpi_facts.h"

#define OMPI_SKIP_MPICXX
#define MPICH_SKIP_MPICXX
#include <fmt/format.h>
#include <mpi.h>

#include <array>
#include <optional>
#include <vector>

#include "comm/mpi_communicator.h"

namespace moesaic {

namespace {

/// Where Open MPI 4, Open MPI 5 and MPICH say what this program's speed hangs on.
constexpr std::array kSettings{"btl_vader_single_copy_mechanism",
                               "smsc",
                               "mpi_yield_when_idle",
                               "pml",
                               "btl",
                               "osc",
                               "mtl",
                               "MPIR_CVAR_CH4_SHM_POSIX_EAGER",
                               "MPIR_CVAR_CH4_NETMOD",
                               "MPIR_CVAR_ODD_EVEN_CLIQUES"};

std::optional<std::string> value_of(int index, MPI_Datatype type) {
    MPI_T_cvar_handle handle{};
    int count = 0;
    if (MPI_T_cvar_handle_alloc(index, nullptr, &handle, &count) != MPI_SUCCESS) return std::nullopt;
    std::optional<std::string> value;
    if (type == MPI_CHAR) {
        std::vector<char> text(static_cast<std::size_t>(count) + 1);
        if (MPI_T_cvar_read(handle, text.data()) == MPI_SUCCESS) value = text.data();
    } else if (count == 1 && (type == MPI_INT || type == MPI_UNSIGNED)) {
        int number = 0;
        if (MPI_T_cvar_read(handle, &number) == MPI_SUCCESS) value = fmt::format("{}", number);
    }
    MPI_T_cvar_handle_free(&handle);
    return value;
}

/// "none" for 3 where the variable counts named values.
std::string named_value(MPI_T_enum names, const std::string& value) {
    int count = 0;
    std::array<char, 256> name{};
    int length = name.size();
    if (names == MPI_T_ENUM_NULL || MPI_T_enum_get_info(names, &count, name.data(), &length) != MPI_SUCCESS)
        return value;
    for (int item = 0; item < count; ++item) {
        int number = 0;
        length = name.size();
        if (MPI_T_enum_get_item(names, item, &number, name.data(), &length) == MPI_SUCCESS &&
            fmt::format("{}", number) == value)
            return name.data();
    }
    return value;
}

std::map<std::string, std::string> read_settings() {
    std::map<std::string, std::string> settings;
    int provided = 0;
    // The level of MPI_Init_thread: Open MPI 4.1 takes whatever is asked for here for all of MPI.
    if (MPI_T_init_thread(MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS) return settings;
    for (const char* name : kSettings) {
        int index = 0;
        if (MPI_T_cvar_get_index(name, &index) != MPI_SUCCESS) continue;
        std::array<char, 256> text{};
        int length = text.size(), verbosity = 0, binding = 0, scope = 0;
        MPI_Datatype type = MPI_DATATYPE_NULL;
        MPI_T_enum names = MPI_T_ENUM_NULL;
        if (MPI_T_cvar_get_info(index, text.data(), &length, &verbosity, &type, &names, nullptr, nullptr,
                                &binding, &scope) != MPI_SUCCESS ||
            binding != MPI_T_BIND_NO_OBJECT)
            continue;
        if (const auto value = value_of(index, type)) settings[name] = named_value(names, *value);
    }
    MPI_T_finalize();
    return settings;
}

}  // namespace

MpiFacts mpi_facts() {
    MpiFacts facts;
    facts.compiled = true;
    facts.kind = mpi_kind(mpi_library());
    const std::string description = mpi_library();
    facts.library = description.substr(0, description.find_first_of(",\n"));
    int major = 0, minor = 0, started = 0, ended = 0;
    MPI_Get_version(&major, &minor);
    facts.standard = fmt::format("{}.{}", major, minor);
    MPI_Initialized(&started);
    MPI_Finalized(&ended);
    if (!started || ended) return facts;
    int level = 0;
    MPI_Query_thread(&level);
    facts.thread_level = level == MPI_THREAD_SINGLE       ? "single"
                         : level == MPI_THREAD_FUNNELED   ? "funneled"
                         : level == MPI_THREAD_SERIALIZED ? "serialized"
                                                          : "multiple";
    facts.serialized = level >= MPI_THREAD_SERIALIZED;
    facts.settings = read_settings();
    return facts;
}

}  // namespace moesaic
