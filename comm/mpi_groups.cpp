#include "comm/mpi_groups.h"

#define OMPI_SKIP_MPICXX  // the removed C++ bindings would need a library of their own
#define MPICH_SKIP_MPICXX
#include <mpi.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "runtime/base/error.h"

namespace moesaic {

void check_mpi(int code, const std::string& what) {
    if (code == MPI_SUCCESS) return;
    std::array<char, MPI_MAX_ERROR_STRING> text{};
    int length = 0;
    MPI_Error_string(code, text.data(), &length);
    throw Error(fmt::format("{}: {}: {}", Communicator::speaker(), what, text.data()));
}

Topology topology_of(const void* handle, int size) {
    const MPI_Comm group = *static_cast<const MPI_Comm*>(handle);
    MPI_Comm node = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split_type(group, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node), "ranks of one node");
    Topology topology;
    int local_size = 1, leader = 0;
    MPI_Comm_rank(group, &leader);
    MPI_Comm_rank(node, &topology.local_rank);
    MPI_Comm_size(node, &local_size);
    std::vector<int> sizes(static_cast<std::size_t>(size));
    const int mine = topology.local_rank == 0 ? local_size : 0;  // every node counts once
    check_mpi(MPI_Allgather(&mine, 1, MPI_INT, sizes.data(), 1, MPI_INT, group), "ranks per node");
    check_mpi(MPI_Bcast(&leader, 1, MPI_INT, 0, node), "ranks of one node");
    check_mpi(MPI_Comm_free(&node), "ranks of one node");
    topology.node = static_cast<int>(leader - std::count(sizes.begin(), sizes.begin() + leader, 0));
    topology.nodes = static_cast<int>(size - std::ranges::count(sizes, 0));
    topology.ranks_per_node = std::accumulate(sizes.begin(), sizes.end(), 0, std::gcd<int, int>);
    return topology;
}

std::vector<int> world_ranks_of(const void* handle, int size) {
    MPI_Group group = MPI_GROUP_NULL, world = MPI_GROUP_NULL;
    check_mpi(MPI_Comm_group(*static_cast<const MPI_Comm*>(handle), &group), "world ranks");
    check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &world), "world ranks");
    std::vector<int> ranks(static_cast<std::size_t>(size)), world_ranks(ranks);
    std::iota(ranks.begin(), ranks.end(), 0);
    check_mpi(MPI_Group_translate_ranks(group, size, ranks.data(), world, world_ranks.data()), "world ranks");
    MPI_Group_free(&group);
    MPI_Group_free(&world);
    return world_ranks;
}

}  // namespace moesaic
