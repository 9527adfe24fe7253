# SPDX-License-Identifier: MIT
"""pyleak holders --format html, heapsnapshot, folded and pprof: each is opened by what it is made for."""
import collections
import json
import os
import re
import shutil
import subprocess

import pytest

import helpers
import test_exports
from helpers import Victim, pyleak

PROGRAM = """
import gc, sys
class User:
    def __init__(self, i):
        self.name, self.friends = "user %d" % i, []
CACHE = {}
for i in range(2000):
    CACHE["key %d" % i] = User(i)
    if i:
        CACHE["key %d" % i].friends.append(CACHE["key %d" % (i - 1)])
OTHER = [CACHE["key 7"], [i + 0.5 for i in range(500)]]
gc.collect(); gc.disable()
for i in range(300):
    ring = ["in a ring %d" % i, CACHE]
    ring.append(ring)
del ring
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module", params=["first", "last"])
def exported(request, tmp_path_factory):
    """All formats of one process that does nothing, and what --format json says of it. By the oldest Python and the newest."""
    import pythons
    found = pythons.pythons()
    python = {"first": found[0], "last": found[-1]}[request.param].executable
    folder = tmp_path_factory.mktemp("holders")
    with Victim(python, None, "-c", PROGRAM) as victim:
        for name in ("heap.heapsnapshot", "heap.html", "heap.folded", "heap.pb.gz", "heap.json"):
            result = pyleak("holders", victim.pid, "-n", 100, "-o", folder / name)
            assert result.status == 0 and result.stderr == "", result
    return folder


def document_of(folder):
    return json.loads((folder / "heap.json").read_text())


class Snapshot:
    """The file by its own rules."""

    def __init__(self, path):
        document = json.loads(path.read_text())
        self.meta, self.strings = document["snapshot"]["meta"], document["strings"]
        nodes, edges = document["nodes"], document["edges"]
        fields = len(self.meta["node_fields"])
        self.count = document["snapshot"]["node_count"]
        assert len(nodes) == self.count * fields and len(edges) == 3 * document["snapshot"]["edge_count"]
        self.types, self.names, self.ids, self.sizes, counts = (nodes[i::fields] for i in range(5))
        self.kinds, self.edge_names, targets = edges[0::3], edges[1::3], edges[2::3]
        assert sum(counts) == len(targets)
        assert all(target % fields == 0 and target < len(nodes) for target in targets)
        self.targets = [target // fields for target in targets]
        self.first = [0]
        for count in counts:
            self.first.append(self.first[-1] + count)

    def edges(self, node):
        return range(self.first[node], self.first[node + 1])

    def kind(self, edge):
        return self.meta["edge_types"][0][self.kinds[edge]]

    def name(self, edge):
        return self.edge_names[edge] if self.kind(edge) in ("element", "hidden") else self.strings[self.edge_names[edge]]

    def follow(self, node, name):
        return next(self.targets[edge] for edge in self.edges(node) if self.name(edge) == name)

    def retained(self):
        """By Cooper, Harvey and Kennedy's way, which is not pyleak's."""
        order, number, stack = [], {0: None}, [(0, iter(self.edges(0)))]
        before = collections.defaultdict(list)
        while stack:
            node, rest = stack[-1]
            for edge in rest:
                if self.kind(edge) == "weak":
                    continue
                before[self.targets[edge]].append(node)
                if self.targets[edge] not in number:
                    number[self.targets[edge]] = None
                    stack.append((self.targets[edge], iter(self.edges(self.targets[edge]))))
                    break
            else:
                order.append(node)
                stack.pop()
        for place, node in enumerate(order):
            number[node] = place
        idom, changed = {0: 0}, True
        while changed:
            changed = False
            for node in reversed(order[:-1]):
                new = None
                for other in before[node]:
                    if other not in idom:
                        continue
                    if new is None:
                        new = other
                        continue
                    while new != other:
                        while number[new] < number[other]:
                            new = idom[new]
                        while number[other] < number[new]:
                            other = idom[other]
                if idom.get(node) != new:
                    idom[node], changed = new, True
        sums = list(self.sizes)
        for node in order[:-1]:
            sums[idom[node]] += sums[node]
        return sums


def test_a_snapshot_is_one(exported):
    """What DevTools asks of it: numbers of everything, strings that are there, all reachable, roots that are unique."""
    snapshot = Snapshot(exported / "heap.heapsnapshot")
    assert len(set(snapshot.ids)) == snapshot.count and all(number % 2 for number in snapshot.ids)
    assert all(0 <= name < len(snapshot.strings) for name in snapshot.names)
    assert all(snapshot.kind(edge) in ("element", "hidden") or snapshot.edge_names[edge] < len(snapshot.strings)
               for edge in range(len(snapshot.targets)))
    roots = [snapshot.targets[edge] for edge in snapshot.edges(0)]
    assert len(roots) == len(set(roots))
    seen, stack = {0}, [0]
    while stack:
        for edge in snapshot.edges(stack.pop()):
            if snapshot.targets[edge] not in seen:
                seen.add(snapshot.targets[edge])
                stack.append(snapshot.targets[edge])
    assert len(seen) == snapshot.count


def test_a_snapshot_retains_the_same(exported):
    """Dominators that somebody else computes from the file give the sizes that pyleak prints; fields have their names."""
    snapshot, document = Snapshot(exported / "heap.heapsnapshot"), document_of(exported)
    sums = snapshot.retained()
    main = snapshot.follow(snapshot.follow(0, "sys.modules"), "__main__")
    names = snapshot.follow(main, "__dict__")
    holders = {row["path"]: row["retained"]["size"] for row in document["holders"]}
    for name in ("CACHE", "OTHER"):
        path = next(path for path in holders if path.startswith("__main__." + name))
        node = snapshot.follow(names, name)
        if path.endswith("[1]"):
            node = snapshot.follow(node, 1)
        assert sums[node] == holders[path], (path, holders)
    user = snapshot.follow(snapshot.follow(names, "CACHE"), "key 1")
    assert snapshot.strings[snapshot.names[user]] == "__main__.User"
    own = {snapshot.name(edge) for edge in snapshot.edges(user)}
    if "__dict__" in own:
        own = {snapshot.name(edge) for edge in snapshot.edges(snapshot.follow(user, "__dict__"))}
    assert {"name", "friends"} <= own, own
    garbage = snapshot.follow(0, "(garbage in cycles)")
    assert sums[garbage] == document["garbage"]["size"]


MEMLAB = """
const {getFullHeapFromFile} = require('@memlab/heap-analysis');
getFullHeapFromFile(process.argv[1]).then((heap) => {
  const sizes = [];
  heap.nodes.forEach((node) => { sizes.push([node.id, node.retainedSize]); });
  console.log('\\n' + JSON.stringify(sizes));
});
"""


def node_modules(lacks, *packages):
    """Where packages for node are."""
    modules = os.path.join(os.environ.get("PYLEAK_NPM_DIR", os.path.expanduser("~/.cache/pyleak-npm")), "node_modules")
    if not shutil.which("node") or not all(os.path.isdir(os.path.join(modules, package)) for package in packages):
        helpers.skip_here(lacks)
    return modules


def test_memlab(exported):
    """memlab opens it, and its dominators give each node the same retained size."""
    modules = node_modules("memlab", "@memlab/heap-analysis")
    snapshot = Snapshot(exported / "heap.heapsnapshot")
    result = subprocess.run(["node", "-e", MEMLAB, exported / "heap.heapsnapshot"], env={**os.environ, "NODE_PATH": modules},
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=120)
    theirs = dict(json.loads(result.stdout.strip().splitlines()[-1]))
    assert theirs == dict(zip(snapshot.ids, snapshot.retained()))


# What it takes its texts from is made by a step of Chromium's build.
LOCALES = 'export const DEFAULT_LOCALE = "en-US", LOCAL_FETCH_PATTERN = "", REMOTE_FETCH_PATTERN = "", LOCALES = [], BUNDLED_LOCALES = [];'
DEVTOOLS = """
import {readFileSync} from 'node:fs';
Promise.withResolvers ??= () => {
  const all = {};
  all.promise = new Promise((resolve, reject) => Object.assign(all, {resolve, reject}));
  return all;
};
const {HeapSnapshotLoader, HeapSnapshot} = await import('./model.js');
const {port1, port2} = new MessageChannel();
new HeapSnapshot.SecondaryInitManager(port2);
const loader = new HeapSnapshotLoader.HeapSnapshotLoader();
loader.write(readFileSync(process.argv[2], 'utf8'));
loader.close();
const snapshot = await loader.buildSnapshot(port1);
const sizes = [], node = snapshot.rootNode();
for (let i = 0; i < snapshot.nodeCount; i++) {
  node.nodeIndex = i * snapshot.nodeFieldCount;
  sizes.push([node.id(), node.retainedSize()]);
}
process.stdout.write(JSON.stringify([sizes, snapshot.totalSize]), () => process.exit(0));
"""


def test_devtools(exported, tmp_path):
    """The model behind Chrome's Memory tab opens it, and finds the same retained sizes."""
    modules = node_modules("devtools", "chrome-devtools-frontend", "esbuild")
    for name, text in (("package.json", '{"type": "module"}'), ("locales.js", LOCALES), ("run.js", DEVTOOLS)):
        (tmp_path / name).write_text(text)
    subprocess.run([os.path.join(modules, ".bin", "esbuild"),
                    os.path.join(modules, "chrome-devtools-frontend/front_end/entrypoints/heap_snapshot_worker/heap_snapshot_worker.ts"),
                    "--bundle", "--platform=node", "--format=esm", "--external:./locales.js", "--log-level=error",
                    "--outfile=%s" % (tmp_path / "model.js")], stdin=subprocess.DEVNULL, check=True, timeout=120)
    result = subprocess.run(["node", tmp_path / "run.js", exported / "heap.heapsnapshot"], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, check=True, timeout=120)
    assert result.stderr == "", result
    snapshot = Snapshot(exported / "heap.heapsnapshot")
    sizes, total = json.loads(result.stdout)
    retained = snapshot.retained()
    assert dict(sizes) == dict(zip(snapshot.ids, retained)) and total == retained[0] > 0


def test_folded(exported):
    """The sum is that of all objects, and a path leads to what it keeps."""
    document = document_of(exported)
    sizes = collections.Counter()
    for line in (exported / "heap.folded").read_text().splitlines():
        stack, size = re.fullmatch(r"(.+) (\d+)", line).groups()
        for frame in set(stack.split(";")):
            sizes[frame] += int(size)
    assert sizes["objects (objects)"] == pytest.approx(document["total"]["size"], rel=0.02)
    holders = {row["path"]: row["retained"]["size"] for row in document["holders"]}
    assert sizes["__main__.CACHE (dict)"] == holders["__main__.CACHE"]
    assert sizes["garbage in cycles (objects)"] == document["garbage"]["size"]


def test_go_tool_pprof(exported):
    """What is cumulative is what is retained."""
    document = document_of(exported)
    text = test_exports.pprof(exported / "heap.pb.gz", "-top", "-cum", "-unit=B", "-nodecount=100000", "-nodefraction=0")
    sizes = {}
    for line in text.split("cum%\n")[1].splitlines():
        _, _, _, cumulative, _, name = line.split(None, 5)
        sizes[name] = int(cumulative.removesuffix("B"))
    holders = {row["path"]: row["retained"]["size"] for row in document["holders"]}
    assert sizes["__main__.CACHE"] == holders["__main__.CACHE"]
    assert sizes["objects"] == pytest.approx(document["total"]["size"], rel=0.02)


def page_with(exported, tmp_path, script):
    """What the page becomes after a script of ours."""
    text = (exported / "heap.html").read_text()
    assert "http:" not in text and "https:" not in text and "src=" not in text
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", "<script>%s</script></body>" % script))
    return test_exports.open_page(path, tmp_path)


def test_the_page(exported, tmp_path):
    """It can be walked through and searched, and says what the document says."""
    document = document_of(exported)
    page = page_with(exported, tmp_path, """
        const at = (text) => [...document.querySelectorAll('#flame button')].find((button) => button.textContent.startsWith(text));
        document.body.dataset.first = document.querySelectorAll('#flame button').length;
        at('__main__').click();
        at('.CACHE').click();
        document.body.dataset.trail = document.getElementById('trail').textContent;
        document.body.dataset.info = document.getElementById('flame-info').textContent;
        document.getElementById('search').value = 'cache';
        document.getElementById('search').dispatchEvent(new Event('input'));
        document.body.dataset.found = document.getElementById('found').textContent;
    """)
    cache = next(row for row in document["holders"] if row["path"] == "__main__.CACHE")
    assert int(re.search(r'data-first="(\d+)"', page)[1]) > 5
    assert re.search(r'data-trail="objects › __main__ › \.CACHE \(dict\)"', page), re.search(r'data-trail="[^"]*"', page)
    assert "in %s objects" % format(cache["retained"]["count"], ",") in re.search(r'data-info="([^"]*)"', page)[1]
    assert "__main__.CACHE (dict)" in re.search(r'data-found="([^"]*)"', page)[1]
    assert "garbage in cycles" in page and re.search(r"[\d,]+ × __main__\.User", page)


def test_what_does_not_go_together(one_python):
    with Victim(one_python, None, "-c", PROGRAM) as victim:
        for arguments in (["--interval", "1s"], ["--type", "dict"]):
            result = pyleak("holders", victim.pid, "--format", "heapsnapshot", *arguments)
            assert result.status == 2 and "--format heapsnapshot" in result.stderr and not result.stdout, result
