// Reading /proc, /sys and os-release, from folders that picture a machine.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "runtime/machine/cpu_facts.h"
#include "runtime/machine/gpu_libraries.h"
#include "runtime/machine/memory_facts.h"
#include "runtime/machine/os_release.h"
#include "runtime/machine/programs.h"
#include "runtime/machine/text_file.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;

/// A root folder with files in it.
class Picture {
  public:
    void put(const std::string& path, const std::string& text) {
        fs::create_directories(fs::path(root() + path).parent_path());
        write_text(root() + path, text);
    }
    [[nodiscard]] const std::string& root() const { return scratch_.path(); }

  private:
    ScratchFolder scratch_;
};

TEST(TextFile, AbsentFoldersAndBlanks) {
    Picture picture;
    picture.put("/a", "  12\n\n");
    picture.put("/max", "max\n");
    EXPECT_EQ(read_text_file(picture.root(), "/a"), "12");
    EXPECT_EQ(read_number_file(picture.root(), "/a"), 12);
    EXPECT_EQ(read_number_file(picture.root(), "/max"), std::nullopt);
    EXPECT_EQ(read_text_file(picture.root(), "/b"), std::nullopt);
    EXPECT_EQ(read_text_file(picture.root(), ""), std::nullopt) << "a folder is no text";
    EXPECT_EQ(bytes_text(64.0 * (1 << 20)), "64 MiB");
    EXPECT_EQ(bytes_text(1.5 * (1 << 30)), "1.5 GiB");
    EXPECT_EQ(bytes_text(12), "12 B");
}

TEST(CpuFacts, OfAnX86Machine) {
    Picture picture;
    picture.put("/proc/cpuinfo",
                "processor\t: 0\nmodel name\t: A Processor @ 2.0GHz\nflags\t\t: fpu sse2 avx2 fma avx512f\n\n"
                "processor\t: 1\nmodel name\t: Another\nflags\t\t: fpu\n");
    const std::string cache = "/sys/devices/system/cpu/cpu0/cache/index";
    picture.put(cache + "0/level", "1\n");
    picture.put(cache + "0/type", "Data\n");
    picture.put(cache + "0/size", "48K\n");
    picture.put(cache + "0/shared_cpu_list", "0,64\n");
    picture.put(cache + "1/level", "1\n");
    picture.put(cache + "1/type", "Instruction\n");
    picture.put(cache + "1/size", "32K\n");
    picture.put(cache + "2/level", "3\n");
    picture.put(cache + "2/type", "Unified\n");
    picture.put(cache + "2/size", "32M\n");
    picture.put(cache + "2/shared_cpu_list", "0-7,64-71\n");
    picture.put("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,64\n");
    picture.put("/sys/devices/system/node/online", "0-1\n");
    const CpuFacts facts = read_cpu_facts(picture.root());
    EXPECT_EQ(facts.model, "A Processor @ 2.0GHz");
    EXPECT_EQ(facts.processors, 2);
    EXPECT_TRUE(facts.has("avx512f"));
    EXPECT_FALSE(facts.has("avx512"));
    ASSERT_EQ(facts.caches.size(), 2u);
    EXPECT_EQ(facts.caches[0].bytes, 48 << 10);
    EXPECT_EQ(facts.caches[0].shared_by, 2);
    EXPECT_EQ(facts.caches[1].level, 3);
    EXPECT_EQ(facts.caches[1].bytes, 32 << 20);
    EXPECT_EQ(facts.caches[1].shared_by, 16);
    EXPECT_EQ(last_cache_share(facts), 2 << 20);
    EXPECT_EQ(facts.threads_per_core, 2);
    EXPECT_EQ(facts.numa_nodes, 2);
}

TEST(CpuFacts, NothingReadableIsNothingKnown) {
    const Picture picture;
    const CpuFacts facts = read_cpu_facts(picture.root());
    EXPECT_EQ(facts.model, "");
    EXPECT_EQ(facts.processors, 0);
    EXPECT_TRUE(facts.flags.empty() && facts.caches.empty());
    EXPECT_EQ(last_cache_share(facts), 0);
    EXPECT_FALSE(facts.numa_nodes || facts.threads_per_core);
}

TEST(CpuList, ThereAndBack) {
    EXPECT_EQ(parse_cpu_list("0-3,8"), (std::vector<int>{0, 1, 2, 3, 8}));
    EXPECT_EQ(cpu_list_text({0, 1, 2, 3, 8}), "0-3,8");
    EXPECT_EQ(cpu_list_text({}), "");
    EXPECT_TRUE(parse_cpu_list("").empty());
    EXPECT_TRUE(parse_cpu_list("none,-,x-3").empty());
    EXPECT_LT(parse_cpu_list("0-999999999").size(), 100000u) << "a damaged file must not fill the memory";
    EXPECT_FALSE(usable_processors().empty());
}

TEST(MemoryFacts, OfMeminfo) {
    Picture picture;
    picture.put("/proc/meminfo",
                "MemTotal:       24000000 kB\nMemAvailable:   12000000 kB\nHugePages_Total:       8\n"
                "HugePages_Free:        3\nHugepagesize:       2048 kB\nBroken\nMore: nonsense\n");
    picture.put("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    const MemoryFacts facts = read_memory_facts(picture.root());
    EXPECT_EQ(facts.total, i64{24000000} * 1024);
    EXPECT_EQ(facts.available, i64{12000000} * 1024);
    EXPECT_EQ(facts.huge_pages, 8);
    EXPECT_EQ(facts.huge_pages_free, 3);
    EXPECT_EQ(facts.huge_page_bytes, 2048 * 1024);
    EXPECT_EQ(facts.transparent_huge_pages, "madvise");
    const Picture empty;
    EXPECT_FALSE(read_memory_facts(empty.root()).total);
    EXPECT_EQ(read_memory_facts(empty.root()).transparent_huge_pages, "");
}

TEST(CgroupLimits, VersionTwoTakesTheTightestOnTheWay) {
    Picture picture;
    picture.put("/proc/self/cgroup", "0::/job/step\n");
    picture.put("/sys/fs/cgroup/job/step/cpu.max", "max 100000\n");
    picture.put("/sys/fs/cgroup/job/step/memory.max", "8000000\n");
    picture.put("/sys/fs/cgroup/job/cpu.max", "150000 100000\n");
    picture.put("/sys/fs/cgroup/job/memory.max", "9000000\n");
    picture.put("/sys/fs/cgroup/cpu.max", "400000 100000\n");
    const CgroupLimits limits = read_cgroup_limits(picture.root());
    EXPECT_EQ(limits.processors, 1.5);
    EXPECT_EQ(limits.memory_bytes, 8000000);
}

TEST(CgroupLimits, InsideAContainerTheGroupIsTheRoot) {
    Picture picture;
    picture.put("/proc/self/cgroup", "0::/\n");
    picture.put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
    EXPECT_EQ(read_cgroup_limits(picture.root()).processors, 2.0);
}

TEST(CgroupLimits, VersionOne) {
    Picture picture;
    picture.put("/proc/self/cgroup", "4:memory:/docker/1f\n3:cpu,cpuacct:/docker/1f\n1:name=systemd:/\n");
    picture.put("/sys/fs/cgroup/memory/docker/1f/memory.limit_in_bytes", "1073741824\n");
    picture.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    picture.put("/sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_quota_us", "50000\n");
    picture.put("/sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_period_us", "100000\n");
    picture.put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    picture.put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    const CgroupLimits limits = read_cgroup_limits(picture.root());
    EXPECT_EQ(limits.processors, 0.5);
    EXPECT_EQ(limits.memory_bytes, i64{1} << 30);
    const Picture empty;
    EXPECT_FALSE(read_cgroup_limits(empty.root()).processors ||
                 read_cgroup_limits(empty.root()).memory_bytes);
}

TEST(OsRelease, FamiliesAndQuotes) {
    Picture picture;
    picture.put("/etc/os-release",
                "# comment\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n");
    const OsRelease debian = read_os_release(picture.root());
    EXPECT_EQ(debian.family, OsRelease::Family::debian);
    EXPECT_EQ(debian.name, "Debian GNU/Linux 12 (bookworm)");
    EXPECT_EQ(debian.major(), 12);
    picture.put("/etc/os-release", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID='9.4'\n");
    const OsRelease rocky = read_os_release(picture.root());
    EXPECT_EQ(rocky.family, OsRelease::Family::redhat);
    EXPECT_EQ(rocky.id, "rocky");
    EXPECT_EQ(rocky.version, "9.4");
    EXPECT_EQ(rocky.major(), 9);
    picture.put("/etc/os-release", "ID=pop\nID_LIKE=\"ubuntu debian\"\nPRETTY_NAME=\"a \\\"b\\\"\"\n");
    EXPECT_EQ(read_os_release(picture.root()).family, OsRelease::Family::debian);
    EXPECT_EQ(read_os_release(picture.root()).name, "a \"b\"");
    picture.put("/etc/os-release", "ID=arch\n");
    EXPECT_EQ(read_os_release(picture.root()).family, OsRelease::Family::other);
    Picture usr;
    usr.put("/usr/lib/os-release", "ID=fedora\n");
    EXPECT_EQ(read_os_release(usr.root()).family, OsRelease::Family::redhat);
    const Picture empty;
    EXPECT_EQ(read_os_release(empty.root()).family, OsRelease::Family::other);
}

TEST(Programs, AreFoundAndAsked) {
    Picture picture;
    picture.put("/bin/tool", "#!/bin/sh\necho tool version 3.14.1\n");
    picture.put("/bin/text", "not to be run\n");
    picture.put("/other/tool", "#!/bin/sh\necho 2\n");
    ASSERT_EQ(::chmod((picture.root() + "/bin/tool").c_str(), 0755), 0);
    ASSERT_EQ(::chmod((picture.root() + "/other/tool").c_str(), 0755), 0);
    ASSERT_EQ(::chmod((picture.root() + "/bin/text").c_str(), 0644), 0);
    const std::string path = picture.root() + "/none:" + picture.root() + "/bin:" + picture.root() + "/other";
    EXPECT_EQ(find_program("tool", path), picture.root() + "/bin/tool");
    EXPECT_EQ(find_program("text", path), std::nullopt);
    EXPECT_EQ(find_program("tool", ""), std::nullopt);
    const auto output = output_of({picture.root() + "/bin/tool"}, 5);
    EXPECT_EQ(output, "tool version 3.14.1");
    EXPECT_EQ(version_in(output.value_or("")), "3.14.1");
    EXPECT_EQ(version_in("no number"), "");
    EXPECT_EQ(output_of({picture.root() + "/bin/none"}, 5), std::nullopt);
}

TEST(Programs, OneThatHangsIsKilled) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(output_of({"/bin/sh", "-c", "echo started; sleep 30"}, 0.2), std::nullopt);
    EXPECT_EQ(output_of({"/bin/sh", "-c", "exec >&- 2>&-; sleep 30"}, 0.2), std::nullopt);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(DiskSpace, OfTheNearestFolderThatExists) {
    const Picture picture;
    const auto space = disk_space(picture.root() + "/runs/deeper");
    ASSERT_TRUE(space);
    EXPECT_EQ(space->folder, picture.root());
    EXPECT_TRUE(space->writable);
    EXPECT_GT(space->total, 0);
    EXPECT_LE(space->available, space->total);
}

TEST(GpuLibraries, LookingForThemHarmsNothing) {
    const GpuLibraries found = find_gpu_libraries();
    EXPECT_TRUE(found.driver || found.devices.empty());
}

}  // namespace
}  // namespace moesaic
