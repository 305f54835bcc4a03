// Order of work: a stream executes what is enqueued on it in order; events order streams among each other.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "runtime/base/types.h"

namespace moesaic {

class Stream;

/// A point in a stream's order. Default-constructed: already reached.
struct Event {
    Stream* stream = nullptr;
    u64 position = 0;
};

class Stream {
  public:
    virtual ~Stream() = default;
    [[nodiscard]] virtual std::string_view name() const = 0;
    /// The point after everything enqueued so far.
    [[nodiscard]] virtual Event record() = 0;
    /// Whatever is enqueued from now on runs after `event`.
    virtual void wait(const Event& event) = 0;
    /// Returns when everything enqueued so far has run; afterwards the host may read what it wrote.
    virtual void synchronize() = 0;
};

/// How host streams execute.
enum class StreamMode {
    inline_execution,   ///< at once, on the calling thread; events cost nothing
    accounting,         ///< never: what is enqueued is dropped, so that a dry run allocates without computing
    threads,            ///< each stream on a thread of its own, so that exchange and compute overlap
    deferred_shuffled,  ///< for tests: work waits in queues, and a synchronize runs the queues' heads in
                        ///< random order as far as events allow, so that a missing wait shows as wrong
                        ///< numbers
};

/// A stream of host work.
class HostStream : public Stream {
  public:
    /// Runs `work` now or queues it. Captures must own or outlive what they use: views of tensors may dangle
    /// only if the pool's stream-ordered reuse covers them; host spans have to be copied into the capture.
    virtual void run(std::function<void()> work) = 0;
    [[nodiscard]] virtual bool inline_execution() const = 0;
    [[nodiscard]] virtual bool drops_work() const { return false; }
    /// Its own work is not the host's, and run() waits for it.
    [[nodiscard]] virtual bool of_device() const { return false; }
};

/// Runs `work` on a stream that is known to be a host stream; no allocation when it executes inline.
template <class Work>
void run_on_host(Stream& stream, Work&& work) {
    auto& host = static_cast<HostStream&>(stream);
    if (host.inline_execution()) {
        work();
    } else if (!host.drops_work()) {
        host.run(std::forward<Work>(work));
    }
}

/// The streams of one rank: creates them and, in deferred mode, chooses what runs next.
class HostStreamScheduler {
  public:
    explicit HostStreamScheduler(StreamMode mode, u64 shuffle_seed = 0);
    ~HostStreamScheduler();
    HostStreamScheduler(const HostStreamScheduler&) = delete;
    HostStreamScheduler& operator=(const HostStreamScheduler&) = delete;

    [[nodiscard]] std::unique_ptr<Stream> make_stream(std::string_view name);
    [[nodiscard]] StreamMode mode() const;

    struct State;

  private:
    std::unique_ptr<State> state_;
};

}  // namespace moesaic
