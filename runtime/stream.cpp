#include "runtime/stream.h"

#include <algorithm>
#include <deque>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/philox.h"
#include "runtime/threaded_stream.h"

namespace moesaic {

namespace {

class InlineStream final : public HostStream {
  public:
    explicit InlineStream(std::string_view name) : name_(name) {}
    std::string_view name() const override { return name_; }
    Event record() override { return {}; }
    void wait(const Event&) override {}
    void synchronize() override {}
    void run(std::function<void()> work) override { work(); }
    bool inline_execution() const override { return true; }

  private:
    std::string name_;
};

class AccountingStream final : public HostStream {
  public:
    explicit AccountingStream(std::string_view name) : name_(name) {}
    std::string_view name() const override { return name_; }
    Event record() override { return {}; }
    void wait(const Event&) override {}
    void synchronize() override {}
    void run(std::function<void()>) override {}
    bool inline_execution() const override { return false; }
    bool drops_work() const override { return true; }

  private:
    std::string name_;
};

class DeferredStream;

}  // namespace

struct HostStreamScheduler::State {
    StreamMode mode;
    Philox random;
    u64 draws = 0;
    std::vector<DeferredStream*> streams;

    void run_until(const DeferredStream& target, u64 position);
};

namespace {

class DeferredStream final : public HostStream {
  public:
    DeferredStream(HostStreamScheduler::State& state, std::string_view name) : state_(state), name_(name) {
        state_.streams.push_back(this);
    }
    ~DeferredStream() override { std::erase(state_.streams, this); }

    std::string_view name() const override { return name_; }
    Event record() override { return {this, enqueued_}; }
    void wait(const Event& event) override {
        if (event.stream) push({{}, event});
    }
    void synchronize() override { state_.run_until(*this, enqueued_); }
    void run(std::function<void()> work) override { push({std::move(work), {}}); }
    bool inline_execution() const override { return false; }

    bool reached(u64 position) const { return executed_ >= position; }
    bool runnable() const {
        if (queue_.empty()) return false;
        const Event& event = queue_.front().event;
        return !event.stream || static_cast<const DeferredStream*>(event.stream)->reached(event.position);
    }
    void run_head() {
        const Item item = std::move(queue_.front());
        queue_.pop_front();
        if (item.work) item.work();
        ++executed_;
    }

  private:
    struct Item {
        std::function<void()> work;
        Event event;
    };
    void push(Item item) {
        queue_.push_back(std::move(item));
        ++enqueued_;
    }

    HostStreamScheduler::State& state_;
    std::string name_;
    std::deque<Item> queue_;
    u64 enqueued_ = 0, executed_ = 0;
};

}  // namespace

void HostStreamScheduler::State::run_until(const DeferredStream& target, u64 position) {
    while (!target.reached(position)) {
        std::vector<DeferredStream*> ready;
        for (DeferredStream* stream : streams) {
            if (stream->runnable()) ready.push_back(stream);
        }
        MOESAIC_ASSERT(!ready.empty(), "streams wait for each other in a circle ({} streams)",
                       streams.size());
        ready[random.bits(draws++) % ready.size()]->run_head();
    }
}

HostStreamScheduler::HostStreamScheduler(StreamMode mode, u64 shuffle_seed)
    : state_(new State{mode, Philox(shuffle_seed, "stream shuffle"), 0, {}}) {}

HostStreamScheduler::~HostStreamScheduler() = default;

std::unique_ptr<Stream> HostStreamScheduler::make_stream(std::string_view name) {
    if (state_->mode == StreamMode::inline_execution) return std::make_unique<InlineStream>(name);
    if (state_->mode == StreamMode::accounting) return std::make_unique<AccountingStream>(name);
    if (state_->mode == StreamMode::threads) return std::make_unique<ThreadedStream>(name);
    return std::make_unique<DeferredStream>(*state_, name);
}

StreamMode HostStreamScheduler::mode() const {
    return state_->mode;
}

}  // namespace moesaic
