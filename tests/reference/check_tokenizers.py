#!/usr/bin/env python3
"""Compares Moesaic's token ids with two independent tokenizers, and keeps the golden ids that the C++ tests read.

    check_tokenizers.py build/release/encode_file            compare; exit 3 where an id differs
    check_tokenizers.py build/release/encode_file --update   and write tokenizers/golden.json from the *independent* ids
    check_tokenizers.py --train                              make the small tokenizer.json files anew

Independent are tiktoken (for GPT-2's merges) and Hugging Face's tokenizers (for all). See README.md for the packages.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import tiktoken
import tokenizers
import xxhash
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from nasty_strings import ILL_FORMED, VALID

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FOLDER = HERE / "tokenizers"
GPT2 = ROOT / "configs/data/gpt2-vocab.bpe"
QUAD = sorted((ROOT / "configs/data/quad").glob("*.txt"))

GPT2_SPLIT = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_SPLIT = LLAMA3_SPLIT.replace("{1,3}", "")


def byte_symbols():
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    others = [b for b in range(256) if b not in printable]
    return printable + others, {**{chr(b): b for b in printable}, **{chr(256 + i): b for i, b in enumerate(others)}}


def read_merges(path):
    return [tuple(line.split(" ")) for line in path.read_text(encoding="utf-8").split("\n")[1:-1]]


def gpt2_of_tiktoken():
    order, byte_of = byte_symbols()
    ranks = {bytes([b]): i for i, b in enumerate(order)}
    for pair in read_merges(GPT2):
        ranks[bytes(byte_of[c] for c in "".join(pair))] = len(ranks)
    return tiktoken.Encoding("gpt2", pat_str=GPT2_SPLIT, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": len(ranks)})


def gpt2_of_hugging_face():
    order, byte_of = byte_symbols()
    symbol_of = {b: c for c, b in byte_of.items()}
    merges = read_merges(GPT2)
    vocab = {symbol_of[b]: i for i, b in enumerate(order)}
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def fragments(data):
    """The documented rule for bytes that are no UTF-8: (bytes, well-formed?) in turn, each as long as possible."""
    parts, at = [], 0
    while at < len(data):
        length = 0
        for candidate in (1, 2, 3, 4):
            try:
                if len(data[at:at + candidate].decode()) == 1:
                    length = candidate
                    break
            except UnicodeDecodeError:
                pass
        if not parts or parts[-1][1] != (length > 0):
            parts.append((b"", length > 0))
        parts[-1] = (parts[-1][0] + data[at:at + max(length, 1)], length > 0)
        at += max(length, 1)
    return parts


def ids_of_tiktoken(encoding, data):
    ids = []
    for part, valid in fragments(data):
        ids += encoding.encode_ordinary(part.decode()) if valid else encoding._core_bpe.encode_single_piece(part)
    return ids


def ids_of_moesaic(program, tokenizer, texts):
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, text in enumerate(texts):
            paths.append(Path(folder) / str(i))
            paths[-1].write_bytes(text)
        output = subprocess.run([program, str(tokenizer), *map(str, paths)], check=True, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL).stdout
    numbers = memoryview(output).cast("i")
    ids, at = [], 0
    for _ in texts:
        count = numbers[at]
        ids.append(list(numbers[at + 1:at + 1 + count]))
        at += 1 + count
    return ids


def hash_of(ids):
    return xxhash.xxh64(b"".join(i.to_bytes(4, "little") for i in ids)).hexdigest()


def train():
    texts = [path.read_text(encoding="utf-8") for path in QUAD] + [b"\n".join(VALID).decode()] * 40
    def trained(pre_tokenizer, specials, normalizer=None, size=700):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = decoders.ByteLevel()
        if normalizer:
            tokenizer.normalizer = normalizer
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=specials, show_progress=False,
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer
    def split(pattern):
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    def save(name, tokenizer, edit=None):
        document = json.loads(tokenizer.to_str())
        if edit:
            edit(document)
        (FOLDER / name).write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
        Tokenizer.from_file(str(FOLDER / name))

    def old_form(document):  # as files were before 2024: merges as text, no model type, no use_regex
        model = document["model"]
        model["merges"] = [" ".join(pair) for pair in model["merges"]]
        del model["type"], model["ignore_merges"], model["byte_fallback"], document["pre_tokenizer"]["use_regex"]
    gpt2 = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>"])
    save("gpt2_style.json", gpt2, old_form)

    roberta = trained(pre_tokenizers.ByteLevel(add_prefix_space=True), ["<s>", "</s>"])
    roberta.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    roberta.add_tokens([AddedToken("<right>", rstrip=True, normalized=True)])
    save("prefix_space_style.json", roberta)

    def holes(document):  # tokens that no merge makes: only ignore_merges reaches them
        model = document["model"]
        model["ignore_merges"] = True
        model["merges"] = [merge for i, merge in enumerate(model["merges"]) if i % 7 != 6]
    llama3 = trained(split(LLAMA3_SPLIT), [])
    llama3.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    save("llama3_style.json", llama3, holes)

    qwen = trained(split(QWEN_SPLIT), [], normalizers.NFC())
    qwen.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    qwen.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False),
                     AddedToken("cafe\u0301", normalized=True)])
    save("qwen_style.json", qwen)

    neox = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), ["<|endoftext|>", "<|padding|>"], normalizers.NFC())
    neox.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    save("neox_style.json", neox)

    deepseek = trained(pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"), pre_tokenizers.Split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
        pre_tokenizers.Split("://", "isolated"), pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)]), ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"])
    save("stages_style.json", deepseek)


def compare(what, ours, theirs, texts):
    wrong = [i for i in range(len(texts)) if ours[i] != theirs[i]]
    print(f"{what}: {len(texts) - len(wrong)} of {len(texts)} texts the same, {sum(map(len, theirs))} ids")
    for i in wrong[:10]:
        print(f"  {texts[i][:80]!r}\n    ours   {ours[i][:30]}\n    theirs {theirs[i][:30]}")
    return not wrong


def compare_characters(program, encoding):
    """Every code point among letters, digits and spaces, by GPT-2's pattern. Differences are of Unicode versions."""
    points = [c for c in range(0x110000) if not 0xd800 <= c < 0xe000]
    block = 4096
    different = []
    for first in range(0, len(points), block):
        texts = [f"x{chr(c)}{chr(c)}y {chr(c)}1 {chr(c)} ".encode() for c in points[first:first + block]]
        ours = ids_of_moesaic(program, GPT2, texts)
        theirs = encoding.encode_ordinary_batch([text.decode() for text in texts])
        different += [points[first + i] for i in range(len(texts)) if ours[i] != theirs[i]]
    print(f"characters: {len(points) - len(different)} of {len(points)} the same as tiktoken's; others: "
          f"{' '.join(f'U+{c:04X}' for c in different[:20])}{' ...' if len(different) > 20 else ''}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", nargs="?", help="build/release/encode_file")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--characters", action="store_true", help="every code point of Unicode (minutes)")
    options = parser.parse_args()
    if options.train:
        train()
    if not options.program:
        return 0
    print(f"tiktoken {tiktoken.__version__}, tokenizers {tokenizers.__version__}")
    quad = [path.read_bytes() for path in QUAD]
    golden = {"strings": [text.hex() for text in VALID + ILL_FORMED], "well_formed": len(VALID), "tokenizers": {}}
    right = True

    def check(name, path, encode, strings):
        nonlocal right
        texts = quad + strings
        theirs = [encode(text) for text in texts]
        right &= compare(name, ids_of_moesaic(options.program, path, texts), theirs, texts)
        golden["tokenizers"][str(path.relative_to(ROOT))] = {
            "quad": {file.name: {"tokens": len(ids), "xxh64": hash_of(ids)} for file, ids in zip(QUAD, theirs)},
            "ids": theirs[len(quad):]}

    hugging_face = gpt2_of_hugging_face()
    texts = quad + VALID
    right &= compare("gpt2-vocab.bpe, tokenizers", ids_of_moesaic(options.program, GPT2, texts),
                     [hugging_face.encode(text.decode()).ids for text in texts], texts)
    encoding = gpt2_of_tiktoken()
    check("gpt2-vocab.bpe, tiktoken", GPT2, lambda text: ids_of_tiktoken(encoding, text), VALID + ILL_FORMED)
    for path in sorted(FOLDER.glob("*_style.json")):
        tokenizer = Tokenizer.from_file(str(path))
        check(f"{path.name}, tokenizers", path, lambda text: tokenizer.encode(text.decode(), add_special_tokens=False).ids, VALID)
    if options.characters:
        compare_characters(options.program, encoding)
    if options.update:
        (FOLDER / "golden.json").write_text(json.dumps(golden, separators=(",", ":")).replace('"configs/', '\n"configs/')
                                            .replace('"tests/', '\n"tests/').replace('"ids":', '\n"ids":') + "\n")
    return 0 if right else 3


if __name__ == "__main__":
    sys.exit(main())
