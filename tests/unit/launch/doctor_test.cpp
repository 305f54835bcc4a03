// The doctor's judgement, on pictured machines and jobs: what is said, and what fails the check.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "launch/doctor/advice.h"
#include "launch/doctor/checks.h"
#include "launch/doctor/doctor.h"
#include "launch/doctor/measure.h"

namespace moesaic {
namespace {

using Status = FindingStatus;

const Finding& row(const Findings& rows, const std::string& name) {
    const auto found = std::ranges::find(rows, name, &Finding::name);
    if (found == rows.end()) throw std::runtime_error("no row '" + name + "'");
    return *found;
}

OsRelease system_of(OsRelease::Family family) {
    OsRelease os;
    os.family = family;
    return os;
}

TEST(Doctor, EveryMissingRowSaysHowToInstall) {
    for (const auto family :
         {OsRelease::Family::debian, OsRelease::Family::redhat, OsRelease::Family::other}) {
        const OsRelease os = system_of(family);
        Findings all = check_tools(os, "");
        const MpiInstallation nothing;
        for (const bool compiled : {false, true}) {
            MpiFacts facts;
            facts.compiled = compiled;
            for (const Finding& one : check_mpi(os, facts, nothing, {})) all.push_back(one);
        }
        for (const Finding& one : check_gpu(os, {}, std::nullopt)) all.push_back(one);
        std::set<std::string> named;
        for (const Finding& one : all) {
            if (one.status != Status::missing) continue;
            EXPECT_NE(one.advice.find(family == OsRelease::Family::debian   ? "apt-get install"
                                      : family == OsRelease::Family::redhat ? "dnf install"
                                                                            : "install it"),
                      std::string::npos)
                << one.name << ": " << one.advice;
            EXPECT_EQ(one.packages.empty(), family == OsRelease::Family::other) << one.name;
            named.insert(one.name == "library" ? "MPI library" : one.name);
        }
        const auto table = installable();
        EXPECT_EQ(named, std::set<std::string>(table.begin(), table.end())) << "rows and table differ";
    }
}

TEST(Doctor, RepositoriesAreNamedWhereTheyAreNeeded) {
    OsRelease os = system_of(OsRelease::Family::redhat);
    EXPECT_NE(install_advice(os, "Ninja").text.find("crb"), std::string::npos);
    os.id = "fedora";
    EXPECT_EQ(install_advice(os, "Ninja").text.find("crb"), std::string::npos);
}

TEST(Doctor, AMachineThatTellsNothingIsNoFailure) {
    Findings all = check_cpu({}, {}, {}, "SCALAR");
    for (const Finding& one : check_huge_pages({})) all.push_back(one);
    for (const Finding& one : check_limits({}, {}, {}, DiskSpace{"/", 1, 1, true}, std::nullopt, 1))
        all.push_back(one);
    EXPECT_TRUE(all_well(all));
    EXPECT_EQ(row(all, "model").status, Status::warning);
    EXPECT_EQ(row(all, "memory").status, Status::warning);
    for (const Finding& one : all) EXPECT_FALSE(one.found.empty()) << one.name;
    for (const Finding& one : all) EXPECT_EQ(one.advice.empty(), one.status == Status::ok) << one.name;
}

TEST(Doctor, LimitsThatMatter) {
    MemoryFacts memory;
    memory.total = i64{16} << 30;
    memory.available = i64{8} << 30;
    const DiskSpace room{"/runs", i64{100} << 30, i64{50} << 30, true};
    const DiskSpace small{"/dev/shm", i64{64} << 20, i64{64} << 20, true};
    EXPECT_EQ(row(check_limits(memory, {}, {}, room, room, 2), "memory").status, Status::ok);
    EXPECT_EQ(row(check_limits(memory, {}, {}, room, room, 9), "memory").status, Status::warning);
    CgroupLimits cgroup;
    cgroup.memory_bytes = i64{1} << 30;
    EXPECT_EQ(row(check_limits(memory, cgroup, {}, room, room, 2), "memory").status, Status::warning);
    EXPECT_EQ(row(check_limits(memory, {}, {}, room, small, 2), "/dev/shm").status, Status::warning);
    EXPECT_EQ(row(check_limits(memory, {}, {}, room, room, 2), "/dev/shm").status, Status::ok);
    DiskSpace locked = room;
    locked.writable = false;
    const Findings unwritable = check_limits(memory, {}, {}, locked, room, 1);
    EXPECT_EQ(row(unwritable, "run folder").status, Status::failed);
    EXPECT_FALSE(all_well(unwritable));
    const ProcessLimits tight{i64{64} << 10, 100, true};
    EXPECT_EQ(row(check_limits(memory, {}, tight, room, room, 1), "locked memory").status, Status::warning);
    EXPECT_EQ(row(check_limits(memory, {}, tight, room, room, 1), "open files").status, Status::warning);
    CgroupLimits quota;
    quota.processors = 1.5;
    EXPECT_EQ(row(check_cpu({}, quota, {0, 1, 2, 3}, ""), "cores").status, Status::warning);
    EXPECT_EQ(row(check_cpu({}, quota, {0}, ""), "cores").status, Status::ok);
}

TEST(Doctor, MpiThatDoesNotFit) {
    const OsRelease os = system_of(OsRelease::Family::debian);
    MpiFacts facts;
    facts.compiled = true;
    facts.library = "Open MPI v4.1.4";
    facts.kind = "Open MPI";
    facts.thread_level = "multiple";
    facts.serialized = true;
    MpiInstallation installed{"/usr/bin/mpirun", "HYDRA build details:\n Version: 4.0.2", true, false};
    Findings rows = check_mpi(os, facts, installed, {});
    EXPECT_EQ(row(rows, "launcher").status, Status::warning) << row(rows, "launcher").found;
    EXPECT_EQ(row(rows, "user").status, Status::warning);
    EXPECT_TRUE(all_well(rows));
    installed.launcher_version = "mpirun (Open MPI) 4.1.4";
    installed.root_allowed = true;
    facts.settings["btl_vader_single_copy_mechanism"] = "none";
    rows = check_mpi(os, facts, installed, {});
    EXPECT_TRUE(std::ranges::all_of(rows, [](const Finding& one) { return one.status == Status::ok; }));
    facts.settings["btl_vader_single_copy_mechanism"] = "cma";
    facts.serialized = false;
    rows = check_mpi(os, facts, installed, {});
    EXPECT_EQ(row(rows, "copies in a node").status, Status::warning);
    EXPECT_EQ(row(rows, "thread level").status, Status::failed);
    const MpiLaunch under_mpirun{"mpirun of Open MPI", 2, 0, 2};
    EXPECT_FALSE(all_well(check_mpi(os, {}, installed, under_mpirun))) << "a build without MPI under mpirun";
    EXPECT_TRUE(all_well(check_mpi(os, {}, installed, {})));
    EXPECT_EQ(mpi_kind("Intel(R) MPI Library for Linux* OS, Version 2021.11"), "Intel MPI");
    EXPECT_EQ(mpi_kind("mpirun (Open MPI) 5.0.7"), "Open MPI");
}

std::vector<RankFacts> job_of(const std::vector<std::string>& hosts) {
    std::vector<RankFacts> ranks;
    for (std::size_t i = 0; i < hosts.size(); ++i) {
        RankFacts one;
        one.rank = static_cast<int>(i);
        one.host = hosts[i];
        one.version = "0.1.0";
        one.cpu_model = "A";
        one.processors = {static_cast<int>(i)};
        one.node_processors = static_cast<int>(hosts.size());
        ranks.push_back(one);
    }
    return ranks;
}

TEST(Doctor, JobsThatWouldBeSlowOrWrong) {
    const MpiLaunch launch{"mpirun of Open MPI", 2, 0, 2};
    auto ranks = job_of({"n", "n"});
    Findings rows = check_job(ranks, launch, {}, false);
    EXPECT_TRUE(std::ranges::all_of(rows, [](const Finding& one) { return one.status == Status::ok; }));

    ranks[1].cpu_features = "avx2";
    ranks[1].cpu_model = "B";
    rows = check_job(ranks, launch, {}, false);
    EXPECT_EQ(row(rows, "CPU features").status, Status::warning);
    EXPECT_EQ(row(rows, "CPU models").status, Status::warning);
    EXPECT_TRUE(all_well(rows));
    ranks[1].version = "0.2.0";
    EXPECT_FALSE(all_well(check_job(ranks, launch, {}, false)));

    // Both on one core of many.
    ranks = job_of({"n", "n"});
    ranks[1].processors = ranks[0].processors;
    ranks[0].node_processors = 64;
    MpiFacts facts;
    facts.settings["mpi_yield_when_idle"] = "0";
    rows = check_job(ranks, launch, facts, false);
    EXPECT_EQ(row(rows, "binding").status, Status::warning);
    EXPECT_NE(row(rows, "binding").advice.find("--bind-to none"), std::string::npos);
    EXPECT_NE(row(rows, "oversubscription").advice.find("mpi_yield_when_idle"), std::string::npos);

    // The launcher counts more ranks than MPI does.
    rows = check_job(job_of({"n"}), launch, {}, false);
    EXPECT_EQ(row(rows, "ranks").status, Status::failed);
}

TEST(Doctor, MeasurementsOfANode) {
    const std::vector<std::vector<Measurement>> ranks{
        {{"f32", 100e9, 90e9, "", false},
         {"f32", 100e9, 90e9, "", true},
         {"memory read", 10e9, 9e9, "", false, false}},
        {{"f32", 40e9, 40e9, "", false}, {"f32", 40e9, 40e9, "", true}}};
    const Findings rows = measured_rows("n", ranks, 1);
    ASSERT_EQ(rows.size(), 3u);
    EXPECT_EQ(rows[0].value, 100.0);
    EXPECT_EQ(rows[0].status, Status::warning) << "a rank at 40 of 100";
    EXPECT_EQ(rows[1].value, 140.0);
    EXPECT_EQ(rows[2].value, 10.0);
    EXPECT_EQ(rows[2].unit, "GB/s");
    EXPECT_EQ(measured_rows("n", ranks, 0.5)[1].value, 70.0) << "two ranks that share a core";
    EXPECT_EQ(measured_rows("n", ranks, 0.5)[0].value, 100.0);
}

TEST(Doctor, FindingsSurviveTheirJson) {
    Finding one{.section = "CPU", .name = "model", .found = "\"quoted\" \xff", .advice = "do"};
    one.status = Status::missing;
    one.needed = true;
    one.value = 1.5;
    one.unit = "GB/s";
    const Findings back = parse_findings(findings_json({one, {}}));
    ASSERT_EQ(back.size(), 2u);
    EXPECT_EQ(back[0].status, Status::missing);
    EXPECT_EQ(back[0].value, 1.5);
    EXPECT_EQ(back[1].value, std::nullopt);
    EXPECT_EQ(back[0].found, "\"quoted\" \xef\xbf\xbd");
    EXPECT_FALSE(all_well(back));
    EXPECT_THROW((void)parse_findings("{"), Error);
}

TEST(Doctor, TextOfSeveralNodesNamesDifferencesOnly) {
    Diagnosis diagnosis;
    diagnosis.ranks = diagnosis.nodes = 2;
    for (const std::string node : {"n0", "n1"}) {
        Finding model{.section = "CPU", .name = "model", .found = "A", .node = node};
        Finding memory{
            .section = "limits", .name = "memory", .found = node == "n0" ? "8 GiB" : "4 GiB", .node = node};
        diagnosis.findings.push_back(model);
        diagnosis.findings.push_back(memory);
    }
    const std::string text = diagnosis_text(diagnosis);
    EXPECT_NE(text.find("4 GiB"), std::string::npos) << text;
    EXPECT_EQ(text.find("model"), text.rfind("model")) << text;
    EXPECT_NE(text.find("1 more rows are those of n0"), std::string::npos) << text;
    EXPECT_NE(text.find("usable"), std::string::npos) << text;
}

}  // namespace
}  // namespace moesaic
