#include "comm/mpi_window.h"

#define OMPI_SKIP_MPICXX  // the removed C++ bindings would need a library of their own
#define MPICH_SKIP_MPICXX
#include <mpi.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <exception>

namespace moesaic {

namespace {

constexpr const char* kSharedMemoryFolder = "/dev/shm";

std::string mpi_error_text(int code) {
    std::array<char, MPI_MAX_ERROR_STRING> text{};
    int length = 0;
    MPI_Error_string(code, text.data(), &length);
    return {text.data(), static_cast<std::size_t>(length)};
}

std::string mebibytes(i64 bytes) {
    return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

/// Collective over `group`: whether `holds` on every rank.
bool everywhere(MPI_Comm group, bool holds) {
    int mine = holds ? 1 : 0, all = 0;
    return MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MIN, group) == MPI_SUCCESS && all;
}

[[noreturn]] void refuse(const Communicator& communicator, i64 needed, const std::string& why) {
    const i64 enough = (needed + needed / 8) / (1 << 20) + 64;
    throw UserError(fmt::format(
        "the {} ranks of '{}' want {} of shared memory on one machine: {}; enlarge {} (docker run "
        "--shm-size={}m, or mount -o remount,size={}m {}), lower train.micro_sequences or "
        "parallel.receive_budget, or use parallel.exchange: flat, which needs none",
        communicator.size(), communicator.name(), mebibytes(needed), why, kSharedMemoryFolder, enough, enough,
        kSharedMemoryFolder));
}

class MpiWindow final : public SharedWindow {
  public:
    MpiWindow(MPI_Win window, MPI_Comm group, std::byte* data, i64 segment_bytes, bool may_spin)
        : SharedWindow(data, segment_bytes), window_(window), group_(group), may_spin_(may_spin) {}
    ~MpiWindow() override {
        int ended = 0;
        MPI_Finalized(&ended);
        // Collective: after a failure the others may never come.
        if (ended || std::uncaught_exceptions() > 0) return;
        MPI_Win_unlock_all(window_);
        MPI_Win_free(&window_);
    }

    void poll() override {
        int arrived = 0;  // not asked for what arrives, but for the library's progress
        MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, group_, &arrived, MPI_STATUS_IGNORE);
    }
    bool may_spin() const override { return may_spin_; }

  private:
    MPI_Win window_;
    MPI_Comm group_;
    bool may_spin_;
};

}  // namespace

i64 free_shared_memory() {
    struct statvfs folder {};
    if (statvfs(kSharedMemoryFolder, &folder) != 0) return -1;
    return static_cast<i64>(folder.f_bavail) * static_cast<i64>(folder.f_frsize);
}

std::unique_ptr<SharedWindow> make_mpi_window(Communicator& communicator, const void* group, i64 bytes,
                                              Label label, bool may_spin) {
    communicator.barrier(label);  // what follows cannot time out
    MPI_Comm ranks = *static_cast<const MPI_Comm*>(group);
    if (const int nodes = communicator.topology().nodes; nodes > 1) {
        throw UserError(fmt::format(
            "the {} ranks of '{}' are on {} machines and cannot share memory; use a parallel.expert that "
            "divides the ranks of one machine, or parallel.exchange: flat",
            communicator.size(), communicator.name(), nodes));
    }
    const i64 page = sysconf(_SC_PAGESIZE);
    const i64 segment = SharedWindow::rounded(bytes);
    const i64 needed = segment * communicator.size(), available = free_shared_memory();
    // Pages that are missing would end the process with a bus error when they are written to.
    if (!everywhere(ranks, available < 0 || available >= needed + needed / 64)) {
        refuse(communicator, needed,
               fmt::format("{} has {} left", kSharedMemoryFolder, mebibytes(available)));
    }
    // The library may put the first segment anywhere: it is moved up to a page, and the last rank makes up
    // for that.
    const i64 own_bytes = segment + (communicator.rank() + 1 == communicator.size() ? page : 0);
    MPI_Win window = MPI_WIN_NULL;
    std::byte* own = nullptr;
    const int code =
        MPI_Win_allocate_shared(own_bytes, 1, MPI_INFO_NULL, ranks, static_cast<void*>(&own), &window);
    if (!everywhere(ranks, code == MPI_SUCCESS)) {
        refuse(communicator, needed, code == MPI_SUCCESS ? "another rank was refused" : mpi_error_text(code));
    }
    MPI_Aint first_bytes = 0;
    int unit = 1;
    std::byte* first = nullptr;
    MPI_Win_shared_query(window, 0, &first_bytes, &unit, static_cast<void*>(&first));
    // Without the hint alloc_shared_noncontig the standard puts segments one behind the other.
    MOESAIC_ASSERT(own == first + communicator.rank() * segment, "segment {} lies {} bytes behind the first",
                   communicator.rank(), own - first);
    // Mappings begin at pages in every process, so that all of them round alike.
    const auto skipped = static_cast<i64>(-reinterpret_cast<std::uintptr_t>(first) % static_cast<u64>(page));
    first += skipped;
    own += skipped;
    MPI_Win_lock_all(MPI_MODE_NOCHECK, window);
    std::memset(own, 0, static_cast<std::size_t>(segment));
    MPI_Win_sync(window);
    if (!everywhere(ranks, true)) throw Error(Communicator::speaker() + ": a window cannot be made");
    return std::make_unique<MpiWindow>(window, ranks, first, segment, may_spin);
}

}  // namespace moesaic
