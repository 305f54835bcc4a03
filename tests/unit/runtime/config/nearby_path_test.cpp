// Data and bases that lie beside a configuration, seen from a folder that is neither's.
#include "runtime/config/nearby_path.h"

#include <gtest/gtest.h>

#include <fstream>

#include "runtime/config/load.h"
#include "runtime/config/study_config.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;

std::string write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
    return path.string();
}

TEST(NearbyPath, TheCurrentFolderIsFirstThenTheFilesOwnAndTheTwoAbove) {
    const ScratchFolder scratch;
    const std::string file = write(scratch / "share/configs/studies/study.yaml", "");
    const std::string above = write(scratch / "share/configs/data/a.txt", "a");
    write(scratch / "data-too-far-away.txt", "a");
    EXPECT_EQ(nearby_path("configs/data/a.txt", file), above);
    EXPECT_EQ(nearby_path("data/a.txt", file), above);
    EXPECT_EQ(nearby_path("study.yaml", file), file);
    EXPECT_EQ(nearby_path("data-too-far-away.txt", file), "data-too-far-away.txt");
    EXPECT_EQ(nearby_path("/configs/data/a.txt", file), "/configs/data/a.txt");
    EXPECT_EQ(nearby_path("", file), "");
    EXPECT_EQ(nearby_path(".", file), ".") << "is there already";
    write(scratch / "share/tokens.idx", "");
    EXPECT_EQ(nearby_path("tokens", file), scratch / "share/tokens") << "a Megatron prefix";
}

TEST(NearbyPath, AnInstalledConfigurationFindsItsData) {
    const ScratchFolder scratch;
    const std::string data = write(scratch / "share/configs/near-data/a.txt", "text"),
                      file = write(scratch / "share/configs/near.yaml",
                                   "task: {data: {path: configs/near-data}}\n"),
                      blend = write(scratch / "share/configs/blend.yaml",
                                    "task: {data: {sources: [{path: configs/near-data/a.txt}]}}\n");
    write(scratch / "share/configs/bytes", "no tokenizer");
    EXPECT_EQ(load_config(file).config.task.data.path, fs::path(data).parent_path().string());
    EXPECT_EQ(load_config(file).config.task.data.tokenizer, "bytes");
    EXPECT_EQ(load_config(blend).config.task.data.sources.at(0).path, data);
    const std::string study =
        write(scratch / "share/configs/studies/near.yaml",
              "name: near\nbase: configs/near.yaml\ngrid: {model.moe.experts: [2, 4]}\n");
    Diagnostics diagnostics;
    EXPECT_EQ(load_study(study, false, diagnostics).base, file);
}

}  // namespace
}  // namespace moesaic
