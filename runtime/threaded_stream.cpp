#include "runtime/threaded_stream.h"

#include <utility>

namespace moesaic {

ThreadedStream::ThreadedStream(std::string_view name) : name_(name), thread_([this] { work_off(); }) {}

ThreadedStream::~ThreadedStream() {
    {
        const std::scoped_lock lock(mutex_);
        stop_ = true;
    }
    arrived_.notify_one();
    thread_.join();
}

void ThreadedStream::wait(const Event& event) {
    if (!event.stream || event.stream == this) return;
    auto& other = static_cast<ThreadedStream&>(*event.stream);
    run([&other, position = event.position] { other.wait_until(position); });
}

void ThreadedStream::run(std::function<void()> work) {
    {
        const std::scoped_lock lock(mutex_);
        queue_.push_back({std::move(work), run_context()});
    }
    ++enqueued_;
    arrived_.notify_one();
}

void ThreadedStream::wait_until(u64 position) {
    std::unique_lock lock(mutex_);
    advanced_.wait(lock, [&] { return executed_ >= position || failure_ || stop_; });
    if (failure_) std::rethrow_exception(failure_);
}

void ThreadedStream::work_off() {
    std::unique_lock lock(mutex_);
    for (;;) {
        arrived_.wait(lock, [this] { return stop_ || !queue_.empty(); });
        if (stop_) break;
        Item item = std::move(queue_.front());
        queue_.pop_front();
        const bool failed = failure_ != nullptr;
        lock.unlock();
        std::exception_ptr failure;
        run_context() = item.context;
        try {
            if (!failed) item.work();
        } catch (...) {
            failure = std::current_exception();
        }
        item.work = nullptr;  // what it holds goes before anybody is told
        lock.lock();
        if (failure) failure_ = failure;
        ++executed_;
        advanced_.notify_all();
    }
    advanced_.notify_all();
}

}  // namespace moesaic
