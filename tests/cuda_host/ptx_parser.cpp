// From the text of PTX to functions that run.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <sstream>
#include <stdexcept>

#include "tests/cuda_host/ptx_program.h"
#include "tests/cuda_host/ptx_text.h"

namespace cuda_host {

namespace {

struct Line {
    int file = 0, line = 0;
    bool operator<(const Line& other) const {
        return file != other.file ? file < other.file : line < other.line;
    }
};

class Parser {
  public:
    Parser(const std::string& text, std::string path) : path_(std::move(path)) {
        std::istringstream lines(text);
        for (std::string line; std::getline(lines, line);) read_file_name(line);
        lines = std::istringstream(text);
        for (std::string line; std::getline(lines, line);)
            take_line(trimmed(line.substr(0, line.find("//"))));
        for (const auto& [function, instruction, callee] : calls_)
            module_.functions[function].code[instruction].number =
                static_cast<std::int64_t>(module_.index.at(callee));
    }
    PtxModule result() { return std::move(module_); }

  private:
    [[noreturn]] void fail(const std::string& what) const {
        throw std::runtime_error(fmt::format("{}: {}", path_, what));
    }

    // ------------------------------------------------------------ statements
    void read_file_name(const std::string& line) {
        const std::vector<std::string> words = words_of(line);
        if (words.size() < 3 || words[0] != ".file") return;
        const auto number = static_cast<std::size_t>(std::atoi(words[1].c_str()));
        while (module_.files.size() <= number) module_.files.emplace_back();
        module_.files[number] = inside(words[2]);
    }

    void take_line(const std::string& line) {
        static const std::set<std::string> ignored{".file", ".version", ".target", ".address_size",
                                                   ".section"};
        const std::string first = line.substr(0, line.find_first_of(" \t"));
        if (in_section_ || ignored.contains(first)) {
            in_section_ = (in_section_ || first == ".section") && line.find('}') == std::string::npos;
            return;
        }
        if (first == ".loc") return take_position(line);
        for (const char c : line) take(c);
        if (!pending_.empty()) pending_ += ' ';
    }

    void take(char c) {
        const bool is_directive = pending_.starts_with('.');
        const bool is_constant = pending_.starts_with(".global") || pending_.starts_with(".const");
        if (c == ';') return end_statement();
        if (!is_constant && c == '{' && (is_directive || pending_.empty())) {
            if (++depth_ == 1) begin_function(pending_);
            pending_.clear();
        } else if (c == '}' && pending_.empty()) {
            if (--depth_ == 0) end_function();
        } else if (c == ':' && depth_ > 0 && !is_directive) {
            labels_[pending_] = function_->code.size();
            pending_.clear();
        } else if (!pending_.empty() || (c != ' ' && c != '\t')) {
            pending_ += c == '\t' ? ' ' : c;
        }
    }

    void end_statement() {
        const std::string statement = trimmed(pending_);
        pending_.clear();
        if (depth_ == 0) {
            if (statement.find('=') != std::string::npos) add_constant(statement);
            if (statement.starts_with(".shared")) shared_of_module_.push_back(statement);
            return;  // or a declaration
        }
        const std::string first = statement.substr(0, statement.find(' '));
        if (first == ".reg") return declare_registers(statement);
        if (first == ".pragma" || statement.empty()) return;
        if (first.starts_with('.')) return add_variable(first, statement);
        add_instruction(statement);
    }

    /// ".reg .b32 %r<9>, %one": the family %r, and one.
    void declare_registers(const std::string& statement) {
        const std::string names = trimmed(statement.substr(statement.find(' ')));
        for (const std::string& name : operands_of(names.substr(names.find(' '))))
            registers_.insert(name.substr(0, name.find('<')));
    }

    void add_constant(const std::string& statement) {
        const std::size_t equals = statement.find('=');
        const Declared constant = declared(trimmed(statement.substr(0, equals)));
        std::vector<unsigned char>& bytes = module_.constants[constant.name];
        for (const std::string& value : operands_of(inside(trimmed(statement.substr(equals + 1)))))
            bytes.push_back(static_cast<unsigned char>(std::atoi(value.c_str())));
        bytes.resize(constant.variable.bytes);
    }

    // ------------------------------------------------------------ functions
    void begin_function(const std::string& header) {
        function_ = &module_.functions.emplace_back();
        names_.clear();
        registers_.clear();
        constants_.clear();
        labels_.clear();
        branches_.clear();
        inlined_at_.clear();
        function_->registers.assign(kSpecialSlots, 0);
        for (const std::string& statement : shared_of_module_) add_variable(".shared", statement);
        std::string rest =
            header.substr(header.find(header.find(".entry") != std::string::npos ? ".entry" : ".func"));
        rest = trimmed(rest.substr(rest.find(' ')));
        if (rest.starts_with('(')) {  // what it returns
            const std::size_t end = rest.find(')');
            const Declared result = declared(rest.substr(1, end - 1));
            function_->result = result.name;
            function_->frame[result.name] = placed(result.variable, function_->frame_bytes);
            rest = trimmed(rest.substr(end + 1));
        }
        const std::size_t open = rest.find('('), close = rest.rfind(')');
        function_->name = trimmed(rest.substr(0, open));
        module_.index[function_->name] = module_.functions.size() - 1;
        for (const std::string& parameter : operands_of(rest.substr(open + 1, close - open - 1))) {
            const Declared formal = declared(parameter);
            function_->formals.push_back(formal.name);
            function_->parameters[formal.name] = placed(formal.variable, function_->parameter_bytes);
        }
    }

    void end_function() {
        for (const auto& [instruction, label] : branches_) {
            if (!labels_.contains(label)) fail("no label " + label);
            function_->code[instruction].number = static_cast<std::int64_t>(labels_.at(label));
        }
    }

    void add_variable(const std::string& space, const std::string& statement) {
        const Declared declaration = declared(statement);
        if (space == ".shared") {
            function_->shared[declaration.name] = declaration.variable;
            function_->shared_slots[declaration.name] = new_slot(0);
        } else if (space == ".local") {
            if (function_->local_bytes > 0) fail("two arrays in local memory");
            function_->local_bytes = declaration.variable.bytes;
            function_->local_slot = names_[declaration.name] = new_slot(0);
        } else if (space == ".param") {
            PtxVariable& variable = function_->frame[declaration.name];
            if (variable.bytes < declaration.variable.bytes)
                variable = placed(declaration.variable, function_->frame_bytes);
        } else {
            fail("a directive that is unknown to the interpreter: " + statement);
        }
    }

    // ------------------------------------------------------------ operands
    std::uint16_t new_slot(std::uint64_t value) {
        if (function_->registers.size() > 0xffff) fail("too many registers");
        function_->registers.push_back(value);
        return static_cast<std::uint16_t>(function_->registers.size() - 1);
    }
    std::uint16_t constant_slot(std::uint64_t value) {
        const auto [found, fresh] = constants_.try_emplace(value, 0);
        if (fresh) found->second = new_slot(value);
        return found->second;
    }

    std::uint16_t slot_of(const std::string& operand) {
        static const std::map<std::string, std::uint16_t> special{
            {"%tid.x", 0},     {"%tid.y", 1},     {"%tid.z", 2},   {"%ctaid.x", 3}, {"%ctaid.y", 4},
            {"%ctaid.z", 5},   {"%ntid.x", 6},    {"%ntid.y", 7},  {"%ntid.z", 8},  {"%nctaid.x", 9},
            {"%nctaid.y", 10}, {"%nctaid.z", 11}, {"%laneid", 12}, {"_", kSinkSlot}};
        if (special.contains(operand)) return special.at(operand);
        if (operand.empty()) fail("an operand is missing");
        if (operand[0] == '%') {
            const std::string family = operand.substr(0, operand.find_last_not_of("0123456789") + 1);
            if (!registers_.contains(operand) && !registers_.contains(family))
                fail("a register that is not declared: " + operand);
            const auto [found, fresh] = names_.try_emplace(operand, 0);
            if (fresh) found->second = new_slot(0);
            return found->second;
        }
        if (operand.starts_with("0f") || operand.starts_with("0d"))
            return constant_slot(std::strtoull(operand.c_str() + 2, nullptr, 16));
        if (operand[0] == '-')
            return constant_slot(static_cast<std::uint64_t>(std::strtoll(operand.c_str(), nullptr, 0)));
        if (std::isdigit(static_cast<unsigned char>(operand[0])))
            return constant_slot(std::strtoull(operand.c_str(), nullptr, 0));
        if (function_->shared_slots.contains(operand)) return function_->shared_slots.at(operand);
        if (module_.constants.contains(operand))
            return constant_slot(reinterpret_cast<std::uint64_t>(module_.constants.at(operand).data()));
        if (names_.contains(operand)) return names_.at(operand);
        if (function_->parameters.contains(operand))
            return constant_slot(function_->parameters.at(operand).offset);
        fail("an operand that is unknown to the interpreter: " + operand);
    }

    /// "[name+8]": the slot of what it counts from, and the offset.
    void set_address(PtxInstruction& instruction, const std::string& bracketed) {
        const std::string text = inside(bracketed);
        const std::size_t plus = text.find('+');
        const std::string base = text.substr(0, plus);
        const std::int64_t offset =
            plus == std::string::npos ? 0 : std::strtoll(text.c_str() + plus + 1, nullptr, 0);
        const auto parameter = function_->parameters.find(base);
        const auto of_call = function_->frame.find(base);
        if (parameter != function_->parameters.end()) {
            instruction.number = offset + static_cast<std::int64_t>(parameter->second.offset);
            instruction.from[0] = constant_slot(0);
        } else if (of_call != function_->frame.end()) {
            instruction.number = offset + static_cast<std::int64_t>(of_call->second.offset);
            instruction.from[0] = kSinkSlot;
        } else {
            instruction.number = offset;
            instruction.from[0] = slot_of(base);
        }
    }

    // ------------------------------------------------------------ instructions
    static PtxInstruction::Execute meaning_of(const std::string& opcode) {
        for (const auto table : {arithmetic_of, comparison_of, conversion_of, access_of, control_of})
            if (const PtxInstruction::Execute found = table(opcode)) return found;
        return nullptr;
    }

    void add_instruction(std::string statement) {
        PtxInstruction instruction;
        if (statement[0] == '@') {
            const std::size_t end = statement.find(' ');
            instruction.guard_negated = statement[1] == '!';
            instruction.guard = slot_of(statement.substr(instruction.guard_negated ? 2 : 1,
                                                         end - (instruction.guard_negated ? 2 : 1)));
            statement = trimmed(statement.substr(end));
        }
        std::string opcode = statement.substr(0, statement.find(' '));
        std::vector<std::string> operands = operands_of(statement.substr(opcode.size()));
        if (opcode == "mov.b64" && operands[0][0] == '{') opcode += " unpack";
        if (opcode == "mov.b64" && operands[1][0] == '{') opcode += " pack";
        instruction.execute = meaning_of(opcode);
        if (!instruction.execute) fail("an opcode that is unknown to the interpreter: " + statement);
        const bool is_call = opcode.starts_with("call");
        if (is_call) {
            set_call(instruction, operands);
        } else if (opcode.starts_with("bra")) {
            branches_.emplace_back(function_->code.size(), operands[0]);
        } else {
            set_operands(instruction, opcode, operands);
        }
        instruction.identity = ++identities();
        instruction.place = place_of(position_);
        instruction.location = location_of(place_of(outside_of_helpers()));
        function_->code.push_back(instruction);
    }

    /// Of all modules.
    static std::uint32_t& identities() {
        static std::uint32_t last = 0;
        return last;
    }

    void set_call(PtxInstruction& instruction, const std::vector<std::string>& operands) {
        if (operands.size() != 3) fail("a call without result or without arguments");
        calls_.emplace_back(module_.functions.size() - 1, function_->code.size(), operands[1]);
        const auto place = [&](const std::string& name) {
            return static_cast<std::uint16_t>(function_->frame.at(name).offset);
        };
        instruction.to[0] = place(trimmed(inside(operands[0])));
        const std::vector<std::string> arguments = operands_of(inside(operands[2]));
        if (arguments.size() > std::size(instruction.from)) fail("a call with more arguments than are known");
        for (std::size_t k = 0; k < arguments.size(); ++k) instruction.from[k] = place(arguments[k]);
    }

    void set_operands(PtxInstruction& instruction, const std::string& opcode,
                      std::vector<std::string> operands) {
        static const char* const without_result[] = {"st.", "bar", "ret", "exit", "red.", "cp.async"};
        const bool has_result = std::none_of(std::begin(without_result), std::end(without_result),
                                             [&](const char* name) { return opcode.starts_with(name); });
        std::size_t to = 0, from = 0;
        instruction.to[0] = instruction.to[1] = kSinkSlot;
        for (std::size_t k = 0; k < operands.size(); ++k) {
            std::vector<std::string> parts{operands[k]};
            if (operands[k][0] == '[' && from > 0) {  // a second address
                if (operands[k].find('+') != std::string::npos)
                    fail("two addresses with an offset: " + opcode);
                instruction.from[from++] = slot_of(inside(operands[k]));
                continue;
            }
            if (operands[k][0] == '[') {
                set_address(instruction, operands[k]);
                from = 1;
                continue;
            }
            if (operands[k][0] == '{') parts = operands_of(inside(operands[k]));
            if (const std::size_t bar = operands[k].find('|'); bar != std::string::npos) {
                if (!opcode.starts_with("shfl"))
                    fail("two results that are unknown to the interpreter: " + opcode);
                parts = {operands[k].substr(0, bar), operands[k].substr(bar + 1)};
            }
            for (const std::string& part : parts) {
                const bool is_result = has_result && k == 0;
                if (is_result ? to == std::size(instruction.to) : from == std::size(instruction.from))
                    fail("too many operands: " + opcode);
                (is_result ? instruction.to[to++] : instruction.from[from++]) = slot_of(part);
            }
        }
        if (opcode == "bar.sync" && (operands.size() != 1 || operands[0] != "0"))
            fail("a barrier of part of a block");
    }

    // ------------------------------------------------------------ lines of the source
    /// ".loc file line column[, function_name label, inlined_at file line column]".
    void take_position(const std::string& line) {
        const std::vector<std::string> words = words_of(line);
        const auto number = [&](std::size_t i) { return std::atoi(words.at(i).c_str()); };
        if (number(2) == 0) return;  // code of the compiler's own
        position_ = {number(1), number(2)};
        if (words.size() >= 9 && words[6] == "inlined_at") inlined_at_[position_] = {number(7), number(8)};
    }
    [[nodiscard]] Line outside_of_helpers() const {
        Line line = position_;
        for (int depth = 0; depth < 16 && is_helper(module_.files.at(static_cast<std::size_t>(line.file)));
             ++depth) {
            const auto outer = inlined_at_.find(line);
            if (outer == inlined_at_.end()) return position_;
            line = outer->second;
        }
        return line;
    }
    [[nodiscard]] Place place_of(Line line) const {
        return {module_.files.at(static_cast<std::size_t>(line.file)).c_str(), line.line};
    }

    PtxModule module_;
    std::string path_, pending_;
    int depth_ = 0;
    bool in_section_ = false;
    PtxFunction* function_ = nullptr;
    Line position_;
    std::set<std::string> registers_;  // that the function declares, or their common beginning
    std::map<std::string, std::uint16_t> names_;
    std::map<std::uint64_t, std::uint16_t> constants_;
    std::map<std::string, std::size_t> labels_;
    std::vector<std::pair<std::size_t, std::string>> branches_;
    std::vector<std::string> shared_of_module_;
    std::map<Line, Line> inlined_at_;
    std::vector<std::tuple<std::size_t, std::size_t, std::string>> calls_;
};

}  // namespace

PtxModule parse_ptx(const std::string& text, const std::string& path) {
    return Parser(text, path).result();
}

}  // namespace cuda_host
