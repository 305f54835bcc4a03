// The interpreter of PTX on texts by hand: what opcodes compute, and that nothing unknown is skipped.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "tests/cuda_host/block.h"
#include "tests/cuda_host/memory.h"
#include "tests/cuda_host/ptx_program.h"

namespace cuda_host {
namespace {

using ::testing::HasSubstr;

/// A kernel of one argument, the address of 8 bytes, that `body` is to fill through %rd1.
std::string kernel_of(const std::string& body) {
    return ".version 9.0\n.target sm_90\n.address_size 64\n"
           ".visible .entry try(\n\t.param .u64 try_param_0\n)\n{\n\t.reg .b64 %rd<9>;\n\t.reg .b32 "
           "%r<9>;\n\t.reg .f32 %f<9>;\n\t.reg .pred %p<9>;\n"
           "\tld.param.u64 \t%rd1, [try_param_0];\n\tcvta.to.global.u64 \t%rd1, %rd1;\n" +
           body + "\n\tret;\n}\n\t.file\t1 \"/folder/try.cu\"\n";
}

/// What the body leaves, as bits.
std::uint64_t result_of(const std::string& body) {
    const PtxModule module = parse_ptx(kernel_of(body), "try.ptx");
    void* const room = DeviceMemory::instance().allocate(sizeof(std::uint64_t));
    std::memset(room, 0, sizeof(std::uint64_t));
    const PtxFunction& function = module.functions.at(module.index.at("try"));
    BlockExecutor::instance().run({"try", 1, 1, 0, [&] {
                                       run_ptx(module.functions, function,
                                               reinterpret_cast<const std::byte*>(&room), nullptr, nullptr);
                                   }});
    std::uint64_t bits = 0;
    std::memcpy(&bits, room, sizeof bits);
    DeviceMemory::instance().release(room);
    return bits;
}
std::uint64_t of_u32(const std::string& instructions) {
    return result_of("\t" + instructions + "\n\tst.global.u32 \t[%rd1], %r1;");
}

TEST(Ptx, ComputesInIntegers) {
    EXPECT_EQ(of_u32("add.s32 %r1, -1, 3;"), 2u);
    EXPECT_EQ(of_u32("mul.hi.u32 %r1, 0x80000000, 6;"), 3u);
    EXPECT_EQ(of_u32("shl.b32 %r1, 1, 32;"), 0u) << "C++ would leave it undefined";
    EXPECT_EQ(of_u32("shr.s32 %r1, -8, 40;"), 0xffffffffu);
    EXPECT_EQ(of_u32("bfi.b32 %r1, 5, 0xffff, 4, 8;"), 0xf05fu);
    EXPECT_EQ(of_u32("prmt.b32 %r1, 0x33221100, 0x77665544, 0x7250;"), 0x77225500u);
    EXPECT_EQ(of_u32("add.cc.u32 %r2, -1, 2; addc.u32 %r1, 10, 20;"), 31u) << "with the carry";
    EXPECT_EQ(of_u32("sub.cc.u32 %r2, 1, 2; subc.u32 %r1, 10, 4;"), 5u) << "with the borrow";
    EXPECT_EQ(of_u32("mad.lo.cc.u32 %r2, 0x10000, 0x10000, 0; madc.hi.u32 %r1, 0x10000, 0x10000, 7;"), 8u);
    EXPECT_EQ(of_u32("clz.b64 %r1, 1;"), 63u);
    EXPECT_EQ(result_of("\tcvt.s64.s32 %rd2, -7;\n\tst.global.u64 [%rd1], %rd2;"), std::uint64_t(-7));
    EXPECT_EQ(result_of("\tmov.b64 %rd2, {%tid.x, 9};\n\tst.global.u64 [%rd1], %rd2;"),
              std::uint64_t{9} << 32);
}

TEST(Ptx, ComputesInFloatingPoint) {
    const auto of = [](const std::string& instruction) {
        return std::bit_cast<float>(
            static_cast<std::uint32_t>(result_of("\t" + instruction + "\n\tst.global.f32 [%rd1], %f1;")));
    };
    EXPECT_EQ(of("fma.rn.f32 %f1, 0f40000000, 0f40400000, 0f3F800000;"), 7);
    EXPECT_EQ(of("fma.rm.f32 %f1, 0f3F800001, 0f3F800001, 0f3F800001;"), 0x1.000002p1F)
        << "rounded down, not to nearest";
    EXPECT_EQ(of("add.rz.f32 %f1, 0f3F800000, 0fB2800000;"), 0x1.fffffep-1F) << "towards zero";
    EXPECT_EQ(of("cvt.sat.f32.f32 %f1, 0f40000000;"), 1);
    EXPECT_EQ(of("cvt.sat.f32.f32 %f1, 0f7FC00000;"), 0) << "of NaN";
    EXPECT_EQ(of("max.f32 %f1, 0f7FC00000, 0f3F800000;"), 1) << "of NaN and 1";
    EXPECT_EQ(of("copysign.f32 %f1, 0f80000000, 0f40000000;"), -2) << "the sign comes first";
    EXPECT_EQ(of("setp.ltu.f32 %p1, 0f7FC00000, 0f00000000; selp.f32 %f1, 0f3F800000, 0f00000000, %p1;"), 1);
}

/// nvcc takes a parameter's address where an index chooses among its members.
TEST(Ptx, ReadsParametersByAddress) {
    EXPECT_EQ(
        result_of("\tmov.b64 %rd2, try_param_0;\n\tld.param.u64 %rd3, [%rd2];\n\tsub.s64 %rd4, %rd3, %rd1;\n"
                  "\tadd.s64 %rd4, %rd4, 7;\n\tst.global.u64 [%rd1], %rd4;"),
        7u);
}

TEST(Ptx, BranchesAndCounts) {
    EXPECT_EQ(of_u32("mov.u32 %r1, 0;\n$again:\n\tadd.s32 %r1, %r1, 3;\n\tsetp.lt.s32 %p1, %r1, 10;\n\t@%p1 "
                     "bra $again;\n"
                     "\t@!%p1 add.s32 %r1, %r1, 100;"),
              112u);
}

TEST(Ptx, WhatIsUnknownThrowsWhenItIsRead) {
    const auto problem = [](const std::string& body) -> std::string {
        try {
            (void)parse_ptx(kernel_of(body), "try.ptx");
            return "";
        } catch (const std::runtime_error& error) {
            return error.what();
        }
    };
    EXPECT_EQ(problem("\tadd.s32 %r1, %r2, %r3;"), "");
    EXPECT_THAT(problem("\tmma.sync.aligned.m16n8k8 %r1, %r2, %r3, %r4;"),
                HasSubstr("try.ptx: an opcode that is unknown to the interpreter: mma.sync"));
    EXPECT_THAT(problem("\tmov.u32 %r1, %clock;"), HasSubstr("a register that is not declared"));
    EXPECT_THAT(problem("\tmov.u64 %rd1, elsewhere;"), HasSubstr("an operand that is unknown"));
    EXPECT_THAT(problem("\tbar.sync 1;"), HasSubstr("barrier of part of a block"));
    EXPECT_THAT(problem("\tsetp.lt.s32 %p1|%p2, %r1, %r2;"), HasSubstr("two results"));
}

}  // namespace
}  // namespace cuda_host
