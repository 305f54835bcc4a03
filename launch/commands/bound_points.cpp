#include "launch/commands/bound_points.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "runtime/base/error.h"
#include "runtime/config/diagnostics.h"

namespace moesaic {

namespace {

constexpr std::string_view kGrid[] = {"experts", "top_k", "samples"};

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> parts{""};
    for (const char letter : text) {
        if (letter == ',')
            parts.emplace_back();
        else
            parts.back() += letter;
    }
    return parts;
}

/// Collects the mistakes of one command line.
class Reader {
  public:
    explicit Reader(const BoundOptions& options) : options_(options) {}

    BoundPoints read() {
        read_words();
        read_numbers();
        make_points();
        choose_bounds();
        mistakes_.throw_if_any();
        return std::move(result_);
    }

  private:
    const BoundOptions& options_;
    Diagnostics mistakes_;
    BoundInputs inputs_;
    std::vector<double> grid_[3];  // as in kGrid; empty: not given
    bool numbers_are_right_ = true;
    BoundPoints result_;

    void mistake(const std::string& key, std::string message, std::string hint) {
        mistakes_.add({"moesaic bound", key, std::move(message), std::move(hint)});
    }

    void read_words() {
        std::vector<std::string> names{"--gate", "--bounds", "--no-router-bias", "--measured", "--two-sided",
                                       "--list", "--json",   "--pac-bayes",      "--prior",    "--draws"};
        for (const BoundInputField& field : bound_input_fields()) names.push_back(bound_option(field.name));
        for (const std::string& word : options_.unknown) {
            const std::string near = nearest_name(word, names);
            mistake(word, "is no option",
                    near.empty() ? "see moesaic bound --help" : fmt::format("did you mean '{}'?", near));
        }
        // After an unknown option the word is that option's value, more likely than a run.
        if (!options_.run.empty() && options_.unknown.empty()) {
            mistake(options_.run, "a run's own bounds take no numbers, --bounds or --list beside them",
                    "give the run alone, or the numbers alone");
        }
        inputs_.router_bias = !options_.no_router_bias;
        inputs_.measured = options_.measured;
        inputs_.two_sided = options_.two_sided;
        if (options_.gate.empty()) return;
        std::vector<std::string> gates;
        for (const GateKind gate : {GateKind::uniform, GateKind::rank, GateKind::softmax,
                                    GateKind::softmax_all, GateKind::frozen}) {
            gates.emplace_back(name_of(gate));
            if (gates.back() == options_.gate) inputs_.gate = gate;
        }
        if (!inputs_.gate) {
            mistake("--gate", fmt::format("'{}' is unknown", options_.gate),
                    fmt::format("one of: {}", fmt::join(gates, ", ")));
        }
    }

    void read_numbers() {
        for (const BoundInputField& field : bound_input_fields()) {
            const auto text = options_.values.find(bound_option(field.name));
            if (text == options_.values.end()) continue;
            const auto* const grid = std::find(std::begin(kGrid), std::end(kGrid), field.name);
            std::vector<double> numbers;
            for (const std::string& part : split(text->second)) numbers.push_back(number(field, part));
            if (grid != std::end(kGrid)) {
                grid_[grid - kGrid] = numbers;
            } else if (field.list) {
                inputs_.*field.list = numbers;
            } else if (numbers.size() == 1) {
                inputs_.*field.number = numbers.front();
            } else {
                mistake(text->first, fmt::format("'{}' is a list", text->second), "one number");
            }
        }
    }

    double number(const BoundInputField& field, const std::string& text) {
        double value = 0;
        const char* const end = text.data() + text.size();
        const auto [rest, error] = std::from_chars(text.data(), end, value);
        const std::string range = fmt::format("between {} and {}", field.low, field.high);
        const bool is_number = error == std::errc() && rest == end && std::isfinite(value);
        std::string wrong;
        if (!is_number) {
            wrong = "is not a number";
        } else if (value < field.low || value > field.high) {
            wrong = "is out of range";
        } else if (field.whole && value != std::floor(value)) {
            wrong = "is not a whole number";
        }
        if (!wrong.empty()) {
            numbers_are_right_ = false;
            mistake(bound_option(field.name),
                    text.empty() ? "has no number" : fmt::format("'{}' {}", text, wrong), range);
        }
        return value;
    }

    /// Every combination of the lists. A single one must be right; of many, those with top_k > experts fall
    /// out.
    void make_points() {
        if (!numbers_are_right_) return;
        std::size_t combinations = 1;
        for (const std::vector<double>& list : grid_) combinations *= std::max<std::size_t>(list.size(), 1);
        result_.table = combinations > 1;
        for (std::size_t index = 0; index < combinations; ++index) {
            BoundInputs point = inputs_;
            std::size_t rest = index;
            for (int axis = 2; axis >= 0; --axis) {
                const std::vector<double>& list = grid_[axis];
                if (list.empty()) continue;
                point.*bound_input_field(kGrid[axis]).number = list[rest % list.size()];
                rest /= list.size();
            }
            if (result_.table && point.top_k && point.experts && *point.top_k > *point.experts) continue;
            result_.points.push_back(std::move(point));
        }
        if (result_.points.empty()) {
            mistake("--top-k", "every number is above every number of --experts",
                    "a token visits each expert at most once");
            return;
        }
        std::set<std::string> told;  // lists make many points of one mistake
        for (const BoundInputs& point : result_.points) {
            for (const BoundInputConflict& conflict : conflicts(point)) {
                const std::string option = bound_option(conflict.field);
                if (told.insert(option + conflict.message).second)
                    mistake(option, conflict.message, conflict.hint);
            }
        }
    }

    void choose_bounds() {
        if (!numbers_are_right_ || result_.points.empty()) return;
        const BoundInputs& point = result_.points.front();
        if (options_.bounds.empty() || options_.bounds == "all") {
            for (const Bound& bound : bound_table()) {
                if (missing_inputs(bound, point).empty()) result_.bounds.push_back(&bound);
            }
            if (result_.bounds.empty() && mistakes_.empty()) {
                mistake(
                    "--samples", "the numbers are not enough for any bound",
                    "try --samples 1e6 --experts 8 --top-k 2 --router-inputs 64; moesaic bound --list says "
                    "what each needs");
            }
            return;
        }
        std::vector<std::string> names;
        for (const Bound& bound : bound_table()) names.emplace_back(bound.name);
        for (const std::string& name : split(options_.bounds)) {
            const Bound* const bound = find_bound(name);
            if (bound == nullptr) {
                const std::string near = nearest_name(name, names);
                mistake("--bounds", fmt::format("'{}' is no bound", name),
                        near.empty() ? "see moesaic bound --list" : fmt::format("did you mean '{}'?", near));
                continue;
            }
            result_.bounds.push_back(bound);
            const std::vector<std::string> missing = missing_inputs(*bound, point);
            if (missing.empty()) continue;
            std::vector<std::string> options;
            for (const std::string& input : missing) options.push_back(needed_option(input));
            mistake("--bounds", fmt::format("'{}' lacks numbers", name),
                    fmt::format("give {}", fmt::join(options, ", ")));
        }
    }

    static std::string needed_option(const std::string& input) {
        const std::size_t bar = input.find('|');
        if (bar == std::string::npos) return bound_option(input);
        return bound_option(input.substr(0, bar)) + " or " + bound_option(input.substr(bar + 1));
    }
};

}  // namespace

std::string bound_option(std::string_view input) {
    std::string option = "--" + std::string(input);
    std::replace(option.begin(), option.end(), '_', '-');
    return option;
}

bool is_grid_input(std::string_view input) {
    return std::find(std::begin(kGrid), std::end(kGrid), input) != std::end(kGrid);
}

BoundPoints read_bound_points(const BoundOptions& options) {
    return Reader(options).read();
}

}  // namespace moesaic
