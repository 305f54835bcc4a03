#include "comm/nccl/nccl_watch.h"

#include <algorithm>
#include <thread>

#include "runtime/cuda/check.h"

namespace moesaic {

void NcclFailure::set(std::string_view text) {
    const std::scoped_lock lock(mutex);
    if (why.empty()) why = text;
}

std::string NcclFailure::get() {
    const std::scoped_lock lock(mutex);
    return why;
}

NcclWatch::~NcclWatch() {
    for (const Operation& operation : operations_) {
        cudaEventDestroy(operation.start);
        cudaEventDestroy(operation.end);
    }
    for (cudaEvent_t event : idle_events_) cudaEventDestroy(event);
}

void NcclWatch::poll() {
    if (const std::string why = failure_->get(); !why.empty()) {
        abort_members();
        throw AbortedError(why);
    }
    check_members();
    while (!operations_.empty() && retire_first()) {
    }
    if (!operations_.empty()) check_first_for_time_out();
}

void NcclWatch::check_members() {
    for (const Member& member : members_) {
        ncclResult_t state = ncclSuccess;
        const ncclResult_t asked = ncclCommGetAsyncError(member.handle, &state);
        if (asked != ncclSuccess) state = asked;
        if (state == ncclSuccess || state == ncclInProgress) continue;
        const std::string during =
            operations_.empty()
                ? fmt::format("communicator '{}'", member.name)
                : operations_.front().owner->describe(operations_.front().verb, operations_.front().label);
        check(state, during, member.handle);
    }
}

bool NcclWatch::retire_first() {
    Operation& first = operations_.front();
    if (cudaEventQuery(first.end) == cudaErrorNotReady) {
        (void)cudaGetLastError();
        return false;
    }
    cuda::check(cudaGetLastError(), first.owner->describe(first.verb, first.label));
    float milliseconds = 0;
    cuda::check(cudaEventElapsedTime(&milliseconds, first.start, first.end), "timing a collective");
    first.owner->count_seconds(static_cast<double>(milliseconds) * 1e-3);
    idle_events_.push_back(first.start);
    idle_events_.push_back(first.end);
    operations_.pop_front();
    return true;
}

void NcclWatch::check_first_for_time_out() {
    Operation& first = operations_.front();
    if (!first.waiting_since) {
        if (cudaEventQuery(first.start) == cudaSuccess) first.waiting_since = Clock::now();
        (void)cudaGetLastError();
        return;
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - *first.waiting_since).count();
    if (seconds < first.owner->timeout_seconds()) return;
    const std::string text = first.owner->timeout_text(first.verb, first.label);
    fail(text);
    throw Error(text);
}

void NcclWatch::add(ncclComm_t handle, std::string name) {
    members_.push_back({handle, std::move(name)});
}

void NcclWatch::remove(ncclComm_t handle, const Communicator* owner, bool broken) noexcept {
    if (broken && !failed_) fail(fmt::format("{} failed", Communicator::speaker()));
    try {
        while (!failed_ && !operations_.empty() && retire_first()) {
        }
    } catch (const std::exception& error) {  // what was under way has failed
        fail(error.what());
    }
    const std::size_t under_way = std::erase_if(operations_, [&](const Operation& one) {
        if (one.owner != owner) return false;
        cudaEventDestroy(one.start);
        cudaEventDestroy(one.end);
        return true;
    });
    const auto member = std::ranges::find(members_, handle, &Member::handle);
    if (member == members_.end()) return;  // of one rank, or ended with all others
    members_.erase(member);
    under_way > 0 ? ncclCommAbort(handle) : ncclCommDestroy(handle);
}

cudaEvent_t NcclWatch::take_event() {
    cudaEvent_t event = nullptr;
    if (idle_events_.empty()) {
        cuda::check(cudaEventCreateWithFlags(&event, cudaEventDefault), "making an event");
    } else {
        event = idle_events_.back();
        idle_events_.pop_back();
    }
    return event;
}

void NcclWatch::begin(Communicator& owner, const FlightRecorder::Call& call, const Label& label,
                      cudaStream_t stream) {
    poll();
    Operation& operation = operations_.emplace_back();
    operation.owner = &owner;
    operation.verb = call.verb;
    operation.label = label;
    operation.start = take_event();
    operation.end = take_event();
    operation.flight.emplace(owner.flights(), call);
    cuda::check(cudaEventRecord(operation.start, stream), "recording an event");
}

void NcclWatch::end(cudaStream_t stream) {
    cuda::check(cudaEventRecord(operations_.back().end, stream), "recording an event");
}

void NcclWatch::settle(ncclComm_t handle, const std::string& what, double most_seconds) {
    const Clock::time_point start = Clock::now();
    for (int asked = 0;; ++asked) {
        ncclResult_t state = ncclSuccess;
        check(ncclCommGetAsyncError(handle, &state), what, handle);
        if (state != ncclInProgress) return check(state, what, handle);
        if (const std::string why = failure_->get(); !why.empty()) {
            abort_members();
            throw AbortedError(why);
        }
        if (std::chrono::duration<double>(Clock::now() - start).count() > most_seconds) {
            const std::string text =
                fmt::format("{}: no answer for {} s in {}", Communicator::speaker(), most_seconds, what);
            fail(text);
            throw Error(text);
        }
        if (asked > 100) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
}

void NcclWatch::check(ncclResult_t result, const std::string& what, ncclComm_t handle) {
    if (result == ncclSuccess || result == ncclInProgress) return;
    const std::string text = fmt::format("{}: NCCL: {}: {} ({})", Communicator::speaker(), what,
                                         ncclGetErrorString(result), ncclGetLastError(handle));
    fail(text);
    throw Error(text);
}

void NcclWatch::fail(std::string_view why) noexcept {
    failure_->set(why);
    abort_members();
}

void NcclWatch::abort_members() noexcept {
    failed_ = true;
    for (const Member& member : members_) ncclCommAbort(member.handle);
    members_.clear();
}

}  // namespace moesaic
