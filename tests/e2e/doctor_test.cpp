// moesaic doctor as its users start it: the shape of its JSON, its exit codes, and that it stays within its
// time.
#include <set>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

const Json* find_row(const Json& object, const std::string& section, const std::string& name) {
    for (const Json& row : object.at("rows")) {
        if (row.at("section") == section && row.at("name") == name) return &row;
    }
    return nullptr;
}

void expect_shape(const Json& object) {
    EXPECT_TRUE(object.at("ok").is_boolean());
    std::set<std::string> sections;
    bool well = true;
    for (const Json& row : object.at("rows")) {
        SCOPED_TRACE(row.dump());
        sections.insert(row.at("section").get<std::string>());
        const std::string status = row.at("status");
        EXPECT_TRUE((std::set<std::string>{"ok", "warning", "missing", "failed"}.contains(status)));
        EXPECT_FALSE(row.at("name").get<std::string>().empty());
        EXPECT_FALSE(row.at("found").get<std::string>().empty());
        EXPECT_TRUE(status == "ok" || !row.at("advice").get<std::string>().empty());
        well = well && status != "failed" && !(status == "missing" && row.at("needed"));
        if (row.at("section") == "measured") {
            EXPECT_GT(row.at("value"), 0);
            EXPECT_FALSE(row.at("unit").get<std::string>().empty());
        }
    }
    EXPECT_EQ(object.at("ok"), well);
    for (const char* section : {"build", "tools", "MPI", "CUDA, NCCL", "CPU", "huge pages", "limits", "job"})
        EXPECT_TRUE(sections.contains(section)) << section;
}

class DoctorOn : public testing::TestWithParam<Ranks> {};

TEST_P(DoctorOn, PrintsOneObjectPerJob) {
    const Ranks ranks = GetParam();
    if (!can_run(ranks)) GTEST_SKIP() << "built without MPI";
    const CommandResult result = moesaic({"doctor", "--json", "--quick"}, ranks);
    ASSERT_EQ(result.code, 0) << result.text();
    const Json object = Json::parse(result.out);
    expect_shape(object);
    EXPECT_EQ(object.at("ranks"), ranks.count);
    EXPECT_EQ(object.at("nodes"), 1);
    EXPECT_EQ(find_row(object, "measured", "f32, one core"), nullptr) << "--quick measures nothing";
    EXPECT_EQ(find_row(object, "job", "CPU features")->at("status"), "ok");
}

TEST_P(DoctorOn, MeasuresWithinItsTime) {
    const Ranks ranks = GetParam();
    if (!can_run(ranks)) GTEST_SKIP() << "built without MPI";
    CommandOptions options;
    options.timeout_seconds = 60;  // 15 on a machine that does nothing else
    const CommandResult result = moesaic({"doctor", "--json"}, ranks, options);
    ASSERT_EQ(result.code, 0) << result.text();
    const Json object = Json::parse(result.out);
    expect_shape(object);
    for (const char* name :
         {"f32, one core", "bf16, one core", "memory read, one core", "memory triad, one core"})
        EXPECT_NE(find_row(object, "measured", name), nullptr) << name;
    for (const char* name : {"8 B, same node", "1 MiB, same node", "all-to-all, 64 KiB", "all-to-all, 1 MiB"})
        EXPECT_EQ(find_row(object, "measured", name) != nullptr, ranks.count > 1) << name;
}

INSTANTIATE_TEST_SUITE_P(All, DoctorOn, testing::Values(kAlone, mpirun(2), threads(3)),
                         [](const auto& test) { return name_of(test.param); });

TEST(Doctor, TextIsForPeople) {
    const CommandResult result = moesaic({"doctor", "--quick"}, threads(2));
    ASSERT_EQ(result.code, 0) << result.text();
    EXPECT_EQ(result.err, "");
    EXPECT_EQ(occurrences(result.out, "doctor: 2 ranks on 1 node\n"), 1) << result.out;
    EXPECT_EQ(occurrences(result.out, "\nusable;"), 1) << result.out;
    for (const std::string& line : lines_of(result.out)) EXPECT_LE(line.size(), 150u) << line;
}

TEST(Doctor, AFolderThatCannotBeWrittenFailsTheCheck) {
    const CommandResult result = moesaic({"doctor", "--quick", "--json", "--out", "/proc/self"});
    ASSERT_EQ(result.code, 3) << result.text();
    const Json object = Json::parse(result.out);
    EXPECT_EQ(object.at("ok"), false);
    EXPECT_EQ(find_row(object, "limits", "run folder")->at("status"), "failed");
}

TEST(Doctor, WithoutProgramsItSaysHowToInstallThem) {
    CommandOptions options;
    options.environment = {{"PATH", "/nowhere"}};
    const CommandResult result = moesaic({"doctor", "--quick", "--json"}, kAlone, options);
    ASSERT_EQ(result.code, 0) << result.text();
    const Json object = Json::parse(result.out);
    for (const char* name : {"C++ compiler", "CMake", "Ninja"}) {
        const Json* row = find_row(object, "tools", name);
        ASSERT_NE(row, nullptr) << name;
        EXPECT_EQ(row->at("status"), "missing");
        EXPECT_NE(row->at("advice").get<std::string>().find("install"), std::string::npos);
    }
}

TEST(Doctor, MistakesOnTheCommandLine) {
    EXPECT_EQ(moesaic({"doctor", "--slow"}).code, 2);
    EXPECT_EQ(moesaic({"doctor", "--ranks-as-threads", "0"}).code, 2);
}

}  // namespace
}  // namespace moesaic::e2e
