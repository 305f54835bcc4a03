#include "runtime/checkpoint/tensor_files.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/base/atomic_folder.h"
#include "runtime/base/error.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

/// IEEE 754-2008, 3.4: sign, five bits of exponent with bias 15, ten of fraction.
double value_of_half(unsigned bits) {
    const double sign = bits & 0x8000 ? -1 : 1;
    const int exponent = static_cast<int>(bits >> 10 & 31);
    const double fraction = (bits & 1023) / 1024.0;
    if (exponent == 0) return sign * fraction * std::pow(2.0, -14);
    if (exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
    return sign * (1 + fraction) * std::pow(2.0, exponent - 15);
}

TEST(WidenElements, EveryHalf) {
    std::vector<std::uint16_t> halves(65536);
    for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<std::uint16_t>(i);
    std::vector<std::byte> bytes(halves.size() * 2 + 1);
    std::memcpy(bytes.data() + 1, halves.data(), halves.size() * 2);  // not aligned
    std::vector<float> values(halves.size());
    widen_elements(bytes.data() + 1, "F16", values);
    for (unsigned bits = 0; bits < 65536; ++bits) {
        const double expected = value_of_half(bits);
        if (std::isnan(expected)) {
            EXPECT_TRUE(std::isnan(values[bits])) << bits;
        } else {
            EXPECT_EQ(values[bits], expected) << bits;
            EXPECT_EQ(std::signbit(values[bits]), std::signbit(expected)) << bits;
        }
    }
}

PlannedTensor planned(const std::string& name, i64 elements, float value = 1) {
    PlannedTensor tensor;
    tensor.name = name;
    tensor.shape = {elements};
    tensor.make = [value](i64 first, std::span<float> values) {
        for (std::size_t i = 0; i < values.size(); ++i)
            values[i] = value * static_cast<float>(static_cast<std::size_t>(first) + i);
    };
    return tensor;
}

std::vector<std::size_t> sizes_of(const TensorParts& parts) {
    std::vector<std::size_t> sizes;
    for (const auto& part : parts) sizes.push_back(part.size());
    return sizes;
}

TEST(SplitTensors, ByBytesAndEvenly) {
    const std::vector<PlannedTensor> tensors{planned("a", 3), planned("b", 3), planned("c", 9),
                                             planned("d", 1)};
    EXPECT_EQ(sizes_of(split_by_bytes(tensors, 24)), (std::vector<std::size_t>{2, 1, 1}));
    EXPECT_EQ(sizes_of(split_by_bytes(tensors, 23)), (std::vector<std::size_t>{1, 1, 1, 1}));
    EXPECT_EQ(sizes_of(split_by_bytes(tensors, 1)), (std::vector<std::size_t>{1, 1, 1, 1}));
    EXPECT_EQ(sizes_of(split_by_bytes(tensors, 1000)), (std::vector<std::size_t>{4}));
    EXPECT_EQ(sizes_of(split_by_bytes({}, 1000)), (std::vector<std::size_t>{0}));
    EXPECT_EQ(sizes_of(split_evenly(tensors, 2)), (std::vector<std::size_t>{3, 1}));
    EXPECT_EQ(sizes_of(split_evenly(tensors, 1)), (std::vector<std::size_t>{4}));
    const TensorParts many = split_evenly(tensors, 7);
    std::size_t total = 0;
    for (const auto& part : many) total += part.size();
    EXPECT_EQ(many.size(), 7U);
    EXPECT_EQ(total, 4U);
}

std::string file_name(i64 index, i64 files) {
    return fmt::format("{}of{}", index, files);
}

TEST(WriteTensorFiles, ConvertsInPieces) {
    const ScratchFolder scratch;
    constexpr i64 kElements = (i64{1} << 18) + 5;  // more than one piece
    const std::vector<PlannedTensor> first{planned("long", kElements, 0.25F), planned("empty", 0)};
    const auto written = write_tensor_files(scratch.path(), split_by_bytes(first, 1 << 30), file_name);
    ASSERT_EQ(written.size(), 1U);
    const SafetensorsFile file = SafetensorsFile::open(scratch / "0of1");
    EXPECT_EQ(written[0].checksum, file.checksum());
    const ConstTensorView view = file.at("long").view();
    for (const i64 i : {i64{0}, i64{1} << 18, kElements - 1})
        EXPECT_EQ(view.as<float>()[i], 0.25F * static_cast<float>(i));

    PlannedTensor narrow;
    narrow.name = "narrow";
    narrow.dtype_name = "BF16";
    narrow.shape = {kElements};
    narrow.source = &file.at("long");
    narrow.make = [](i64, std::span<float> values) {
        for (float& value : values) value = -value;
    };
    (void)write_tensor_files(scratch.path(), split_by_bytes(std::span(&narrow, 1), 1),
                             [](i64, i64) { return "n"; });
    const SafetensorsFile narrowed = SafetensorsFile::open(scratch / "n");
    std::vector<float> back(static_cast<std::size_t>(kElements));
    for_each_piece(narrowed.at("narrow"),
                   [&](i64 at, std::span<float> values) { std::ranges::copy(values, back.begin() + at); });
    EXPECT_EQ(back[1], -0.25F);
    EXPECT_EQ(back[static_cast<std::size_t>(kElements) - 1], -65536.0F) << "to nearest";
}

TEST(WriteTensorFiles, NamesWhatIsNotFinite) {
    const ScratchFolder scratch;
    const std::vector<PlannedTensor> bad{planned("fine", 3),
                                         planned("bad", 3, std::numeric_limits<float>::max())};
    try {
        (void)write_tensor_files(scratch.path(), split_by_bytes(bad, 1 << 20), file_name);
        ADD_FAILURE() << "written";
    } catch (const UserError& error) {
        EXPECT_STREQ(error.what(), "tensor \"bad\" holds inf (element 2): such weights give no numbers");
    }
    EXPECT_TRUE(std::filesystem::is_empty(scratch.path())) << "nothing is left";
}

TEST(AtomicFolder, AppearsAsAWholeOrNotAtAll) {
    const ScratchFolder scratch;
    const std::string path = scratch / "a/b";
    { const AtomicFolder dropped(path); }
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
    {
        AtomicFolder folder(path + "/");
        write_text(folder.path() + "/x", "text");
        EXPECT_THROW(AtomicFolder second(path), UserError) << "somebody writes it";
        folder.commit();
    }
    EXPECT_EQ(read_text(path + "/x"), "text");
    EXPECT_THROW(AtomicFolder again(path), UserError) << "it is not empty";
    std::filesystem::create_directory(scratch / "empty");
    AtomicFolder replaced(scratch / "empty");
    write_text(replaced.path() + "/y", "text");
    replaced.commit();
    EXPECT_EQ(read_text(scratch / "empty/y"), "text");
    {
        const std::string beside = "moesaic_atomic_folder_test";  // below the working directory
        AtomicFolder relative(beside);
        relative.commit();
        EXPECT_TRUE(std::filesystem::remove(beside));
    }
    for (const char* name : {"", ".", "..", "/"}) EXPECT_THROW(AtomicFolder none(name), UserError) << name;
    write_text(scratch / "file", "text");
    EXPECT_THROW(AtomicFolder file(scratch / "file"), UserError);
    EXPECT_THROW(AtomicFolder below(scratch / "file/x"), UserError);
}

}  // namespace
}  // namespace moesaic
