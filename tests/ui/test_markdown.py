import pytest
from markdown_it import MarkdownIt

from ui.markdown import MAX_CHARS, blocks, literal, marked, safe

FENCED = "Run this:\n\n```bash\necho $HOME ![x](http://evil/x.png)\n```\n\nthen that."


def test_fenced_code_is_kept_apart_with_its_language_and_untouched():
    first, code, last = blocks(FENCED)
    assert (first.language, last.language) == (None, None)
    assert (code.language, code.text) == ("bash", "echo $HOME ![x](http://evil/x.png)")


@pytest.mark.parametrize("fence", ["~~~", "````"])
def test_other_fences_and_missing_languages_are_code(fence):
    assert blocks(f"{fence}\nx\n{fence}") == [("x", "")]


def test_a_fence_that_never_closes_is_code_to_the_end():
    assert [block.language for block in blocks("text\n```python\nx = 1")] == [None, "python"]


@pytest.mark.parametrize(
    "hostile",
    [
        "![x](http://evil/x.png)",
        "![x][ref]\n\n[ref]: http://evil/x.png",
        "\\` ![x](http://evil/x.png) `",
        "`a` ![x](http://evil/x.png) `b`",
        "- ```\n  ![x](http://evil/x.png)\n",
        "[![x](http://evil/x.png)](http://evil)",
        "> ![x](http://evil/x.png)",
        "`` ` ![x](http://evil/x.png)",
    ],
)
def test_no_image_survives(hostile):
    for block in blocks(hostile):
        if block.language is None:
            assert "<img" not in MarkdownIt("commonmark").render(block.text)


def test_dollars_and_directives_are_taken_literally_outside_code():
    assert safe("costs $5 and $6, :red[x] :material/home: `$HOME :x:`") == (
        "costs \\$5 and \\$6, \\:red[x] :\u2060material/home: `$HOME :x:`"
    )


def test_headings_do_not_shout():
    assert safe("# Title\ntext") == "##### Title\ntext"


def test_a_huge_answer_is_cut_and_says_so():
    parts = blocks("x" * 1_000_000)
    assert len(parts[0].text) == MAX_CHARS
    assert "1,000,000 characters" in parts[-1].text


def test_literal_text_shows_as_it_is():
    hostile = "<script>alert(1)</script> **bold** [a](b) `c` $x$ :red[d] ~~e~~ # f\n- g"
    shown = MarkdownIt("commonmark").renderInline(literal(hostile))
    for tag in ("<script", "<strong", "<a ", "<code", "<s>"):
        assert tag not in shown
    assert "**bold**" in shown


def links(text):
    parser = MarkdownIt("commonmark")
    parser.validateLink = lambda _: True
    children = [child for token in parser.parse(text) for child in token.children or ()]
    return [child.attrGet("href") for child in children if child.type == "link_open"]


@pytest.mark.parametrize(
    "hostile",
    [
        "[x](data:text/html,hello)",
        "[x](<javascript:alert 1>)",
        "[x](JavaScript:alert)",
        "[x](java&#115;cript:alert)",
        "[x](&#9;data:x)",
        "[x](&#1;javascript:x)",
        "[x](\n  vbscript:x)",
        "<data:text/html,hello>",
        "<javascript:alert>",
        "\\` [x](data:x) `",
        "`a\n b` [x](data:x) `c",
        "- [x](file:///etc/passwd)",
    ],
)
def test_a_link_of_another_scheme_is_no_link(hostile):
    assert links(hostile)
    assert links(safe(hostile)) == []


@pytest.mark.parametrize("link", ["https://a.b/c", "http://a.b", "mailto:a@b.c", "docs/a.md", "#part:1", "?a=b:c"])
def test_other_links_stay(link):
    assert links(safe(f"[x]({link})")) == [link]


def test_code_that_looks_like_a_link_stays_as_it_is():
    assert safe("`[x](data:a)`") == "`[x](data:a)`"


def test_a_fence_in_the_middle_of_a_line_is_code_and_what_follows_is_not():
    text = "Use live regions. Example: ```prolog\nregion(alerts).\n```\nTest it with a *reader*."
    assert blocks(text) == [
        ("Use live regions. Example:", None),
        ("region(alerts).", "prolog"),
        ("Test it with a *reader*.", None),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "records (```bash markers):\n- x",
        "Use ```a``` here.\n\n```\nx\n```",
        "It starts with ```bash\nand never ends",
        "X: ```py\n```bash\nb\n```",
    ],
)
def test_a_fence_that_is_part_of_a_sentence_stays_one(text):
    assert blocks(text)[0].text == safe(text.split("\n```")[0].strip())


def test_a_late_fence_inside_of_code_is_code():
    assert blocks("```\na ```x\nb\n```") == [("a ```x\nb", "")]


HOSTILE_SCHEMES = [
    "[x](data:text/html,<script>)",
    "[x](DATA:text/html;base64,PHN2Zz4=)",
    "[x](javascript:alert(1))",
    "[x](java&#115;cript:alert(1))",
    "[x](<java\tscript:alert(1)>)",
    "[x](< javascript:alert(1)>)",
    "[x](\njavascript:alert(1))",
    "[x](vbscript:x 'title')",
    "[x](file:///etc/passwd)",
    "[x](blob:http://a/b)",
    "[x](ms-settings:privacy)",
    "[a [b] `c`](ftp://a/b)",
    "<data:text/html,x>",
    "<javascript:alert(1)>",
    "[x][ref]\n\n[ref]: data:text/html,x",
]


def links_of(text):
    """Every address that a browser would be given, whatever its scheme."""
    parser = MarkdownIt("commonmark")
    parser.validateLink = lambda _: True
    return [
        child.attrs["href"]
        for token in parser.parse(text)
        for child in token.children or ()
        if child.type == "link_open"
    ]


@pytest.mark.parametrize("hostile", HOSTILE_SCHEMES)
def test_only_http_https_and_mailto_are_links(hostile):
    assert links_of(safe(hostile)) == []


def test_links_that_are_allowed_stay_links_and_say_where_they_lead():
    text = "[a](https://a.example/x) [b](HTTP://b.example) [c](mailto:c@d.example) [d](docs/x.md) <https://e.example>"
    shown = safe(f"{text} and [x](data:text/html,y) stays")
    assert links_of(shown) == [
        "https://a.example/x", "HTTP://b.example", "mailto:c@d.example", "docs/x.md", "https://e.example"
    ]  # fmt: skip
    assert "(a\\.example)" in shown


@pytest.mark.parametrize(
    "text",
    [
        "Run this: ```bash\necho 1\n```\nThen read on.",
        "Run this:\n```bash\necho 1 ```\nThen read on.",
        "Run this:\n```bash\necho 1\n``` Then read on.",
        "Run this: ````bash\necho 1\n````\nThen read on.",
    ],
)
def test_a_code_fence_in_a_line_of_text_is_mended(text):
    assert blocks(text) == [("Run this:", None), ("echo 1", "bash"), ("Then read on.", None)]


@pytest.mark.parametrize(
    "text",
    [
        "Records marked with ```bash are run.",
        "**Bash** (```bash markers):\n- one\n\n**Prolog** (```prolog markers):\n- two",
        "A fence begins with ```\nas here:\n```bash\necho 1\n```",
        "Use ```x``` or\n```bash\necho 1\n```\nthen.",
        "````md\nRun this: ```bash\nx\n```\n````",
        "```sh\ncat <<E\na ``` b\nE\n```\nafter",
        "- ```bash\n  echo 1\n  ```\n- two",
        "~~~\na: ```bash\n~~~\nafter",
    ],
)
def test_a_mention_of_a_fence_stays_where_it_is(text):
    code = MarkdownIt("commonmark").parse(text)
    assert [one.text for one in blocks(text) if one.language is not None] == [
        token.content.rstrip("\n") for token in code if token.type == "fence" and token.level == 0
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Read a file", ":yellow-background[Read] a :yellow-background[file]"),
        ("reading files", ":yellow-background[reading] :yellow-background[files]"),
        ("profile, readme", "profile, readme"),
        ("`read` and ``a ` file``", "`read` and ``a ` file``"),
        ("[read](https://read.example/file) <https://file.example>", None),
        ("see https://x.example/read/file now", None),
        (r"my\_file", r"my\_file"),
    ],
)
def test_words_are_marked_but_not_in_code_and_addresses(text, expected):
    assert marked(text, ("read", "file")) == (text if expected is None else expected)
    assert marked(text, ()) == text


def test_a_marked_word_is_no_pattern():
    assert marked("c++ (x)", ("c++", "(")) in {":yellow-background[c++] (x)", "c++ (x)"}
