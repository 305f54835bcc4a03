// The kinds of faults, as data: parsing, help, README and tests read this table.
#include <fmt/format.h>

#include <algorithm>

#include "launch/faults/fault.h"
#include "runtime/base/error.h"

namespace moesaic {

const std::vector<FaultKind>& fault_table() {
    static const std::vector<FaultKind> kTable{
        {FaultType::kill, "kill", "rank step", "in", "kill:rank=1,step=7",
         "the rank's process dies (SIGKILL) before the step; in=checkpoint: between its shard of that step's "
         "checkpoint and the manifest",
         "mpirun ends the job and names the rank; launch/moesaic-run goes on from the newest complete "
         "checkpoint"},
        {FaultType::hang, "hang", "rank step", "", "hang:rank=1,step=7",
         "the rank stops answering before the step",
         "after parallel.timeout_seconds exit code 1, \"rank 1 has not come to\" and the collective, and "
         "flight.rank*.txt"},
        {FaultType::late, "late", "rank step seconds", "", "late:rank=1,step=7,seconds=1",
         "the rank begins the step so many seconds late",
         "survived, no bit differs; the step's step_ms says it; beyond parallel.timeout_seconds as hang"},
        {FaultType::wrong_order, "wrong-order", "rank step", "", "wrong-order:rank=1,step=7",
         "the rank enters a collective before the step that no other rank enters",
         "after parallel.timeout_seconds exit code 1, naming the rank and both collectives"},
        {FaultType::zero_tokens, "zero-tokens", "rank step", "", "zero-tokens:rank=1,step=7",
         "the rank gets no tokens in the step, the others get its part", "survived, no bit differs"},
        {FaultType::nan, "nan", "layer expert step", "in", "nan:layer=1,expert=3,step=7",
         "one number of the expert's gradient is NaN, or with in=weight of its weights before the step",
         "names layer, expert, rank and tensor; then train.nonfinite: stop (exit code 1), skip or rollback"},
        {FaultType::flip, "flip", "rank step", "bit", "flip:rank=1,step=7",
         "a bit of the first rows that the rank is sent in a dispatch of the step flips on the way",
         "with parallel.checksums exit code 1, naming both ranks and the collective; without, nobody may "
         "notice"},
        {FaultType::truncate_checkpoint, "truncate-checkpoint", "", "step shard",
         "truncate-checkpoint:step=10", "the complete checkpoint's shard loses its second half",
         "going on from it, eval, generate: exit code 1, \"truncated shard\"; --resume auto warns and takes "
         "the "
         "one before"},
        {FaultType::bitflip_checkpoint, "bitflip-checkpoint", "", "step shard bit",
         "bitflip-checkpoint:step=10", "a bit in the middle of the complete checkpoint's shard flips",
         "the same, \"damaged shard\""},
        {FaultType::full_disk, "full-disk", "", "rank step", "full-disk:step=10",
         "the disk is full when the rank writes its part of the checkpoint",
         "alarm checkpoint_failed, the partial checkpoint is removed, earlier ones stay, training goes on; "
         "exit "
         "code 1 where it was the last checkpoint"},
        {FaultType::slow_disk, "slow-disk", "seconds", "rank step", "slow-disk:step=10,seconds=1",
         "bringing each of the rank's files of the checkpoint to disk takes so many seconds longer",
         "training goes on meanwhile; alarm checkpoint_slow where the next checkpoint has to wait for it"},
    };
    return kTable;
}

const FaultKind& kind_of(FaultType type) {
    return *std::ranges::find(fault_table(), type, &FaultKind::type);
}

namespace {

std::string fields_text(const FaultKind& kind, std::string_view separator) {
    std::string text;
    const auto add = [&](std::string_view names, bool optional) {
        while (!names.empty()) {
            const std::size_t end = std::min(names.find(' '), names.size());
            text += text.empty() ? "" : separator;
            text += fmt::format("{}{}{}", optional ? "[" : "", names.substr(0, end), optional ? "]" : "");
            names.remove_prefix(std::min(end + 1, names.size()));
        }
    };
    add(kind.needs, false);
    add(kind.may, true);
    return text;
}

}  // namespace

std::string faults_text() {
    std::string text =
        "moesaic train CONFIG --inject FAULT[:FIELD=VALUE,...][,FAULT...]\n"
        "Faults on purpose, each once: to see what a run does about them. Steps count from 1; of checkpoint\n"
        "faults `step` is the checkpoint's, and without it every checkpoint is meant.\n";
    for (const FaultKind& kind : fault_table()) {
        text += fmt::format("\n{}    fields: {}\n    does     {}\n    answer   {}\n    example  {}\n",
                            kind.name, fields_text(kind, ", "), kind.does, kind.answer, kind.example);
    }
    return text;
}

std::string faults_markdown() {
    std::string text =
        "| fault | fields | what happens | what the program says and does |\n| --- | --- | --- | --- |\n";
    for (const FaultKind& kind : fault_table())
        text += fmt::format("| `{}` | {} | {} | {} |\n", kind.name, fields_text(kind, ", "), kind.does,
                            kind.answer);
    return text;
}

}  // namespace moesaic
