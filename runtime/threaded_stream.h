// A stream with a thread of its own, so that what it does goes on beside the work of other streams.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "runtime/base/run_context.h"
#include "runtime/stream.h"

namespace moesaic {

/// Work runs in order on the stream's thread, in the run_context() of whoever enqueued it. After an exception
/// what is still queued is dropped, and whoever waits for the stream gets that exception: streams that wait
/// for its events fail with it, and synchronize() throws it.
class ThreadedStream final : public HostStream {
  public:
    explicit ThreadedStream(std::string_view name);
    /// Ends the work at hand, drops what is queued.
    ~ThreadedStream() override;
    ThreadedStream(const ThreadedStream&) = delete;
    ThreadedStream& operator=(const ThreadedStream&) = delete;

    [[nodiscard]] std::string_view name() const override { return name_; }
    [[nodiscard]] Event record() override { return {this, enqueued_}; }
    void wait(const Event& event) override;
    void synchronize() override { wait_until(enqueued_); }
    void run(std::function<void()> work) override;
    [[nodiscard]] bool inline_execution() const override { return false; }

  private:
    struct Item {
        std::function<void()> work;
        RunContext context;
    };
    void work_off();
    void wait_until(u64 position);

    std::string name_;
    u64 enqueued_ = 0;  // of the thread that enqueues; the rest is guarded by the mutex
    std::mutex mutex_;
    std::condition_variable arrived_, advanced_;
    std::deque<Item> queue_;
    u64 executed_ = 0;
    std::exception_ptr failure_;
    bool stop_ = false;
    std::thread thread_;
};

}  // namespace moesaic
