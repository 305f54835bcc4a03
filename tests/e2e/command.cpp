#include "tests/e2e/command.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <sstream>
#include <thread>

#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/safetensors.h"
#include "tests/support/source_folder.h"

namespace moesaic::e2e {

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void become(const Words& words, const CommandOptions& options, const std::string& out,
                         const std::string& err) {
    ::setpgid(0, 0);
    const int flags = O_WRONLY | O_CREAT | O_TRUNC;
    const int standard_out = ::open(out.c_str(), flags, 0600),
              standard_err = ::open(err.c_str(), flags, 0600);
    const int nothing = ::open("/dev/null", O_RDONLY);
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(standard_out, STDOUT_FILENO);
    ::dup2(standard_err, STDERR_FILENO);
    for (const auto& [name, value] : options.environment) ::setenv(name.c_str(), value.c_str(), 1);
    if (options.largest_file) {
        const auto bytes = static_cast<rlim_t>(*options.largest_file);
        const rlimit limit{bytes, bytes};
        ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    if (::chdir(MOESAIC_SOURCE_DIR) == 0) ::execvp(arguments[0], arguments.data());
    ::dprintf(STDERR_FILENO, "cannot start %s: %s\n", arguments[0], std::strerror(errno));
    ::_exit(127);
}

}  // namespace

std::string CommandResult::text() const {
    return "exit code " + std::to_string(code) + (timed_out ? " (timed out)" : "") + "\n--- stdout\n" + out +
           "--- stderr\n" + err;
}

Command::Command(const Words& words, const CommandOptions& options) : options_(options) {
    process_ = ::fork();
    if (process_ == 0) become(words, options, scratch_ / "out", scratch_ / "err");
    EXPECT_GT(process_, 0) << "fork failed";
}

Command::~Command() {
    if (process_ <= 0 || status_) return;
    signal(SIGTERM);  // mpirun then ends its ranks
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    ::kill(-process_, SIGKILL);
    reap(true);
}

void Command::signal(int number) const {
    if (!status_) ::kill(process_, number);
}

bool Command::reap(bool block) {
    if (status_ || process_ <= 0) return true;
    int status = 0;
    rusage usage{};
    const pid_t ended = ::wait4(process_, &status, block ? 0 : WNOHANG, &usage);
    if (ended != process_) return false;
    most_resident_bytes_ = usage.ru_maxrss * 1024;
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
}

bool Command::running() {
    return !reap(false);
}

CommandResult Command::wait() {
    CommandResult result;
    const auto end = Clock::now() + std::chrono::duration<double>(options_.timeout_seconds);
    while (running()) {
        if (Clock::now() > end && !result.timed_out) {
            result.timed_out = true;
            signal(SIGTERM);
            std::this_thread::sleep_for(std::chrono::seconds(1));
            ::kill(-process_, SIGKILL);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    result.code = status_.value_or(-1);
    result.most_resident_bytes = most_resident_bytes_;
    result.out = read_text(scratch_ / "out");
    result.err = read_text(scratch_ / "err");
    return result;
}

std::string name_of(const Ranks& ranks) {
    if (ranks.kind == Ranks::Kind::alone) return "alone";
    return (ranks.kind == Ranks::Kind::mpirun ? "mpirun_" : "threads_") + std::to_string(ranks.count);
}

bool have_mpi() {
    return std::string(MOESAIC_MPIEXEC) != "";
}

bool can_run(const Ranks& ranks) {
    return ranks.kind != Ranks::Kind::mpirun || have_mpi();
}

Words moesaic_words(const Words& arguments, const Ranks& ranks) {
    Words words;
    if (ranks.kind == Ranks::Kind::mpirun) {
        words = {MOESAIC_MPIEXEC, "--oversubscribe", "-np", std::to_string(ranks.count)};
    }
    words.emplace_back(MOESAIC_BINARY);
    words.insert(words.end(), arguments.begin(), arguments.end());
    if (ranks.kind == Ranks::Kind::threads) {
        words.emplace_back("--ranks-as-threads");
        words.push_back(std::to_string(ranks.count));
    }
    return words;
}

CommandResult moesaic(const Words& arguments, const Ranks& ranks, const CommandOptions& options) {
    CommandOptions all = options;
    if (ranks.kind == Ranks::Kind::mpirun) {
        all.environment.insert({{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                                {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
                                {"OMPI_MCA_mpi_yield_when_idle", "1"}});
    }
    return Command(moesaic_words(arguments, ranks), all).wait();
}

Words tiny(const std::string& out, const Words& overrides, const Words& more) {
    Words words{"train", "configs/tiny.yaml", "--out", out},
        settings{"train.steps=20", "train.eval_every=10", "train.checkpoint_every=10", "train.log_every=5"};
    settings.insert(settings.end(), overrides.begin(), overrides.end());
    for (const std::string& one : settings) {
        words.emplace_back("--set");
        words.push_back(one);
    }
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

std::vector<Json> train_tiny(const std::string& out, const Ranks& ranks, const Words& overrides,
                             const Words& more) {
    const CommandResult result = moesaic(tiny(out, overrides, more), ranks);
    EXPECT_EQ(result.code, 0) << name_of(ranks) << ": " << result.text();
    return read_records(out + "/tiny");
}

std::string checkpoint_of(const std::string& out, int step) {
    return out + "/tiny/checkpoints/step-000000" + std::to_string(step);
}

Words lines_of(const std::string& text) {
    Words lines;
    std::stringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

std::vector<Json> read_records(const std::string& run_folder) {
    std::vector<Json> records;
    for (const std::string& line : lines_of(read_text(run_folder + "/metrics.jsonl"))) {
        records.push_back(Json::parse(line, nullptr, false));
        EXPECT_TRUE(records.back().is_object()) << "no JSON object: " << line;
    }
    EXPECT_FALSE(records.empty()) << run_folder << "/metrics.jsonl is missing or empty";
    return records;
}

std::vector<Json> events(const std::vector<Json>& records, const std::string& event) {
    std::vector<Json> chosen;
    for (const Json& record : records) {
        if (record.is_object() && record.value("event", "") == event) chosen.push_back(record);
    }
    return chosen;
}

std::map<i64, double> losses(const std::vector<Json>& records) {
    std::map<i64, double> by_step;
    for (const Json& record : events(records, "step")) {
        const i64 step = record.at("step");
        const Json& loss = record.at("loss");
        EXPECT_TRUE(loss.is_number()) << "loss of step " << step << ": " << loss;
        EXPECT_FALSE(by_step.contains(step)) << "step " << step << " is recorded twice";
        by_step[step] = loss.is_number() ? loss.get<double>() : std::nan("");
    }
    return by_step;
}

int occurrences(const std::string& text, const std::string& piece) {
    int count = 0;
    for (std::size_t at = text.find(piece); at != std::string::npos; at = text.find(piece, at + 1)) ++count;
    return count;
}

StoredTensors read_tensors(const std::string& checkpoint) {
    StoredTensors tensors;
    for (const ShardRecord& shard : read_manifest(checkpoint).shards) {
        const SafetensorsFile file = SafetensorsFile::open(checkpoint + "/" + shard.file);
        EXPECT_EQ(file.checksum(), shard.checksum) << shard.file;
        for (const SafetensorsEntry& entry : file.entries()) {
            const std::string bytes(reinterpret_cast<const char*>(entry.data),
                                    static_cast<std::size_t>(entry.bytes));
            EXPECT_TRUE(
                tensors.emplace(entry.name, StoredTensor{entry.dtype_name, entry.shape, bytes}).second)
                << entry.name << " is stored twice";
        }
    }
    return tensors;
}

void expect_same_bytes(const StoredTensors& left, const StoredTensors& right) {
    EXPECT_FALSE(left.empty());
    EXPECT_EQ(left.size(), right.size());
    for (const auto& [name, tensor] : left) {
        const auto other = right.find(name);
        if (other == right.end()) {
            ADD_FAILURE() << name << " is in one checkpoint only";
        } else {
            EXPECT_TRUE(tensor == other->second) << name << " differs";
        }
    }
}

double relative_difference(const StoredTensor& left, const StoredTensor& right) {
    EXPECT_EQ(left.dtype, "F32");
    EXPECT_EQ(left.shape, right.shape);
    double difference = 0, norm = 0;
    for (std::size_t at = 0; at + sizeof(float) <= std::min(left.bytes.size(), right.bytes.size());
         at += sizeof(float)) {
        float a = 0, b = 0;
        std::memcpy(&a, left.bytes.data() + at, sizeof a);
        std::memcpy(&b, right.bytes.data() + at, sizeof b);
        difference += (static_cast<double>(a) - b) * (static_cast<double>(a) - b);
        norm += static_cast<double>(b) * b;
    }
    return difference == 0 ? 0 : std::sqrt(difference / norm);
}

void expect_failure(const CommandResult& result, int code, const Words& texts) {
    EXPECT_EQ(result.code, code) << result.text();
    EXPECT_FALSE(result.timed_out);
    for (const std::string& text : texts) {
        EXPECT_EQ(occurrences(result.err, text), 1) << "'" << text << "' in\n" << result.text();
        EXPECT_EQ(occurrences(result.out, text), 0) << "'" << text << "' in\n" << result.text();
    }
}

}  // namespace moesaic::e2e
