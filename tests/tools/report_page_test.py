#!/usr/bin/env python3
"""The report's page in a real browser: report_page_test.py PROGRAM

No message on the console, no request, every number equal to report.json, hostile texts stay text, two sheets of paper.
Each of these is seen to fail on a page that deserves it. Returns 77, with the reason, where there is no chromium.
"""
import html.parser
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading

PAYLOADS = [
    "<script>console.error('pwned')</script>", "\"><img src=x onerror=console.error('pwned')>",
    "' onmouseover='console.error(1)", "</title><svg/onload=console.error('pwned')>", "</script><script>console.error(2)</script>",
    "<!--", "-->", "]]>", "<![CDATA[", "&lt;script&gt;console.error(3)&lt;/script&gt;", "javascript:console.error(4)",
    "</table></main></body>", "<a href=javascript:console.error(5)>", "</style><script>console.error(6)</script>",
    "{{7*7}}${7*7}", "<iframe src=http://evil.example/>", "<link rel=stylesheet href=http://evil.example/x.css>",
    "<img src=http://evil.example/x.png>", "<math><mi//xlink:href='data:x,<script>1</script>'>", "<base href=http://evil.example/>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>", "<form action=http://evil.example/><input autofocus onfocus=console.error(7)>",
    "<details open ontoggle=console.error(8)>", "<svg><animate onbegin=console.error(9) attributeName=x dur=1s>",
    "</svg><script>console.error(10)</script>", "<textarea>", "<plaintext>", "<noscript><p title='</noscript><img src=x onerror=console.error(11)>'>",
    "%3Cscript%3Econsole.error(12)%3C/script%3E", "\u2028\u202e<b>\u0000\u001b[2J", "`-console.error(13)-`",
]
FORBIDDEN = {"script", "img", "iframe", "link", "a", "base", "form", "input", "math", "animate", "textarea", "plaintext",
             "noscript", "object", "embed", "video", "audio", "foreignobject"}


def ledger(say, end="budget"):
    """A run of two attempts, the first of which died; `say` gives the text of each field."""
    seconds = lambda compute: {"startup": 30, "compute": compute, "evaluation": 60, "checkpoint": 12.5}
    progress = lambda step, compute: {"step": step, "tokens": 2048 * step, "phase": say("pretrain"), "seconds": seconds(compute),
                                      "flops": {"fp8": 1e12 * step, "bf16": 3e11 * step}, "loss": 4 - step / 1000, "clipped": 7}
    clock = lambda attempt, mono: {"attempt": attempt, "mono": mono, "wall": 1.8e9 + mono}
    start = {"kind": "attempt", "run": say("run"), "project": say("project"), "ranks": 4, "host": say("host"), "pid": 1,
             "recipe": say("hash"), "build": say("build"), "variants": {say("gemm"): say("avx2")}, "from_step": 0, "from_tokens": 0,
             "cap_gpu_hours": 1.25, "cap_from": say("budget.usd"), "job_hours": None, "parameters": 8732160, "active_parameters": 3555328,
             "flops_per_token": 2e7, "age_seconds": 1,
             "hardware": {"name": say("h800"), "watts": 700, "peak": {"fp8": 2e10, "bf16": 1e10}, "achievable": {"fp8": 1.3e10},
                          "achievable_source": say("measured")},
             "price": {"usd_per_gpu_hour": 2, "source": say("seller"), "date": say("2026-11-21")}}
    check = lambda step, attempt, mono, compute: {"kind": "checkpoint", **clock(attempt, mono), **progress(step, compute),
                                                  "checkpoint": {"step": step, "tokens": 2048 * step, "name": say("step"), "bytes": 9, "took_seconds": 1}}
    evaluation = lambda step, attempt, mono, compute: {"kind": "evaluation", **clock(attempt, mono), **progress(step, compute),
                                                       "evaluation": {"step": step, "tokens": 5000, "loss": 3.5 - step / 1000, "bits_per_byte": 1.5,
                                                                      "took_seconds": 3, "sequences": 40, "all_sequences": 90}}
    return [{**start, **clock(1, 1)}, {"kind": "phase", **clock(1, 5), **progress(0, 0), "phase": say("pretrain")},
            check(100, 1, 400, 1100), evaluation(100, 1, 405, 1150), {"kind": "heartbeat", **clock(1, 500), **progress(150, 1600)},
            {**start, **clock(2, 900), "from_step": 100, "from_tokens": 204800},
            {"kind": "note", **clock(2, 950), "about": say("clipped"), "text": say("step 120 stood out")},
            check(300, 2, 1500, 2300), evaluation(300, 2, 1505, 2310),
            {"kind": "end", **clock(2, 1510), **progress(300, 2320), "reason": say(end), "exit_code": 0, "text": say("why")}]


def write_run(folder, say, end="budget"):
    os.makedirs(folder)
    with open(os.path.join(folder, "ledger.jsonl"), "w") as file:
        for line in ledger(say, end):
            file.write(json.dumps({"schema": "shoestring.ledger/1", **line}) + "\n")
    with open(os.path.join(folder, "metrics.jsonl"), "w") as file:
        for step in range(1, 301):
            file.write(json.dumps({"step": step, "phase": say("pretrain"), "tokens": 2048 * step, "loss": 4 - step / 1000, "gradient_norm": 1.5,
                                   "learning_rate": 1e-3 * min(1, step / 50), "expert_overload": 1 + 1 / step,
                                   "quantisation": {"underflowed.gradient": 1e-4, say("saturated.weight"): 1e-5},
                                   "timing": {"gpu_hours": 1.15 * step / 300, "usd": 2.4 * step / 300, "tokens_per_second": 5000 + step}}) + "\n")
    with open(os.path.join(folder, "plan.json"), "w") as file:
        json.dump({"gpu_hours": 1.3, "usd": 2.6, "tokens": 600000, "steps": 310,
                   "phases": [{"name": say("pretrain"), "gpu_hours": 1, "tokens": 5}, {"name": say("other"), "gpu_hours": 1, "tokens": 5}]}, file)
    with open(os.path.join(folder, "recipe.recipe"), "w") as file:
        file.write("[run]\nname = small\n[model]\nlayers = 4\n# " + say("recipe").replace("\n", " ") + "\n")


class Page(html.parser.HTMLParser):
    """What a browser made of a page: tags, numbers, texts and the texts with digits that are nobody's."""
    VOID = {"meta", "br", "hr", "img", "link", "input", "base"}

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.numbers, self.said, self.loose, self.handlers = [], {}, [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.handlers += [key for key in attributes if key.startswith("on") or key in ("href", "src", "style")]
        if tag not in self.VOID:
            self.stack.append((tag, attributes))
        if tag == "data":
            self.numbers.append([attributes.get("data-at"), attributes.get("value"), ""])
        if "said" in (attributes.get("class") or ""):
            self.said.append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop()[0] != tag:
            pass

    def handle_data(self, text):
        inside = [tag for tag, _ in self.stack]
        in_said = any("said" in (attributes.get("class") or "") for _, attributes in self.stack)
        if in_said:
            self.said[-1] += text
        elif "data" in inside:
            self.numbers[-1][2] += text
        elif "main" in inside and "svg" not in inside and re.search(r"\d", text):
            self.loose.append(text)


class Network:
    """All of it: every host of http is this server, which keeps what it is asked for."""

    def __init__(self):
        asked = self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.headers.get("Host", "") + self.path)
                self.send_error(404)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Browser:
    def __init__(self, path, folder):
        self.network = Network()
        self.base = [path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
                     "--disable-component-update", "--disable-features=NetworkTimeServiceQuerying", "--disable-dev-shm-usage", "--user-data-dir=" + os.path.join(folder, "profile"),
                     f"--host-resolver-rules=MAP * 127.0.0.1:{self.network.server.server_port}", "--enable-logging=stderr", "--v=0"]

    def open(self, file):
        """The page as the browser made it, what stands on its console, what it asked for."""
        self.network.asked.clear()
        done = subprocess.run(self.base + ["--dump-dom", "file://" + file], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=120)
        console = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
        return done.stdout.decode(errors="replace"), console, list(self.network.asked)

    def sheets(self, file, out):
        subprocess.run(self.base + ["--no-pdf-header-footer", "--print-to-pdf=" + out, "file://" + file], stderr=subprocess.DEVNULL,
                       timeout=120, check=True)
        with open(out, "rb") as pdf:
            return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf.read()))


failures = []


def expect(holds, text):
    if not holds:
        failures.append(text)
        print("FAILED:", text)


def value_at(document, pointer):
    for key in pointer.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


def reads_as(text, value):
    """Whether `text` is `value`, rounded to the digits that it shows."""
    found = re.fullmatch(r"([+-]?)\$?(-?[\d.]+(?:e[+-]?\d+)?)([KMBTP]?)(%?)", text.replace("\u202f", ""))
    if not found:
        return False
    scale = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "P": 1e15}[found[3]] * (0.01 if found[4] else 1)
    mantissa, _, power = found[2].partition("e")
    unit = 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2])) * scale
    shown = float(found[2]) * scale * (-1 if found[1] == "-" else 1)
    return abs(shown - value) <= 0.5001 * unit + 1e-12 * abs(value) or (unit == scale and abs(shown - value) <= 0.0005 * abs(value))


def check_numbers(page, document, name):
    expect(len(page.numbers) > 300, f"{name}: only {len(page.numbers)} numbers")
    for pointer, value, text in page.numbers:
        try:
            there = value_at(document, pointer)
        except (KeyError, IndexError, TypeError, ValueError):
            there = None
        expect(there is not None and float(value) == float(there), f"{name}: {pointer} is {value} on the page, {there} in the document")
        expect(there is not None and reads_as(text, float(there)), f"{name}: {pointer} is written as {text}, it is {there}")
    expect(not page.loose, f"{name}: numbers without a place in the document: {page.loose[:5]}")


def main():
    program = os.path.abspath(sys.argv[1])
    chromium = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
    if chromium is None:
        print("skipped: no chromium here; apt-get install chromium")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(chromium, folder)
        report = lambda *words: subprocess.run([program, "report", *words], stdout=subprocess.DEVNULL, check=True)

        # The browser's watchers see what they are to see.
        bait = os.path.join(folder, "bait.html")
        with open(bait, "w") as file:
            file.write("<body><img src=http://evil.example/x.png><script>console.error('here')</script>")
        _, console, asked = browser.open(bait)
        expect(console, "the console is not heard")
        expect(asked, "requests are not seen")
        expect(not reads_as("0.05", 0.0561) and not reads_as("12.3%", 0.124) and reads_as("2664K", 2664e3), "rounding is not judged")

        # A usual run, compared with another.
        run, other = os.path.join(folder, "run"), os.path.join(folder, "other")
        write_run(run, lambda text: text)
        write_run(other, lambda text: text, "done")
        report(run)
        page_file = os.path.join(run, "report.html")
        expect(browser.sheets(page_file, os.path.join(folder, "page.pdf")) == 2, "the page does not print on two sheets")
        report("--compare", run, other)
        dom, console, asked = browser.open(page_file)
        expect(not console, f"the console says {console}")
        expect(not asked, f"the page asked for {asked}")
        page = Page(dom)
        expect(not set(page.tags) & FORBIDDEN and not page.handlers, f"the page holds {page.tags} {page.handlers}")
        with open(os.path.join(run, "report.json")) as file:
            check_numbers(page, json.load(file), "run")
        for tag in ("h1", "h2", "caption", "svg", "details", "title"):
            expect(page.tags.get(tag), f"the page has no {tag}")
        for chart in re.findall(r"<svg class=\"(?:chart|bar)[^>]*>", dom):
            expect("aria-label=" in chart, f"a chart without words: {chart}")
        with open(page_file) as file:
            expect("style-src 'sha256-" in file.read(), "the policy admits any style")

        # Hostile texts: all pages in one document without the policy, so that the escaping stands alone.
        pages, alone = "", None
        for number, payload in enumerate(["plain"] + PAYLOADS):
            hostile = os.path.join(folder, f"hostile{number}")
            write_run(hostile, lambda text: payload)
            report("--compare", hostile, hostile)
            with open(os.path.join(hostile, "report.html"), errors="surrogateescape") as file:
                body = re.search(r"<main>.*</main>", file.read(), re.S)[0]
            if alone is None:
                alone = Page(body).tags
            else:
                pages += body
            with open(os.path.join(hostile, "report.json")) as file:
                json.load(file)
        combined = os.path.join(folder, "combined.html")
        with open(combined, "w", errors="surrogateescape") as file:
            file.write("<!DOCTYPE html><meta charset=utf-8><title>combined</title><body>" + pages)
        dom, console, asked = browser.open(combined)
        expect(not console, f"a payload spoke: {console[:3]}")
        expect(not asked, f"a payload asked for {asked[:3]}")
        page = Page(dom)
        expect(not set(page.tags) & FORBIDDEN and not page.handlers, f"payloads became {set(page.tags) & FORBIDDEN} {page.handlers[:5]}")
        for tag, count in alone.items():
            wanted = count * len(PAYLOADS) + (tag == "title")  # the document has one of its own
            expect(page.tags.get(tag) == wanted, f"{page.tags.get(tag)} {tag}, not {wanted}")
        squeezed = {re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip() for text in page.said}
        for payload in PAYLOADS:
            text = re.sub(r"[\s\x00-\x1f\x7f]+", " ", payload).strip()
            expect(any(text[:60] in seen for seen in squeezed), f"the page does not show {payload!r}")

        # A folder of runs.
        report("--all", folder)
        dom, console, asked = browser.open(os.path.join(folder, "report.html"))
        expect(not console and not asked, f"the folder's page: {console} {asked}")
        with open(os.path.join(folder, "report.json")) as file:
            check_numbers(Page(dom), json.load(file), "folder")
    print("failed" if failures else "passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
