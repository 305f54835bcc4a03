// moesaic report, from a run that was just trained.
#include <filesystem>

#include "runtime/machine/programs.h"
#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

namespace fs = std::filesystem;

TEST(Report, DrawsARunAndWhatIsLeftOfIt) {
    if (!find_program("gnuplot", search_path())) GTEST_SKIP() << "no gnuplot here";
    const ScratchFolder scratch;
    train_tiny(scratch / "out", kAlone);
    const std::string run = scratch / "out/tiny";
    const CommandResult whole = moesaic({"report", run});
    ASSERT_EQ(whole.code, 0) << whole.text();
    const std::string html = read_text(run + "/report.html");
    EXPECT_GE(occurrences(html, "<svg"), 8);
    EXPECT_GE(occurrences(html, "Load of the experts"), 1);

    const CommandResult figures =
        moesaic({"report", run, "--figures", scratch / "figures", "--format", "pdf"});
    ASSERT_EQ(figures.code, 0) << figures.text();
    EXPECT_EQ(read_text(scratch / "figures/loss.pdf").substr(0, 4), "%PDF");
    EXPECT_EQ(lines_of(figures.out).size(),
              static_cast<std::size_t>(std::distance(fs::directory_iterator(scratch / "figures"), {})));

    // Half of it, and no configuration beside it.
    const std::string metrics = read_text(run + "/metrics.jsonl");
    fs::create_directory(scratch / "half");
    write_text(scratch / "half/metrics.jsonl", metrics.substr(0, metrics.size() / 2));
    const CommandResult half = moesaic({"report", scratch / "half", "-o", scratch / "pages/half.html"});
    ASSERT_EQ(half.code, 0) << half.text();
    EXPECT_GE(occurrences(read_text(scratch / "pages/half.html"), "no end recorded"), 1);
}

TEST(Report, SaysWhatIsWrong) {
    const ScratchFolder scratch;
    expect_failure(moesaic({"report", scratch.path()}), 2, {"it has no metrics.jsonl"});
    expect_failure(moesaic({"report", scratch.path(), "--figures", scratch / "figures", "--format", "gif"}),
                   2, {"one of: svg, png, pdf"});
    expect_failure(moesaic({"report", scratch.path(), "--format", "png"}), 2,
                   {"--format requires --figures"});
    write_text(scratch / "metrics.jsonl", "");
    CommandOptions bare;
    bare.environment["PATH"] = scratch.path();
    expect_failure(moesaic({"report", scratch.path()}, kAlone, bare), 1,
                   {"gnuplot, which draws the figures, is not on PATH"});
}

}  // namespace
}  // namespace moesaic::e2e
