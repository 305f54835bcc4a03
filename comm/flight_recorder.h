// What a rank remembers of its last collectives, for the moment when one of them does not end.
#pragma once

#include <chrono>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "comm/flight_log.h"

namespace moesaic {

/// A ring of the last collectives of one rank, over all its communicators. Safe to use from several threads:
/// one that computes, one that communicates, and one that writes the records down when somebody is missed.
class FlightRecorder {
  public:
    /// A collective as the rank meets it. Its words are string literals.
    struct Call {
        int group = -1;  ///< what join() returned; -1: not recorded
        std::string_view verb, operation;
        int layer = -1;
        i64 rows = 0, row_bytes = 0;  ///< of this rank
        u64 shape = 0;                ///< hash of what all ranks have to agree on; 0: nothing
        bool pairwise = false;        ///< between two ranks: has no place in the group's order
    };

    explicit FlightRecorder(std::size_t capacity = 1024) : ring_(capacity) {}

    /// A communicator: its name and the world ranks of its members, by rank.
    [[nodiscard]] int join(std::string name, std::vector<int> world_ranks);

    /// From the call to the end of the scope; a scope that an exception leaves stays under way for good.
    class Scope {
      public:
        Scope(FlightRecorder& recorder, const Call& call);
        ~Scope();
        Scope(const Scope&) = delete;
        Scope& operator=(const Scope&) = delete;

      private:
        FlightRecorder& recorder_;
        i64 number_;
        int exceptions_;
    };

    /// From now on remembers so many collectives, if they are more than before.
    void remember(std::size_t collectives);
    /// When times in log() are 0, in seconds of the steady clock.
    [[nodiscard]] double start() const;
    /// The ring as it stands, oldest first.
    [[nodiscard]] FlightLog log() const;

  private:
    struct Entry {
        Call call;
        i64 sequence = -1, step = -1;
        u64 history = 0;
        double began = 0, ended = -1;
    };
    struct Group {
        FlightGroup known;
        u64 history = 0;
    };
    [[nodiscard]] double now() const;
    [[nodiscard]] i64 begin(const Call& call);
    void end(i64 number);

    mutable std::mutex mutex_;
    std::vector<Entry> ring_;
    i64 recorded_ = 0;  // entry n stands at n modulo the capacity
    std::vector<Group> groups_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace moesaic
