#include "launch/flight_watch.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <utility>

#include "comm/flight_log.h"
#include "runtime/base/atomic_file.h"
#include "runtime/base/log.h"
#include "runtime/base/mapped_file.h"
#include "runtime/base/run_context.h"

namespace moesaic {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

void set_earlier_records_aside(const std::string& folder) {
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with("flight.") || !entry.is_regular_file(error)) continue;
        fs::create_directories(folder + "/flight.earlier", error);
        fs::rename(entry.path(), folder + "/flight.earlier/" + name, error);
    }
}

}  // namespace

FlightWatch::FlightWatch(Communicator& world, std::string folder)
    : world_(world), folder_(std::move(folder)) {
    if (world.size() == 1) return;  // waits for nobody
    if (world.rank() == 0) set_earlier_records_aside(folder_);
    world.barrier({"the flight watch begins"});
    world.set_explain_hang([this] { return explain(); });
    thread_ = std::thread([this, context = run_context()] {
        run_context() = context;
        watch();
    });
}

FlightWatch::~FlightWatch() {
    if (!thread_.joinable()) return;
    world_.set_explain_hang({});
    {
        const std::scoped_lock lock(mutex_);
        stop_ = true;
    }
    stopping_.notify_all();
    thread_.join();
}

std::string FlightWatch::log_path(int rank) const {
    return fmt::format("{}/flight.rank{}.txt", folder_, rank);
}

std::string FlightWatch::request_path() const {
    return folder_ + "/flight.request";
}

bool FlightWatch::requested() const {
    std::error_code error;
    return fs::exists(request_path(), error);
}

bool FlightWatch::all_written() const {
    std::error_code error;
    for (int rank = 0; rank < world_.size(); ++rank) {
        if (!fs::exists(log_path(rank), error)) return false;
    }
    return true;
}

/// Several ranks may ask at once: that the file is there is all that counts.
void FlightWatch::request() const {
    std::ofstream(request_path(), std::ios::app) << Communicator::speaker() << "\n";
}

void FlightWatch::write_own() {
    const std::scoped_lock lock(mutex_);
    if (std::exchange(written_, true)) return;
    write_file_atomically(log_path(world_.rank()), to_text(world_.flights().log()));
}

void FlightWatch::wait_for_others(double seconds) const {
    const auto start = Clock::now();
    while (!all_written() && std::chrono::duration<double>(Clock::now() - start).count() < seconds)
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

std::string FlightWatch::explain() {
    try {
        write_own();
        request();
        wait_for_others(kPatience);
        std::map<int, FlightLog> logs;
        for (int rank = 0; rank < world_.size(); ++rank) {
            if (!fs::exists(log_path(rank))) continue;
            const MappedFile file(log_path(rank));
            const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
            logs.emplace(rank, read_flight_log(text, log_path(rank)));
        }
        return fmt::format("{}\nthe last collectives of every rank: {}", diagnose_hang(logs, world_.size()),
                           folder_ + "/flight.rank*.txt");
    } catch (const std::exception& failure) {
        return fmt::format("flight records could not be compared: {}", failure.what());
    }
}

void FlightWatch::record_failure() noexcept {
    if (!thread_.joinable()) return;
    try {
        write_own();
        request();
        wait_for_others(1);
    } catch (const std::exception& failure) {
        log_warn("flight records could not be written: {}", failure.what());
    }
}

void FlightWatch::watch() {
    std::unique_lock lock(mutex_);
    for (bool last = false; !last;) {
        last = stopping_.wait_for(lock, std::chrono::milliseconds(500), [this] { return stop_; });
        if (written_ || !requested()) continue;
        lock.unlock();
        try {
            write_own();
        } catch (const std::exception& failure) {
            log_warn("flight records could not be written: {}", failure.what());
        }
        lock.lock();
    }
}

}  // namespace moesaic
