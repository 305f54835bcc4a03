// Has every rank's flight records written into the run's folder when one of them waits too long or fails, and
// finds out of them what went wrong.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "comm/communicator.h"

namespace moesaic {

/// Ranks that hang cannot speak through their communicators. So a rank whose time-out strikes leaves a
/// request in the run's folder; a thread of every other rank, which computes nothing and waits for nobody,
/// looks for it twice a second and writes that rank's records beside it.
class FlightWatch {
  public:
    /// Collective over `world`. Every rank sees `folder`. Records of an earlier failure move to
    /// FOLDER/flight.earlier.
    FlightWatch(Communicator& world, std::string folder);
    ~FlightWatch();
    FlightWatch(const FlightWatch&) = delete;
    FlightWatch& operator=(const FlightWatch&) = delete;

    /// This rank has failed for another reason than a time-out: its records, and the others' where they still
    /// can within a second.
    void record_failure() noexcept;

    static constexpr double kPatience = 5;  ///< seconds that a diagnosis waits for the other ranks' records

  private:
    [[nodiscard]] std::string log_path(int rank) const;
    [[nodiscard]] std::string request_path() const;
    [[nodiscard]] bool requested() const;
    [[nodiscard]] bool all_written() const;
    void request() const;
    void write_own();
    void wait_for_others(double seconds) const;
    [[nodiscard]] std::string explain();
    void watch();

    Communicator& world_;
    std::string folder_;
    std::mutex mutex_;
    std::condition_variable stopping_;
    bool stop_ = false, written_ = false;
    std::thread thread_;
};

}  // namespace moesaic
