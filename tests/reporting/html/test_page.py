"""The page of a comparison: its numbers, that it needs nothing else, and how a browser shows it."""

import csv
import html.parser
import io
import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from semanticfl_jax.files import write_json
from semanticfl_jax.reporting import tables
from semanticfl_jax.reporting.comparison import Comparison
from semanticfl_jax.reporting.html.page import page, write_page
from tests.reporting.made_up import ACCURACIES, MSE, made_up_config, write_run

NODE = shutil.which("node")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class Reader(html.parser.HTMLParser):
    """Tables as lists of rows of texts, by section; tags in order; what is not closed."""

    VOID = ("meta", "img", "link", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.tables, self.tags, self.attributes, self.open, self._section = {}, [], [], [], ""
        self._cell = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = dict(attrs)["id"]
        elif tag == "table":
            self.tables.setdefault(self._section, []).append([])
        elif tag == "tr":
            self.tables[self._section][-1].append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.tables[self._section][-1][-1].append(self._cell)
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data


def rows_of(reader, section, number=0):
    """Rows of a table as {first cell: {head: text}}."""
    head, *rows = reader.tables[section][number]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


@pytest.fixture
def full_runs(tmp_path):
    """Two methods with three seeds that know classes, clients, calibration, privacy."""
    rng = np.random.default_rng(0)
    directories = []
    for (name, seed), values in ACCURACIES.items():
        directory = write_run(tmp_path / f"{name}-{seed}", made_up_config(name, seed), values)
        rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            row |= {"train_loss": 1.0, "test_loss": 0.4, "ece": 0.1}
            row |= {"worst_class_accuracy": 0.2, "worst_decile_accuracy": 0.1}
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (directory / "metrics.jsonl").write_text(text)
        summary = json.loads((directory / "summary.json").read_text())
        summary |= {
            "class_accuracy": {"cat": 0.25, "dog": 0.5 + seed / 10, "<b>": None},
            "client_accuracy": rng.permutation([0.1, 0.4, 0.7]).tolist(),
            "worst_decile_accuracy": 0.1,
            "client_accuracy_variance": 0.04,
            "worst_class_accuracy": 0.25,
            "ece": 0.125,
            "privacy": {
                "epsilon": 7.5,
                "delta": 1e-5,
                "seen": [{"who": "server", "what": "updates", "guarantee": "none: <trusted>"}],
            },
            "partition": {"clients": 3, "sizes": {"min": 5}},
        }
        write_json(directory / "summary.json", summary)
        directories.append(directory)
    return directories


def test_gains_and_their_tests_are_scipys(full_runs):
    reader = Reader(page(Comparison.load(full_runs)))
    own, base = (
        np.array([np.mean(ACCURACIES[name, seed]) for seed in range(3)])
        for name in ("semanticfl", "fedavg")
    )
    row = rows_of(reader, "results")["semanticfl"]
    gains = 100 * (own - base)
    test = scipy.stats.ttest_rel(own, base)
    low, high = 100 * np.array(test.confidence_interval(0.95))
    assert row["Gain"] == f"{gains.mean():+.2f} ± {gains.std(ddof=1):.2f}"
    assert row["95 % interval"] == f"{low:+.2f} to {high:+.2f}"
    assert row["p"] == f"{test.pvalue:.3f}" and row["p (signs)"] == "0.250"
    assert rows_of(reader, "results")["fedavg"]["p"] == ""
    assert "p (Holm)" not in row  # there is one comparison


def test_every_section_shows_what_the_runs_know(full_runs):
    text = page(Comparison.load(full_runs))
    reader = Reader(text)
    assert not reader.open
    dog = rows_of(reader, "classes")["dog"]
    assert dog == {"Class": "dog", "fedavg": "60", "semanticfl": "60"}
    assert rows_of(reader, "classes")["<b>"]["fedavg"] == "–"
    # Clients are ranked in each seed before they are averaged.
    clients = rows_of(reader, "clients")["fedavg"]
    assert (clients["worst"], clients["50 %"], clients["best"]) == ("10", "40", "70")
    assert rows_of(reader, "fairness")["fedavg"]["Spread over clients"] == "20.00 ± 0.00"
    assert rows_of(reader, "calibration")["fedavg"]["ECE %"] == "12.50 ± 0.00"
    assert rows_of(reader, "partition")["0"]["sizes: min"] == "5"
    assert "privacy.epsilon" in text and "<dd>7.5</dd>" in text
    row = {"Who": "server", "Sees": "updates", "Guarantee": "none: <trusted>"}
    assert rows_of(reader, "privacy") == {"server": row} and "privacy.seen" not in text
    differing = rows_of(reader, "configuration")
    assert differing["algorithm.name"]["semanticfl"] == "semanticfl"
    assert len(rows_of(reader, "runs")) == 2 and len(reader.tables["runs"][0]) == 7
    traffic = rows_of(reader, "traffic")["semanticfl"]
    assert traffic["MB up"] == "1.00" and traffic["MB down"] == "3.00"
    # FedAvg's mean of the last 10 is 52.22 %: reached in rounds 2, 2 and 2.
    assert traffic["Rounds to 52.22 %"] == "2.0 ± 0.0" and traffic["MB to 52.22 %"] == "8.0 ± 0.0"


def test_personal_models_stand_beside_the_server_s(tmp_path, six_runs):
    for seed, directory in enumerate(six_runs[3:]):
        own = {"personal_client_accuracy": 0.7 + seed / 10, "personal_client_accuracy_std": 0.1}
        if seed == 0:
            own = {"personal_client_accuracy": None}  # it came to no number
        tested = {"global_client_accuracy": 0.5, "global_client_loss": 1.25, **own}
        summary = json.loads((directory / "summary.json").read_text())
        write_json(directory / "summary.json", summary | tested)
    comparison = Comparison.load(six_runs)
    reader = Reader(page(comparison))
    head, server, own = reader.tables["personal"][0]
    rows = [dict(zip(head, row, strict=True)) for row in (server, own)]
    assert [row["Method"] for row in rows] == ["semanticfl", "semanticfl"]
    assert [row["Model"] for row in rows] == ["server's", "clients' own"]
    assert (rows[0]["Mean %"], rows[0]["Loss"]) == ("50.00 ± 0.00", "1.250 ± 0.000")
    assert rows[1]["Mean %"] == "85.00 ± 7.07 (2 of 3)" and rows[1]["Loss"] == "–"
    assert "personal" not in Reader(page(Comparison.load(six_runs[:3]))).tables
    rows = list(csv.DictReader(io.StringIO(tables.by_seed(comparison))))
    found = [row["personal_client_accuracy"] for row in rows]
    assert found[:4] == [""] * 4 and [float(each) for each in found[4:]] == [0.7 + 0.1, 0.7 + 0.2]


def test_the_page_needs_no_other_file_and_no_network(full_runs):
    reader = Reader(page(Comparison.load(full_runs)))
    links = [value for name, value in reader.attributes if name in ("src", "href", "srcset")]
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert "link" not in reader.tags and "iframe" not in reader.tags
    text = page(Comparison.load(full_runs))
    assert not re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)


def test_names_cannot_become_markup(tmp_path):
    config = made_up_config('<script>alert("x")</script>')
    text = page(Comparison.load([write_run(tmp_path / "a", config)]))
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert Reader(text).tags.count("script") == 1


def test_another_metric_and_runs_that_know_little(tmp_path):
    directories = [
        write_run(tmp_path / f"{name}{seed}", made_up_config(name, seed), (3.0, 2.0 - seed), MSE)
        for name in ("fedavg", "moon")
        for seed in (0, 1)
    ]
    for directory in directories:
        write_json(
            directory / "config.json",
            {**json.loads((directory / "config.json").read_text()), "rounds": 2},
        )
    reader = Reader(page(Comparison.load(directories)))
    assert "classes" not in reader.tables and "fairness" not in reader.tables
    row = rows_of(reader, "results")["moon"]
    assert row["Last mse"] == "1.5 ± 0.7071" and row["Gain"] == "+0 ± 0"
    assert row["p"] == row["95 % interval"] == "–" and row["p (signs)"] == "1.000"


def test_the_mean_client_is_over_the_clients_of_each_seed(tmp_path):
    runs = [write_run(tmp_path / str(seed), made_up_config(seed=seed)) for seed in range(3)]
    known = ([0.0] + 9 * [1.0], [0.0, 1.0, None], None)
    for directory, accuracies in zip(runs, known, strict=True):
        summary = json.loads((directory / "summary.json").read_text())
        own = {"client_accuracy": accuracies, "worst_decile_accuracy": 0.0}
        write_json(directory / "summary.json", summary | own)
    row = rows_of(Reader(page(Comparison.load(runs))), "fairness")["fedavg"]
    assert row["Mean client %"] == f"70.00 ± {100 * np.std([0.9, 0.5], ddof=1):.2f} (2 of 3)"


def test_with_many_seeds_the_page_does_not_promise_a_test_that_it_leaves_out(tmp_path):
    runs = [
        write_run(tmp_path / f"{name}{seed}", made_up_config(name, seed), 3 * [0.5 + gain])
        for name, few in (("fedavg", 15), ("moon", 15), ("local", 7))
        for seed in range(few)
        for gain in [0.0 if name == "fedavg" else (seed % 4) / 100]
    ]
    text = page(Comparison.load(runs[:30]))
    assert rows_of(Reader(text), "results")["moon"]["p (signs)"] == "–"
    assert "With more than 14 seeds the sign-flip test is not computed." in text
    assert "can reach" not in text
    text = page(Comparison.load(runs))
    assert "not computed. With 7 seeds the sign-flip test can reach 0.016 at best." in text


def test_a_method_that_is_not_private_is_named_first(full_runs):
    summary = json.loads((full_runs[3] / "summary.json").read_text())
    summary |= {"private": False, "note": "NOT PRIVATE: made of clients' images"}
    write_json(full_runs[3] / "summary.json", summary)
    text = page(Comparison.load(full_runs))
    assert "Not private: semanticfl" in text.split("<nav")[0]
    assert "NOT PRIVATE: made of clients&#x27; images" in text


def browse(path, script, width):
    """What `script` returns in a page shown in a frame of a width, and the errors it met."""
    wrapper = path.with_name(f"frame{width}.html")
    probe = """<script>
    const errors = [];
    addEventListener("error", event => errors.push(event.message));
    addEventListener("securitypolicyviolation", event => errors.push(event.blockedURI));
    addEventListener("load", () => setTimeout(() => {
      const found = (() => { SCRIPT })();
      parent.postMessage(JSON.stringify([found, errors]), "*");
    }, 50));
    </script></head>""".replace("SCRIPT", script)
    inside = path.with_name(f"inside{width}.html")
    inside.write_text(path.read_text().replace("</head>", probe, 1))
    wrapper.write_text(
        f"<body><iframe src={inside.name} style='width:{width}px;height:900px;border:0'></iframe>"
        "<script>addEventListener('message', e => document.title = e.data)</script></body>"
    )
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={path.parent / 'profile'}",
            "--window-size=1400,1000",
            "--virtual-time-budget=4000",
            "--dump-dom",
            wrapper.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title, done.stdout[-500:] + done.stderr[-500:]
    return json.loads(html.unescape(title[1]))


SORTS = """
  const table = document.querySelector("#results table");
  const buttons = table.tHead.querySelectorAll("button");
  const names = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
  const found = { wide: document.documentElement.scrollWidth, view: innerWidth, orders: [names()] };
  buttons[3].click(); found.orders.push(names()); found.sort = buttons[3].parentNode.ariaSort;
  buttons[3].click(); found.orders.push(names());
  const legend = document.querySelectorAll(".legend button[data-i='0']");
  legend[0].click();
  found.hidden = [...document.querySelectorAll(".series[data-i='0']")].every(
    each => getComputedStyle(each).display === "none");
  found.pressed = [...legend].map(each => each.getAttribute("aria-pressed"));
  const svg = document.querySelector(".chart svg"), box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove",
    { clientX: box.left + 0.6 * box.width, clientY: box.top + 20, bubbles: true }));
  found.readout = document.getElementById("readout").textContent;
  found.text = Math.min(...[...document.querySelectorAll(".chart svg text")].map(
    each => each.getBoundingClientRect().height).filter(height => height > 0));
  return found;
"""


@pytest.mark.skipif(NODE is None, reason="there is no Node.js")
def test_under_the_pointer_are_the_curves_that_are_drawn_there():
    script = resources.files("semanticfl_jax.reporting.html").joinpath("page.js").read_text()
    nearest = re.search(r"const nearest = .*?;\n(?=const)", script, re.DOTALL)[0]
    lines = {
        "cheap": [[1, 10], [2, 20]],
        "dear": [[1, 5], [4, 30], [9, 50]],
        "local": [[0, 1], [0, 2], [0, 3]],  # it sends nothing
    }
    lines = json.dumps([{"name": name, "points": points} for name, points in lines.items()])
    show = "each => [each.name, ...each.point]"
    code = f"{nearest}console.log(JSON.stringify([0, 1.6, 8].map(x => nearest({lines}, x, 0.1)"
    done = subprocess.run([NODE, "-e", f"{code}.map({show}))))"], capture_output=True, text=True)
    assert json.loads(done.stdout) == [
        [["local", 0, 3]],
        [["cheap", 2, 20], ["dear", 1, 5]],
        [["dear", 9, 50]],
    ]


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_sorts_hides_and_reads_out_on_a_phone_and_a_desk(tmp_path, full_runs, width):
    path = write_page(full_runs, tmp_path / "report.html")
    found, errors = browse(Path(path), SORTS, width)
    assert errors == []
    assert found["wide"] <= found["view"] == width  # tables scroll, the page does not
    means = {
        name: np.mean([ACCURACIES[name, seed][-1] for seed in range(3)])
        for name in ("fedavg", "semanticfl")
    }
    falling = sorted(means, key=means.get, reverse=True)
    assert found["orders"] == [["fedavg", "semanticfl"], falling, falling[::-1]]
    assert found["hidden"] and set(found["pressed"]) == {"false"}
    mean = np.mean([ACCURACIES["semanticfl", seed][1] for seed in range(3)])
    assert found["readout"] == f"Round 2semanticfl{100 * mean:.2f}"
    assert found["text"] >= 11  # pixels
