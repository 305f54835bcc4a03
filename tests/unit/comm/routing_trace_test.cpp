// Routing traces: what is written in pieces is read back, and what is none is refused.
#include "comm/routing_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "runtime/base/error.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

class RoutingTraces : public testing::Test {
  protected:
    [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
    [[nodiscard]] std::string file() const { return path("trace.npy"); }
    /// Three steps, two layers, five tokens, two choices.
    void write(RoutingTraceWriter& writer, i64 step, i64 layer, i64 first, std::vector<i32> experts) {
        writer.write(step, layer, first, experts);
    }
    [[nodiscard]] static std::vector<i32> read(const RoutingTrace& trace, i64 step, i64 layer, i64 first,
                                               i64 tokens) {
        std::vector<i32> experts(static_cast<std::size_t>(2 * tokens));
        trace.read(step, layer, first, experts);
        return experts;
    }
    void write_all() {
        RoutingTraceWriter writer(file(), {3, 2, 5, 2});
        for (i64 step = 3; step >= 1; --step) {
            for (const i64 layer : {1, 0}) {
                const i32 e = static_cast<i32>(step + layer) % 4;
                write(writer, step, layer, 3, {e, 7, 7, e});
                write(writer, step, layer, 0, {e, 5, 5, e, 6, e});
            }
        }
    }
    static void expect_refused(const std::function<void()>& act, const std::string& text) {
        try {
            act();
            FAIL() << "no error";
        } catch (const UserError& error) {
            EXPECT_THAT(error.what(), HasSubstr(text));
        }
    }

  private:
    ScratchFolder folder_;
};

TEST_F(RoutingTraces, AreReadBackAsWritten) {
    write_all();
    const RoutingTrace trace(file(), 2, 2, 8);
    EXPECT_EQ(trace.shape().steps, 3);
    EXPECT_EQ(trace.shape().tokens, 5);
    EXPECT_EQ(read(trace, 2, 1, 0, 5), (std::vector<i32>{3, 5, 5, 3, 6, 3, 3, 7, 7, 3}));
    EXPECT_EQ(read(trace, 1, 0, 2, 2), (std::vector<i32>{6, 1, 1, 7}));
    EXPECT_EQ(read(trace, 4, 0, 7, 2), read(trace, 1, 0, 2, 2)) << "begins again";
    EXPECT_EQ(read(trace, 1, 0, 4, 2), (std::vector<i32>{7, 1, 1, 5})) << "goes round";
}

TEST_F(RoutingTraces, GoOnInAFileOfTheSameShapeAndNoOther) {
    write_all();
    {
        RoutingTraceWriter writer(file(), {3, 2, 5, 2});
        write(writer, 1, 0, 0, {2, 3});
    }
    EXPECT_EQ(read(RoutingTrace(file(), 2, 2, 8), 1, 0, 0, 2), (std::vector<i32>{2, 3, 5, 1}));
    expect_refused([&] { RoutingTraceWriter(file(), {3, 2, 6, 2}); }, "is another file than a trace");
    std::ofstream(path("text.txt")) << std::string(1000, 'x');
    expect_refused([&] { RoutingTraceWriter(path("text.txt"), {3, 2, 5, 2}); }, "is another file");
    expect_refused(
        [&] {
            RoutingTraceWriter(path("no/such/folder.npy"), {3, 2, 5, 2});
        },
        "cannot be written");
}

TEST_F(RoutingTraces, ThatDoNotFitAreRefused) {
    write_all();
    expect_refused([&] { RoutingTrace(file(), 3, 2, 8); }, "does not fit a model with 3 layers");
    expect_refused([&] { RoutingTrace(file(), 2, 1, 8); }, "and 1 choices");
    expect_refused([&] { RoutingTrace(file(), 2, 2, 4); },
                   "element 1 is 5; a trace for 4 experts has their numbers, 0 to 3");
    write_npy(path("ids.npy"), std::vector<i32>{1, 2, 3}, {3});
    expect_refused([&] { RoutingTrace(path("ids.npy"), 2, 2, 8); }, "is no routing trace");
}

TEST_F(RoutingTraces, OfAStoppedRunSaySo) {
    {
        RoutingTraceWriter writer(file(), {3, 2, 5, 2});
        write(writer, 1, 0, 0, {1, 2, 3, 4, 5, 6, 1, 2, 3, 4});
    }
    const RoutingTrace trace(file(), 2, 2, 8);
    EXPECT_EQ(read(trace, 1, 0, 0, 1), (std::vector<i32>{1, 2}));
    expect_refused([&] { (void)read(trace, 2, 0, 0, 1); }, "has expert 0 twice");
}

}  // namespace
}  // namespace moesaic
