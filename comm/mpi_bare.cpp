#include "comm/mpi_bare.h"

#define OMPI_SKIP_MPICXX  // the removed C++ bindings would need a library of their own
#define MPICH_SKIP_MPICXX
#include <mpi.h>

#include <exception>

#include "comm/mpi_groups.h"

namespace moesaic {

namespace {

class MpiAllToAll final : public BareAllToAll {
  public:
    explicit MpiAllToAll(i64 row_bytes) {
        check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &group_), "MPI_Comm_dup");
        check_mpi(MPI_Type_contiguous(static_cast<int>(row_bytes), MPI_BYTE, &row_), "row type");
        check_mpi(MPI_Type_commit(&row_), "row type");
    }
    ~MpiAllToAll() override {
        if (std::uncaught_exceptions() > 0) return;  // collective: the others may never come
        MPI_Type_free(&row_);
        MPI_Comm_free(&group_);
    }
    MpiAllToAll(const MpiAllToAll&) = delete;
    MpiAllToAll& operator=(const MpiAllToAll&) = delete;

    void exchange(const void* send, Counts send_rows, void* recv, Counts recv_rows) override {
        const Side sent(send_rows), received(recv_rows);
        check_mpi(MPI_Alltoallv(send, sent.rows.data(), sent.first.data(), row_, recv, received.rows.data(),
                                received.first.data(), row_, group_),
                  "MPI_Alltoallv");
    }

  private:
    struct Side {
        explicit Side(Counts counts) {
            for (const i64 count : counts) {
                first.push_back(rows.empty() ? 0 : first.back() + rows.back());
                rows.push_back(static_cast<int>(count));
            }
        }
        std::vector<int> rows, first;
    };

    MPI_Comm group_ = MPI_COMM_NULL;
    MPI_Datatype row_ = MPI_BYTE;
};

}  // namespace

std::unique_ptr<BareAllToAll> make_bare_all_to_all(i64 row_bytes) {
    int started = 0, ended = 0;
    MPI_Initialized(&started);
    MPI_Finalized(&ended);
    if (!started || ended) return nullptr;
    return std::make_unique<MpiAllToAll>(row_bytes);
}

}  // namespace moesaic
