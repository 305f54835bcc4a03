"""Short texts on which tokenizers go wrong, as bytes. Those in ILL_FORMED are no UTF-8."""

VALID = [text.encode() for text in [
    "", " ", "  ", "a", "Hello, world!", "Hello  world", "   leading", "trailing   ", "\t\ttabs\tand spaces ",
    "line\r\nCRLF\r\n\r\nend\r", "\n", "\n\n\n", " \n \n ", "a\n\n\nb", "a   \n   b", "a \t \n\t b", "x\n ", "\u000b\u000c\x1c\x1d\x1e\x1f",
    "it's we're I've he'd she'll I'm can't", "IT'S WE'RE I'VE HE'D SHE'LL I'M CAN'T", "'s 'S 'T ''s 'ſ 'Ś s's''", "don’t l‘a",
    "1 12 123 1234 12345 123456", "3.14159 1,000,000 0x1f", "²½Ⅷ ٣٤ ๓ 一二三 ①⑳", "x²y₃", "v1.2.3-rc4", "100%!!! ??? ... ---",
    "<|endoftext|>", "a<|endoftext|>b", "<|endoftext|", "< |endoftext|>", "<|im_start|>user\nhi<|im_end|>\n", "<|begin_of_text|>x<|end_of_text|>",
    "x <mask> y", "x<mask>y", "  <mask>  ", "<mask><mask>", "x <right> y", "x\u3000<mask>\u00a0y", "<right>  <mask>", "<tool_call>{}</tool_call>",
    "a          b", "def f():\n        return 1\n", " " * 23, " " * 24, " " * 25, " " * 60 + "x", "\t" * 9,
    "naïve café", "nai\u0308ve cafe\u0301", "a\u0301\u0302\u0303\u0304", "\u0301start", "A\u030a Å \u212b", "ẛ̣ q\u0323\u0307 q\u0307\u0323", "ﬁ ﬃ ſt ℌ ①", "각 \u1100\u1161\u11a8 가\u11a8",
    "สวัสดีครับ ภาษาไทย", "مرحبا بالعالم العَرَبِيَّة ١٢٣", "שלום עולם", "नमस्ते दुनिया क्षत्रिय", "你好，世界！今天是2024年。", "こんにちは世界カタカナ", "안녕하세요 세계", "Здравствуй, мир! Ёжик", "Γειά σου Κόσμε", "Ünïcödé İstanbul ıi ß ẞ",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ 🏳️‍🌈", "😀😀😀", "𝒳𝓎 𐍈 𠜎 \U000e0041", "\ufeffBOM at the front", "in\ufeffside", "zero\u200bwidth\u200c\u200djoin", "soft\u00adhyphen",
    "nel\u0085x", "a\u00a0b \u00a0 c", "a\u3000b\u3000\u3000c", "a\u1680b\u2003c\u2028d\u2029e\u202ff\u205fg", "mongolian\u180evowel", "a \u180e b", "\u180e\u180e x", "word\u2060joiner",
    "nul\x00in\x00side", "\x00", "\x00\x00 \x00", "\x01\x02\x7f\x80", "\ufffd \ufffe \uffff", "\ue000\U0010ffff", "€ £ ¥ ¢ © ® ™", "“quoted” ‘text’ — – …",
    "http://example.com/a?b=c&d=%20#e", "e-mail: a.b+c@d.org", "snake_case camelCase ALLCAPS", "日本語とEnglishの混在123", "a_b__c___d", "$x^2 + y_1 \\leq \\frac{1}{2}$", "|- ( ph -> ps ) $.", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ĠĊÄł", "Ġ", "\u0100\u0143\u0144",
]]

ILL_FORMED = [
    b"\x80", b"\xbf\xbf\xbf", b"a\x80b", b"lone \xe4 lead", b"\xe4\xbd", b"\xe4\xbd\xe4\xbd\xa0", b"cut \xf0\x9f\x98", b"over\xc0\xaflong", b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf", b"sur\xed\xa0\x80rogate", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf4\x90\x80\x80 beyond", b"\xf5\xf8\xfc\xfe\xff", b"x \xff y", b" \xff \xff  \xfe",
    b"it\xff's", b"\x00\xff\x00", "好".encode() + b"\xe5\xa5" + "好".encode(), b"\xff\n\xff\r\n", b"  \xc3(  ", b"\xff" * 40, bytes(range(256)), bytes(range(255, -1, -1)),
]
