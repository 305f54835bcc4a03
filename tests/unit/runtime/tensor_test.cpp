// Views of tensors: slices, flat ranges and other shapes of the same memory.
#include "runtime/tensor.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace moesaic {
namespace {

class Views : public ::testing::Test {
  protected:
    Views() : values(24) {
        std::iota(values.begin(), values.end(), 0.0f);
        view = view_of(values.data(), {4, 3, 2});
    }
    std::vector<float> values;
    TensorView view;
};

TEST_F(Views, ReadAsRowsAndColumns) {
    EXPECT_EQ(view.rows(), 4);
    EXPECT_EQ(view.cols(), 6);
    EXPECT_EQ(view.bytes(), 96);
    EXPECT_EQ(view.shape.text(), "[4,3,2]");
    EXPECT_EQ(Shape().elements(), 0);
    EXPECT_EQ(Shape({5}).cols(), 1);
}

TEST_F(Views, SliceRows) {
    const TensorView slice = view.slice_rows(1, 2);
    EXPECT_EQ(slice.shape, (Shape{2, 3, 2}));
    EXPECT_EQ(slice.as<float>()[0], 6.0f);
    EXPECT_EQ(slice.slice_rows(1, 1).as<float>()[5], 17.0f);
    EXPECT_EQ(view.slice_rows(4, 0).elements(), 0);
    EXPECT_EQ(ConstTensorView(view).slice_rows(3, 1).as<float>()[0], 18.0f);
}

TEST_F(Views, SliceOddSizedElements) {
    std::vector<BFloat16> bits(15);
    bits[6].bits = 7;
    EXPECT_EQ(view_of(bits.data(), {5, 3}).slice_rows(2, 1).as<BFloat16>()->bits, 7);
}

TEST_F(Views, FlattenAndReshape) {
    EXPECT_EQ(view.flat(5, 3).shape, Shape{3});
    EXPECT_EQ(view.flat(5, 3).as<float>()[2], 7.0f);
    EXPECT_EQ(view.reshaped({8, 3}).slice_rows(2, 1).as<float>()[0], 6.0f);
}

TEST_F(Views, AssertOnWhatDoesNotFit) {
    EXPECT_DEATH((void)view.slice_rows(3, 2), "rows 3\\+2 of \\[4,3,2\\]");
    EXPECT_DEATH((void)view.slice_rows(-1, 2), "rows -1\\+2");
    EXPECT_DEATH((void)view.reshaped({5, 5}), "cannot be read as \\[5,5\\]");
    EXPECT_DEATH((void)view.as<double>(), "holds f32, not f64");
    EXPECT_DEATH((void)Shape({2, -1}), "dimension 1 is -1");
}

}  // namespace
}  // namespace moesaic
