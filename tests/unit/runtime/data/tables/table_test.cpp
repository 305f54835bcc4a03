// Tables from files: what is read, what is said about mistakes, how the parts are split and standardised.
#include "runtime/data/tables/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numbers>
#include <set>

#include "runtime/data/npy.h"
#include "runtime/data/tables/function_table.h"
#include "runtime/data/tables/table_data.h"
#include "tests/support/source_folder.h"
#include "tests/unit/runtime/data/temporary_folder.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing_support::user_error_of;

class TableFile {
  public:
    TableFile(const std::string& name, const std::string& text) : path(folder_ / name) {
        write_text(path, text);
    }

  private:
    ScratchFolder folder_;

  public:
    std::string path;
};

TableOptions values_of(const std::string& path) {
    TableOptions options;
    options.path = path;
    options.classes = false;
    return options;
}

TEST(CsvTable, ReadsNumbersAndClassesWithoutHeader) {
    const TableFile file("a.csv", "1, 2.5,cat\r\n-3,+4,dog\n\n5,6e1,\"cat\"\n");
    TableOptions options;
    options.path = file.path;
    const Table table = read_table(options);
    EXPECT_EQ(table.rows, 3);
    EXPECT_EQ(table.columns, 2);
    EXPECT_THAT(table.features, ElementsAre(1, 2.5F, -3, 4, 5, 60));
    EXPECT_THAT(table.targets, ElementsAre(0, 1, 0));
    EXPECT_THAT(table.class_names, ElementsAre("cat", "dog"));
    EXPECT_EQ(table.target_name, "3");
    EXPECT_EQ(table.layout, "CSV without header");
}

/// A first line without a number is an example all the same where a date stands above a date.
TEST(CsvTable, ALineOfDatesIsNoHeader) {
    const auto layout_of = [](const std::string& text) {
        const TableFile file("a.csv", text);
        TableOptions options;
        options.path = file.path;
        const Table table = read_table(options);
        return fmt::format("{}, {} examples", table.layout, table.rows);
    };
    EXPECT_EQ(layout_of("2020-01-01,a\n2020-02-01,b\n"), "CSV without header, 2 examples");
    EXPECT_EQ(layout_of("2020-01-01,2020-02-01,class\n1,2,a\n3,4,b\n"), "CSV with header, 2 examples");
    EXPECT_EQ(layout_of("date,class\n2020-01-01,a\n2020-02-01,b\n"), "CSV with header, 2 examples");
}

TEST(CsvTable, ANumberWrittenOtherwiseIsTheSameClass) {
    const TableFile file("a.csv", "x,y\n1,1.0\n2,1\n3,+1\n4,10\n5,1e1\n6,2\n");
    TableOptions options;
    options.path = file.path;
    const Table table = read_table(options);
    EXPECT_THAT(table.class_names, ElementsAre("1", "2", "10"));
    EXPECT_THAT(table.targets, ElementsAre(0, 0, 0, 2, 2, 1));
}

TEST(CsvTable, ClassesThatAreNumbersKeepTheirOrder) {
    const TableFile file("a.csv", "0,10\n0,9\n0,-1\n");
    TableOptions options;
    options.path = file.path;
    const Table table = read_table(options);
    EXPECT_THAT(table.class_names, ElementsAre("-1", "9", "10"));
    EXPECT_THAT(table.targets, ElementsAre(2, 1, 0));
}

TEST(CsvTable, TakesColumnsByNameOrNumber) {
    const TableFile file("a.tsv", "\xEF\xBB\xBFone\ttwo\tthe \"\"third\"\"\tfour\n1\t2\t3\t4\n5\t6\t7\t8\n");
    TableOptions options = values_of(file.path);
    options.target = "two";
    EXPECT_THAT(read_table(options).features, ElementsAre(1, 3, 4, 5, 7, 8));
    EXPECT_THAT(read_table(options).targets, ElementsAre(2, 6));
    options.features = "four, 1";
    EXPECT_THAT(read_table(options).features, ElementsAre(4, 1, 8, 5));
    EXPECT_THAT(read_table(options).feature_names, ElementsAre("four", "one"));
    options.features = "two";
    EXPECT_THAT(user_error_of([&] { (void)read_table(options); }), HasSubstr("is the target and a feature"));
    options.target = "five";
    EXPECT_THAT(user_error_of([&] { (void)read_table(options); }),
                HasSubstr("there is no column 'five'; task.data.target: one of one, two, "));
}

TEST(CsvTable, DatesArePlacesInTheYearAndTheDay) {
    const TableFile file("a.csv", "date,y\n2010-01-01T06:00:00,1\n2012-12-31 12:30,2\n2011-07-02,3\n");
    const Table table = read_table(values_of(file.path));
    ASSERT_EQ(table.columns, 4);
    EXPECT_EQ(table.feature_names[2], "date (day sin)");
    const auto expect_at = [&](std::size_t row, double year, double day) {
        const double turn = 2 * std::numbers::pi;
        EXPECT_FLOAT_EQ(table.features[4 * row], static_cast<float>(std::sin(turn * year))) << row;
        EXPECT_FLOAT_EQ(table.features[4 * row + 1], static_cast<float>(std::cos(turn * year))) << row;
        EXPECT_FLOAT_EQ(table.features[4 * row + 2], static_cast<float>(std::sin(turn * day))) << row;
        EXPECT_FLOAT_EQ(table.features[4 * row + 3], static_cast<float>(std::cos(turn * day))) << row;
    };
    expect_at(0, 0.25 / 365, 0.25);
    expect_at(1, (365 + 12.5 / 24) / 366, 12.5 / 24);
    expect_at(2, 182.0 / 365, 0);
}

TEST(CsvTable, AllMistakesAreSaidAtOnceWithTheirLines) {
    const TableFile file("a.csv", "x,y\n1,2\n?,3\n\n4,nan\n5,\n");
    const std::string error = user_error_of([&] { (void)read_table(values_of(file.path)); });
    EXPECT_THAT(error, HasSubstr(file.path + ":3: column 'x' is '?', no number"));
    EXPECT_THAT(error, HasSubstr(file.path + ":5: column 'y' is 'nan', no number"));
    EXPECT_THAT(error, HasSubstr(file.path + ":6: column 'y' is '', no number"));
    const TableFile ragged("a.csv", "1,2\n1\n1,2,3\n");
    const std::string lengths = user_error_of([&] { (void)read_table(values_of(ragged.path)); });
    EXPECT_THAT(lengths, HasSubstr(":2: 1 fields, where the first line has 2"));
    EXPECT_THAT(lengths, HasSubstr(":3: 3 fields"));
    const TableFile one_class("a.csv", "1,a\n2,a\n");
    TableOptions options;
    options.path = one_class.path;
    EXPECT_THAT(user_error_of([&] { (void)read_table(options); }),
                HasSubstr("all examples are of one class"));
    options.path = one_class.path + ".gone";
    EXPECT_THAT(user_error_of([&] { (void)read_table(options); }), HasSubstr("is no file"));
    const TableFile unknown("a.dat", "1,a\n2,b\n");
    options.path = unknown.path;
    EXPECT_THAT(user_error_of([&] { (void)read_table(options); }), HasSubstr("does not tell the format"));
}

TEST(NpyTable, FindsTheTargetsBesideTheFeatures) {
    const ScratchFolder folder;
    write_text(folder / "x_train.npy", npy_header("<f8", {3, 1, 2}) + std::string(48, '\0'));
    write_npy(folder / "y_train.npy", std::vector<i32>{7, 3, 7}, {3});
    TableOptions options;
    options.path = folder / "x_train.npy";
    const Table table = read_table(options);
    EXPECT_EQ(table.columns, 2);
    EXPECT_THAT(table.targets, ElementsAre(1, 0, 1));
    EXPECT_THAT(table.class_names, ElementsAre("3", "7"));
    write_npy(folder / "y_train.npy", std::vector<i32>{7, 3}, {2});
    EXPECT_THAT(user_error_of([&] { (void)read_table(options); }), HasSubstr("2 targets for the 3 examples"));
    options.labels = folder / "z.npy";
    write_npy(folder / "z.npy", std::vector<i32>{-7, 3, 4}, {3});
    options.classes = false;
    EXPECT_THAT(read_table(options).targets, ElementsAre(-7, 3, 4));
}

TEST(IdxTable, ReadsImagesAndLabels) {
    const ScratchFolder folder;
    using namespace std::string_literals;
    write_text(folder / "train-images-idx3-ubyte",
               "\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x02\x01\xff\x03\x04"s);
    write_text(folder / "train-labels-idx1-ubyte", "\0\0\x08\x01\0\0\0\x02\x09\x05"s);
    TableOptions options;
    options.path = folder / "train-images-idx3-ubyte";
    const Table table = read_table(options);
    EXPECT_THAT(table.features, ElementsAre(1, 255, 3, 4));
    EXPECT_THAT(table.class_names, ElementsAre("5", "9"));
    EXPECT_THAT(table.targets, ElementsAre(1, 0));
    write_text(options.path, "\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x02\x01\xff\x03"s);
    EXPECT_THAT(user_error_of([&] { (void)read_table(options); }),
                HasSubstr("promise 4 elements, and 3 bytes"));
    write_text(options.path, "\x1f\x8b..");
    EXPECT_THAT(user_error_of([&] { (void)read_table(options); }), HasSubstr("gunzip"));
}

/// Where one extent is 0 the others may be anything, and no size of the file contradicts them.
TEST(Tables, WithoutExamplesAreRefusedWhateverTheirWidth) {
    const ScratchFolder folder;
    using namespace std::string_literals;
    TableOptions options;
    options.path = folder / "train-images-idx3-ubyte";
    write_text(options.path, "\0\0\x08\x04\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"s);
    write_text(folder / "train-labels-idx1-ubyte", "\0\0\x08\x01\0\0\0\0"s);
    EXPECT_THAT(user_error_of([&] { (void)read_table(options); }),
                HasSubstr(options.path + ": 0 examples of 0 features"));
    options.path = folder / "x.npy";
    write_text(options.path, npy_header("<f8", {0, i64{1} << 40, i64{1} << 40}));
    write_npy(folder / "y.npy", std::vector<i32>{}, {0});
    EXPECT_THAT(user_error_of([&] { (void)read_table(options); }),
                HasSubstr(options.path + ": 0 examples of 0 features"));
}

TEST(FunctionTable, IsTheFunctionAndDoesNotDependOnTheNumberOfSamples) {
    const std::vector<double> zero{0, 0, 0}, one{1, 1};
    EXPECT_NEAR(test_function("ackley").value(zero), 0, 1e-14);
    EXPECT_NEAR(test_function("ackley").value(one), 20 - 20 * std::exp(-0.2), 1e-13);
    EXPECT_NEAR(test_function("rastrigin").value(one), 2, 1e-13);
    EXPECT_NEAR(test_function("rastrigin").value(std::vector<double>{0.5}), 20.25, 1e-13);
    const auto jump = [](double x) { return test_function("piecewise").value(std::vector<double>{x}); };
    EXPECT_NEAR(jump(0.1) + jump(0.2), 2 * jump(0.15), 1e-12) << "linear within a cell";
    EXPECT_GT(std::abs(jump(0.25) - jump(0.2499999)), 1e-3) << "with a jump between";
    for (const char* name : {"ackley", "rastrigin", "piecewise"}) {
        const Table few = make_function_table({name, 3, 5, 0.5, 4}),
                    many = make_function_table({name, 3, 50, 0.5, 4});
        EXPECT_TRUE(std::equal(few.features.begin(), few.features.end(), many.features.begin())) << name;
        EXPECT_TRUE(std::equal(few.targets.begin(), few.targets.end(), many.targets.begin())) << name;
        EXPECT_NE(many.features, make_function_table({name, 3, 50, 0.5, 5}).features) << name;
        const Table exact = make_function_table({name, 3, 50, 0, 4});
        double squares = 0;
        for (std::size_t i = 0; i < 50; ++i) squares += std::pow(exact.targets[i] - many.targets[i], 2);
        EXPECT_NEAR(std::sqrt(squares / 50), 0.5, 0.2) << name;
    }
    EXPECT_THAT(user_error_of([] { (void)test_function("sphere"); }),
                HasSubstr("known are: ackley, rastrigin"));
}

TEST(FunctionTable, TheTeacherGivesClassesAndAShareOfWrongOnes) {
    const Table exact = make_function_table({"teacher", 16, 2000, 0, 4}),
                noisy = make_function_table({"teacher", 16, 2000, 0.2, 4}),
                wrong = make_function_table({"teacher", 16, 2000, 1, 4});
    EXPECT_THAT(exact.class_names, ElementsAre("0", "1", "2", "3"));
    EXPECT_EQ(exact.features, noisy.features);
    std::map<double, int> counts;
    int changed = 0, far = 0;
    for (std::size_t i = 0; i < 2000; ++i) {
        ++counts[exact.targets[i]];
        changed += noisy.targets[i] != exact.targets[i] ? 1 : 0;
        far += wrong.targets[i] == std::fmod(exact.targets[i] + 2, 4) ? 1 : 0;
        EXPECT_NE(wrong.targets[i], exact.targets[i]);
        ASSERT_TRUE(wrong.targets[i] >= 0 && wrong.targets[i] < 4) << wrong.targets[i];
    }
    ASSERT_EQ(counts.size(), 4u);
    for (const auto& [label, count] : counts) EXPECT_GT(count, 100) << label;
    EXPECT_NEAR(changed, 400, 60) << "three standard deviations";
    EXPECT_NEAR(far, 667, 65) << "each other class as often";
    // Coefficients belong to the number of inputs, in whatever order tables are made.
    (void)make_function_table({"teacher", 3, 5, 0, 4});
    EXPECT_EQ(make_function_table({"teacher", 16, 2000, 0, 4}).targets, exact.targets);
}

/// 20 examples whose first feature is their number.
Table numbered() {
    Table table;
    table.rows = 20;
    table.columns = 2;
    for (int i = 0; i < 20; ++i) {
        table.features.insert(table.features.end(), {static_cast<float>(i), 3});
        table.targets.push_back(10.0 * i);
    }
    return table;
}

struct Example {
    float features[3] = {};
    double value = 0;
};

Example example_of(const TableData& data, bool heldout, i64 index) {
    Example example;
    WindowBuffer buffer;
    buffer.features = example.features;
    buffer.values = &example.value;
    heldout ? data.validation_window(index, buffer) : data.training_window(index, buffer);
    return example;
}

TEST(TableData, SplitsEveryExampleIntoOnePartByItsSeed) {
    const auto parts = [](u64 seed) {
        const TableData data(numbered(), {0.25, seed, false});
        EXPECT_EQ(data.training_windows(), 15);
        EXPECT_EQ(data.validation_windows(), 5);
        std::pair<std::set<float>, std::set<float>> numbers;
        for (i64 i = 0; i < 15; ++i) {
            const Example one = example_of(data, false, i);
            EXPECT_EQ(one.value, 10.0 * static_cast<double>(one.features[0])) << "features keep their target";
            EXPECT_EQ(one.features[2], 1) << "in place of biases";
            numbers.first.insert(one.features[0]);
        }
        for (i64 i = 0; i < 5; ++i) numbers.second.insert(example_of(data, true, i).features[0]);
        EXPECT_EQ(numbers.first.size(), 15u);
        EXPECT_EQ(numbers.second.size(), 5u);
        std::set<float> all = numbers.first;
        all.merge(std::set<float>(numbers.second));
        EXPECT_EQ(all.size(), 20u);
        return numbers.second;
    };
    EXPECT_EQ(parts(1), parts(1));
    EXPECT_NE(parts(1), parts(2));
    EXPECT_NE(parts(1), (std::set<float>{15, 16, 17, 18, 19})) << "not the end of the file";
    EXPECT_THAT(user_error_of([] {
                    const TableData data(numbered(), {0.01, 1, false});
                }),
                HasSubstr("0 held out"));
}

TEST(TableData, StandardisesByTheTrainingPartAlone) {
    const TableData raw(numbered(), {0.25, 1, false}), data(numbered(), {0.25, 1, true});
    double sum = 0, squares = 0, values = 0;
    for (i64 i = 0; i < 15; ++i) {
        const Example one = example_of(data, false, i);
        sum += static_cast<double>(one.features[0]);
        squares += std::pow(static_cast<double>(one.features[0]), 2);
        values += one.value * one.value;
        EXPECT_EQ(one.features[1], 0) << "a constant feature says nothing";
    }
    EXPECT_NEAR(sum, 0, 1e-5);
    EXPECT_NEAR(squares / 15, 1, 1e-6);
    EXPECT_NEAR(values / 15, 1, 1e-12);
    const double scale = data.distance_unit();
    for (i64 i = 0; i + 1 < 5; ++i) {
        const double apart = example_of(data, true, i).value - example_of(data, true, i + 1).value;
        const double truly = example_of(raw, true, i).value - example_of(raw, true, i + 1).value;
        EXPECT_NEAR(apart * scale, truly, 1e-9) << "held-out ones by the same scale";
    }
    EXPECT_EQ(data.error(), SampleError::distance);
}

TEST(TableData, EveryEpochVisitsEveryExampleOnceInAnotherOrder) {
    const TableData data(numbered(), {0.25, 1, true});
    std::vector<std::vector<i64>> epochs;
    for (i64 epoch = 0; epoch < 3; ++epoch) {
        std::vector<i64>& order = epochs.emplace_back();
        for (i64 i = 0; i < 15; ++i) order.push_back(data.training_sequence(7, 15 * epoch + i));
        EXPECT_EQ(std::set<i64>(order.begin(), order.end()).size(), 15u);
    }
    EXPECT_NE(epochs[0], epochs[1]);
    EXPECT_NE(epochs[1], epochs[2]);
    EXPECT_NE(data.training_sequence(8, 0) * 100 + data.training_sequence(8, 1),
              epochs[0][0] * 100 + epochs[0][1]);
}

TEST(TableData, TheShippedTablesLoad) {
    const std::string root = MOESAIC_SOURCE_DIR;
    TableOptions options;
    options.path = root + "/configs/data/digits.csv";
    const TableData digits(read_table(options), {0.2, 1, true});
    EXPECT_EQ(digits.training_windows(), 1438);
    EXPECT_EQ(digits.validation_windows(), 359);
    EXPECT_EQ(digits.shape().features, 65);
    EXPECT_EQ(digits.shape().outputs, 10);
    TableOptions weather = values_of(root + "/configs/data/weather-normals.csv");
    weather.features = "date";
    weather.target = "temperature";
    EXPECT_EQ(read_table(weather).rows, 8759);
    EXPECT_EQ(read_table(weather).columns, 4);
}

}  // namespace
}  // namespace moesaic
