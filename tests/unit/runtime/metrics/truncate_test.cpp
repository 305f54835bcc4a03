// What stays of the metrics files when a run goes back to a checkpoint.
#include "runtime/metrics/truncate.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

TEST(TruncateMetrics, RemovesLaterRecordsAndATornLine) {
    const ScratchFolder run;
    const std::string kept =
        "{\"event\":\"run\",\"config\":\"step: 900\"}\n"
        "{\"event\":\"step\", \"step\":99}\n"
        "not JSON, kept as it is\n"
        "{\"event\":\"alarm\",\"step\":130,\"kind\":\"nonfinite\",\"action\":\"rollback\"}\n"
        "{\"event\":\"step\",\"step\":100,\"loss\":1.50}\n"
        "{\"step\":100,\"event\":\"checkpoint\"}\n";
    const std::string gone =
        "{\"event\":\"step\",\"step\":101}\n{\"event\":\"end\",\"step\":120}\n"
        "{\"event\":\"alarm\",\"step\":130,\"kind\":\"leak\",\"action\":\"warn\"}\n";
    write_text(run / "metrics.jsonl", kept + gone + "{\"event\":\"run\"}\n{\"event\":\"step\",\"step\":1");
    write_text(run / "metrics.csv", "step,loss\n99,1\n100,2\n101,3\n100,4\n10");
    truncate_metrics_after(run.path(), 100);
    EXPECT_EQ(read_text(run / "metrics.jsonl"), kept + "{\"event\":\"run\"}\n");
    EXPECT_EQ(read_text(run / "metrics.csv"), "step,loss\n99,1\n100,2\n100,4\n");
    truncate_metrics_after(run.path(), 0);
    EXPECT_EQ(read_text(run / "metrics.csv"), "step,loss\n");
}

TEST(TruncateMetrics, ReadsRecordsOfOtherTypes) {
    const ScratchFolder run;
    const std::string kept =
        "{\"event\":5,\"step\":3}\n{\"event\":\"alarm\",\"action\":[],\"step\":2}\n[5]\n";
    write_text(run / "metrics.jsonl", kept + "{\"event\":{},\"step\":4}\n");
    truncate_metrics_after(run.path(), 3);
    EXPECT_EQ(read_text(run / "metrics.jsonl"), kept);
}

TEST(TruncateMetrics, LeavesFilesAloneThatNeedNothing) {
    const ScratchFolder run;
    truncate_metrics_after(run.path(), 100);
    EXPECT_TRUE(std::filesystem::is_empty(run.path()));
    write_text(run / "metrics.jsonl", "");
    write_text(run / "metrics.csv", "step\n7\n");
    const auto before = std::filesystem::last_write_time(run / "metrics.csv");
    truncate_metrics_after(run.path(), 7);
    EXPECT_EQ(std::filesystem::last_write_time(run / "metrics.csv"), before);
    EXPECT_EQ(read_text(run / "metrics.csv"), "step\n7\n");
}

}  // namespace
}  // namespace moesaic
