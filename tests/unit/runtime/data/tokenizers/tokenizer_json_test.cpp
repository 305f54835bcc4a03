// tokenizer.json: fields that change ids, and damage at every place that is read.
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "runtime/data/tokenizer.h"
#include "tests/support/source_folder.h"
#include "tests/unit/runtime/data/temporary_folder.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using Json = nlohmann::json;
using testing_support::TemporaryFolder;
using testing_support::user_error_of;
using Ids = std::vector<i32>;

const Json& style(const std::string& name) {
    static std::map<std::string, Json> files;
    if (!files.contains(name)) {
        files[name] = Json::parse(read_text(std::string(MOESAIC_SOURCE_DIR) + "/tests/reference/tokenizers/" +
                                            name + "_style.json"));
    }
    return files[name];
}

std::unique_ptr<Tokenizer> tokenizer_of_text(const std::string& text) {
    const TemporaryFolder folder;
    return make_tokenizer(folder.write("tokenizer.json", text));
}

std::unique_ptr<Tokenizer> tokenizer_of(const Json& document) {
    return tokenizer_of_text(document.dump());
}

std::string error_of_text(const std::string& text) {
    const std::string error = user_error_of([&] { (void)tokenizer_of_text(text); });
    EXPECT_NE(error.find("tokenizer.json: "), std::string::npos) << error;
    EXPECT_LT(error.size(), 700u) << error;
    return error;
}

TEST(TokenizerJson, WhatItSaysOfItself) {
    const auto llama3 = tokenizer_of(style("llama3"));
    EXPECT_EQ(llama3->vocabulary_size(), 702);
    EXPECT_EQ(llama3->decode(Ids{*llama3->end_of_text()}), "<|end_of_text|>");
    EXPECT_EQ(tokenizer_of(style("gpt2"))->end_of_text(), 0);
    EXPECT_EQ(tokenizer_of(style("qwen"))->end_of_text(), 700);
    EXPECT_EQ(tokenizer_of(style("prefix_space"))->end_of_text(), 1);
    EXPECT_NE(llama3->describe().find("tokenizer.json, vocabulary 702"), std::string::npos)
        << llama3->describe();
    EXPECT_EQ(llama3->fingerprint().rfind("xxh64:", 0), 0u);
    EXPECT_NE(llama3->fingerprint(), tokenizer_of(style("gpt2"))->fingerprint());
    const i64 size = llama3->vocabulary_size();
    EXPECT_NE(user_error_of([&] { (void)llama3->decode(Ids{static_cast<i32>(size)}); }).find("token 702"),
              std::string::npos);
}

TEST(TokenizerJson, AddedTokensAreFoundInText) {
    const auto qwen = tokenizer_of(style("qwen"));
    EXPECT_EQ(qwen->encode("<|im_start|><|im_end|><tool_call>"), (Ids{701, 702, 703}));
    EXPECT_EQ(qwen->encode("caf\u00e9"), qwen->encode("cafe\u0301"))
        << "normalized before the token is looked for";
    EXPECT_EQ(qwen->encode("caf\u00e9").size(), 1u);
    const auto prefix = tokenizer_of(style("prefix_space"));
    const Ids masked = prefix->encode("a \n<mask> b");
    EXPECT_EQ(prefix->decode(masked), " a<mask> b") << "lstrip takes the white space before it";
    EXPECT_EQ(prefix->decode(prefix->encode("a <right> \tb")), " a <right> b") << "rstrip takes it behind";
}

/// Merges as pairs and as text, and the fields that older files lack, mean the same.
TEST(TokenizerJson, OldAndNewForms) {
    Json now = style("gpt2");
    for (Json& merge : now["model"]["merges"]) {
        const std::string pair = merge;
        merge = {pair.substr(0, pair.find(' ')), pair.substr(pair.find(' ') + 1)};
    }
    now["model"]["type"] = "BPE";
    now["model"]["unk_token"] = "unk";
    now["model"]["dropout"] = 0.0;
    now["pre_tokenizer"]["use_regex"] = true;
    now["decoder"] = nullptr;
    const std::string text =
        read_text(std::string(MOESAIC_SOURCE_DIR) + "/configs/data/quad/opticks.txt").substr(0, 20000);
    EXPECT_EQ(tokenizer_of(now)->encode(text), tokenizer_of(style("gpt2"))->encode(text));
    now["pre_tokenizer"]["use_regex"] = false;
    EXPECT_NE(tokenizer_of(now)->encode(text), tokenizer_of(style("gpt2"))->encode(text));
}

/// A token that no merge makes any more is a word's only where ignore_merges says so.
TEST(TokenizerJson, IgnoreMergesFindsTokensThatNoMergeMakes) {
    Json document = style("gpt2");
    const std::string pair = document["model"]["merges"].back();
    std::string word = pair;
    word.erase(word.find(' '), 1);
    const i32 id = document["model"]["vocab"].at(word);
    document["model"]["merges"].erase(document["model"]["merges"].size() - 1);
    const auto merging = tokenizer_of(document);
    const std::string text = merging->decode(Ids{id});
    EXPECT_GT(merging->encode(text).size(), 1u);
    document["model"]["ignore_merges"] = true;
    EXPECT_EQ(tokenizer_of(document)->encode(text), Ids{id});
}

struct Edit {
    const char* base;
    std::function<void(Json&)> damage;
    std::vector<const char*> expected;
};

void expect_edits_are_refused(const std::vector<Edit>& table) {
    for (const Edit& edit : table) {
        Json document = style(edit.base);
        edit.damage(document);
        const std::string error = error_of_text(document.dump());
        for (const char* part : edit.expected)
            EXPECT_NE(error.find(part), std::string::npos) << part << "\n" << error;
        EXPECT_NE(error.find("; "), std::string::npos) << "no remedy: " << error;
    }
}

TEST(TokenizerJson, OtherKindsOfTokenizersAreRefused) {
    expect_edits_are_refused({
        {"gpt2",
         [](Json& d) {
             d["model"] = {{"type", "WordPiece"}, {"vocab", Json::object()}};
         },
         {"model.type", "'WordPiece'", "byte-level BPE"}},
        {"gpt2",
         [](Json& d) {
             d["model"] = {{"type", "Unigram"}, {"vocab", Json::array()}};
         },
         {"model.type", "'Unigram'"}},
        {"gpt2", [](Json& d) { d["model"]["byte_fallback"] = true; }, {"model.byte_fallback: is true"}},
        {"gpt2", [](Json& d) { d["model"]["dropout"] = 0.1; }, {"model.dropout: is 0.1"}},
        {"gpt2", [](Json& d) { d["model"]["end_of_word_suffix"] = "</w>"; }, {"model.end_of_word_suffix"}},
        {"gpt2",
         [](Json& d) { d["model"]["continuing_subword_prefix"] = "##"; },
         {"model.continuing_subword_prefix"}},
        {"gpt2", [](Json& d) { d["model"]["new_option"] = 1; }, {"model: has an unknown field 'new_option'"}},
        {"gpt2", [](Json& d) { d["surprise"] = 1; }, {"unknown field 'surprise'"}},
    });
}

TEST(TokenizerJson, OtherWaysOfCuttingTextAreRefused) {
    expect_edits_are_refused({
        {"gpt2", [](Json& d) { d.erase("pre_tokenizer"); }, {"has no pre_tokenizer"}},
        {"gpt2", [](Json& d) { d["pre_tokenizer"] = nullptr; }, {"has no pre_tokenizer"}},
        {"gpt2",
         [](Json& d) {
             d["pre_tokenizer"] = {{"type", "Metaspace"}};
         },
         {"pre_tokenizer.type: is 'Metaspace'"}},
        {"llama3",
         [](Json& d) { d["pre_tokenizer"]["pretokenizers"].erase(1); },
         {"pre_tokenizer: has no ByteLevel step"}},
        {"llama3",
         [](Json& d) { d["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; },
         {"pretokenizers[0].behavior: is 'Removed'"}},
        {"llama3",
         [](Json& d) {
             std::swap(d["pre_tokenizer"]["pretokenizers"][0], d["pre_tokenizer"]["pretokenizers"][1]);
         },
         {"follows the ByteLevel step"}},
        {"llama3",
         [](Json& d) {
             d["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"Regex", "\\w+"}};
         },
         {"pretokenizers[0].pattern.Regex: the regular expression has \\w"}},
        {"llama3",
         [](Json& d) {
             d["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"Regex", "(a"}};
         },
         {"pattern.Regex: the regular expression is not valid"}},
        {"llama3",
         [](Json& d) {
             d["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"Regex", "a*"}};
         },
         {"can match nothing"}},
        {"llama3",
         [](Json& d) {
             d["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"String", ""}};
         },
         {"can match nothing"}},
        {"llama3",
         [](Json& d) { d["pre_tokenizer"]["pretokenizers"][0]["pattern"] = Json::object(); },
         {"pattern: is {}"}},
        {"qwen", [](Json& d) { d["normalizer"]["type"] = "NFKC"; }, {"normalizer.type: is 'NFKC'"}},
        {"qwen",
         [](Json& d) {
             d["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}};
         },
         {"normalizer.normalizers[0].type: is 'Lowercase'"}},
        {"gpt2",
         [](Json& d) {
             d["decoder"] = {{"type", "WordPiece"}};
         },
         {"decoder.type: is 'WordPiece'"}},
        {"gpt2",
         [](Json& d) { d["added_tokens"][0]["single_word"] = true; },
         {"added_tokens[0].single_word: is true"}},
    });
}

TEST(TokenizerJson, WrongVocabulariesAreRefused) {
    expect_edits_are_refused({
        {"gpt2", [](Json& d) { d["model"]["vocab"]["Ġthe"] = -1; }, {"model.vocab[\"Ġthe\"]: -1 is no id"}},
        {"gpt2", [](Json& d) { d["model"]["vocab"]["Ġthe"] = 2000000000; }, {"2000000000 is no id"}},
        {"gpt2", [](Json& d) { d["model"]["vocab"]["Ġthe"] = 1e300; }, {"is no id"}},
        {"gpt2", [](Json& d) { d["model"]["vocab"]["Ġthe"] = 3.5; }, {"3.5 is no id"}},
        {"gpt2", [](Json& d) { d["model"]["vocab"]["Ġthe"] = "3"; }, {"is no id"}},
        {"gpt2", [](Json& d) { d["model"]["vocab"]["Ġthe"] = 5; }, {"has the id 5, which '"}},
        {"gpt2", [](Json& d) { d["model"]["vocab"]["new"] = 701; }, {"no token has the id 700"}},
        {"gpt2", [](Json& d) { d["model"]["vocab"].erase("a"); }, {"has no token 'a' for the byte 0x61"}},
        {"gpt2", [](Json& d) { d["model"]["vocab"] = Json::object(); }, {"has no token"}},
        {"gpt2", [](Json& d) { d["model"]["merges"][3] = "a ▁b"; }, {"model.merges[3]: 'a' and '▁b'"}},
        {"gpt2",
         [](Json& d) { d["model"]["merges"][3] = "Ġq zz"; },
         {"model.merges[3]: 'Ġq' is not in model.vocab"}},
        {"gpt2",
         [](Json& d) { d["model"]["merges"][3] = "z Q"; },
         {"model.merges[3]: 'zQ' is not in model.vocab"}},
        {"gpt2",
         [](Json& d) { d["model"]["merges"][3] = d["model"]["merges"][7]; },
         {"model.merges[7]: '", "is there twice"}},
        {"gpt2", [](Json& d) { d["model"]["merges"][3] = "ab"; }, {"model.merges[3]: is \"ab\""}},
        {"gpt2", [](Json& d) { d["model"]["merges"][3] = " a"; }, {"model.merges[3]: '' and 'a'"}},
        {"gpt2",
         [](Json& d) {
             d["model"]["merges"][3] = {"a", "b", "c"};
         },
         {"model.merges[3]: is [\"a\",\"b\",\"c\"]"}},
        {"gpt2",
         [](Json& d) { d["added_tokens"][0]["id"] = 7; },
         {"added_tokens[0].id: is 7, in model.vocab it is 0"}},
        {"qwen",
         [](Json& d) { d["added_tokens"][1]["id"] = 700; },
         {"added_tokens[1]: has the id 700, which '<|endoftext|>'"}},
        {"qwen",
         [](Json& d) { d["added_tokens"][1]["content"] = "<|endoftext|>"; },
         {"added_tokens[1].content: '<|endoftext|>' is added twice"}},
        {"qwen",
         [](Json& d) { d["added_tokens"][1]["content"] = ""; },
         {"added_tokens[1].content: is empty"}},
        {"qwen", [](Json& d) { d["added_tokens"][1]["id"] = -5; }, {"added_tokens[1].id: -5 is no id"}},
        {"qwen", [](Json& d) { d["added_tokens"].erase(1); }, {"is no id"}},
    });
}

/// Every value of the document in turn becomes one of another type: an error that names the file or an
/// accepted file, never a crash.
void replace_everywhere(Json& document, Json& here, int depth) {
    const Json kept = here;
    for (const Json& other : {Json(nullptr), Json(17), Json("x"), Json::array(), Json::object(), Json(true),
                              Json(-1.5), Json(std::string(3, '\0'))}) {
        if (other.type() == kept.type()) continue;
        here = other;
        try {
            (void)tokenizer_of(document)->encode("it's a test of 12 things");
        } catch (const UserError& error) {
            EXPECT_NE(std::string(error.what()).find("tokenizer.json: "), std::string::npos) << error.what();
        }
        here = kept;
    }
    if (!here.is_structured()) return;
    std::size_t looked_at = 0;
    for (Json& child : here) {
        if (depth > 0 && ++looked_at > 5) break;  // of 700 tokens the first will do
        replace_everywhere(document, child, depth + 1);
    }
}

TEST(TokenizerJson, WrongTypesAtEveryPlace) {
    for (const char* name : {"qwen", "gpt2", "stages"}) {
        Json document = style(name);
        replace_everywhere(document, document, 0);
    }
}

TEST(TokenizerJson, CutAnywhere) {
    const std::string whole = style("gpt2").dump();
    for (std::size_t bytes = 0; bytes < whole.size();
         bytes += bytes < 300 || bytes + 300 > whole.size() ? 1 : 97) {
        const std::string error = error_of_text(whole.substr(0, bytes));
        EXPECT_NE(error.find("not valid JSON"), std::string::npos) << bytes << ": " << error;
    }
}

TEST(TokenizerJson, TextThatIsNoDocument) {
    const std::string good = style("gpt2").dump();
    std::string with_nul = good, with_garbage = good;
    with_nul[good.size() / 2] = '\0';
    with_garbage[good.find("vocab") + 12] = '\xff';
    for (const std::string& text :
         {std::string(), std::string("null"), std::string("[]"), std::string("{}"), std::string("3"),
          std::string(200000, '['), std::string(1000000, '{'),
          std::string("{\"model\":") + std::string(100, '[') + std::string(100, ']') + "}", good + good,
          good + "x", with_nul, with_garbage, std::string(R"({"model": "\ud800"})"), std::string("\xff\xfe"),
          std::string(R"({"model": {"vocab": {"a": 1, "a": 2}}})"),
          std::string(R"({"model": 1, "model": 2})")}) {
        EXPECT_NE(error_of_text(text), "") << text.substr(0, 40);
    }
    EXPECT_NE(error_of_text(R"({"model": {"vocab": {"a": 1, "a": 2}}})").find("the key 'a' occurs twice"),
              std::string::npos);
    EXPECT_NE(error_of_text(std::string(200000, '[')).find("nested too deep"), std::string::npos);
}

TEST(TokenizerJson, ACatastrophicPatternIsNamed) {
    Json document = style("llama3");
    document["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"Regex", "(?:a+)+[bc]"}};
    const auto tokenizer = tokenizer_of(document);
    EXPECT_FALSE(tokenizer->encode("aab").empty());
    const std::string error = user_error_of([&] { (void)tokenizer->encode(std::string(100000, 'a')); });
    EXPECT_NE(error.find("pretokenizers[0].pattern.Regex: the regular expression gave up"), std::string::npos)
        << error;
}

TEST(TokenizerJson, LongWordsOfEveryStyle) {
    for (const char* name : {"gpt2", "llama3", "qwen", "neox", "stages"}) {
        const auto tokenizer = tokenizer_of(style(name));
        for (const char* unit : {"a", " ", "\n", "\xff", "1", "\u0301"}) {
            std::string text;
            while (text.size() < (1u << 18)) text += unit;
            EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << name << ' ' << unit;
        }
    }
}

}  // namespace
}  // namespace moesaic
