// SPDX-License-Identifier: MIT
// The page of --format html. Its data is the JSON in #data; see html.c. Whatever comes from there goes
// into the page as text, never as markup.
(() => {
const data = JSON.parse(document.getElementById('data').textContent);
const report = data.report;
const isDiff = report.kind === 'diff';

// Columns of data.stacks: figures first, then whether older frames were cut, the domain, which frame the
// caller's is and what it is (own, a task's, a library's, none), which of data.threads it is of, and the numbers of the
// frames, innermost first.
const [SIZE, SIZE_DIFF, COUNT, COUNT_DIFF, ALLOCATED, ALLOCATED_COUNT, MORE, NATIVE, CALLER, CALLER_KIND, THREAD, FRAMES] =
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const OLDER = '(older frames)';

data.texts = data.texts.map(visible);
data.threads = data.threads.map((texts) => texts.map(visible));
for (const row of data.series ? data.series.rows : []) row.name = visible(row.name);
for (const remark of [...data.verdicts, ...data.types])
  [remark[1], remark[3], remark[5]] = [visible(remark[1]), visible(remark[3]), visible(remark[5])];
for (const held of data.held) {
  [held[1], held[3]] = [visible(held[1]), visible(held[3])];
  for (const holder of held[5]) holder[0] = visible(holder[0]);
}

const frames = data.frames.map(([file, func, line, source]) => ({
  file: data.texts[file], func: data.texts[func], line, source: source < 0 ? '' : data.texts[source],
}));

function svg(name, attributes, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const change = (number) => (number > 0 ? 'grown' : number < 0 ? 'shrunk' : '');

const shortFile = (file) => file.split('/').slice(-2).join('/');

// What it found, in a sentence.
function overAll({windows, window_s: seconds, stats: [first, ...others]}) {
  if (!first) return `Over all ${windows} windows no row grew.`;
  const words = {steady: 'steady growth', levelling: 'levels off', noise: 'no trend', turnover: 'turns over'};
  const place = (row) => visible(row.filename) + (row.lineno ? `:${row.lineno}` : '');
  return `Over all ${windows} windows (${timeText(seconds)}) ${place(first)} grew most, by ${sizeText(first.size_diff)}${first.kind in words ? ` (${words[first.kind]})` : ''}` +
    (others.length ? `; ${place(others[0])} by ${sizeText(others[0].size_diff)}.` : '.');
}

// -- head ---------------------------------------------------------------------------------------

function head() {
  const title = `Process ${report.pid}: ${isDiff ? 'what grew' : 'what is live'}`;
  document.title = `pyleak: process ${report.pid}`;
  $('title').textContent = title;
  $('subtitle').textContent = `Python ${report.python ?? '?'}, ${report.engine} engine, recorded from ${report.started}` +
    ` on; ${isDiff ? 'compared over' : 'after'} ${timeText(report.window_s)}` +
    (report.sample ? `; sampled, one allocation per ${sizeText(report.sample)} on average` : '');
  const tile = (name, value, diff, signedText) => {
    const shown = element('dd', {}, value);
    if (diff !== undefined) shown.append(element('small', {className: change(diff)}, signedText(diff, true)));
    $('tiles').append(element('div', {}, element('dt', {}, name), shown));
  };
  const {total, rss} = report;
  tile('Live, tracked', sizeText(total.size), isDiff ? total.size_diff : undefined, sizeText);
  tile('Blocks', countText(total.count), isDiff ? total.count_diff : undefined, countText);
  if (rss.before && rss.after) tile('Resident size', sizeText(rss.after), rss.after - rss.before, sizeText);
  tile('Longest stop', `${report.stop_ms} ms`);
  if (report.lost.events || report.lost.sites) {
    $('notes').textContent = `Lost: ${countText(report.lost.events)} events, which are in none of these figures, and ` +
      `the places of ${countText(report.lost.sites)} more.`;
    $('notes').hidden = false;
  }
  for (const note of data.notes.split('\n').filter(Boolean)) $('where').append(element('p', {}, visible(note)));
  if (report.over_all) $('over-all').textContent = overAll(report.over_all);
  for (const cause of report.known_causes || []) {
    const link = element('a', {href: cause.see, rel: 'noreferrer'}, cause.see);
    $('causes').append(element('p', {}, element('strong', {}, `Known cause: ${visible(cause.cause)}.`), ` ${visible(cause.remedy)}. `,
      /^https:/.test(cause.see) ? link : visible(cause.see)));
    $('causes').hidden = false;
  }
  $('footer').textContent = `Made by ${data.writer}. Sizes are powers of 1024.`;
}

// -- growth over time ---------------------------------------------------------------------------

const colors = ['#6b7280', '#0b62b8', '#d1495b', '#2a9d6f', '#b07d12', '#8e5bd0', '#159fb0', '#c2571a', '#7a8f1e', '#d04f9c'];
const dashes = ['6 4', '', '', '2 3', '', '8 3 2 3', '', '4 2', '', '1 2'];

function growthChart() {
  const series = data.series;
  if (!series || series.at_s.length < 2) return;
  const lines = [
    {name: 'resident size', values: series.rss},
    {name: 'all that is tracked', values: series.size},
    ...series.rows.filter((row) => row.sizes.some((size) => size !== row.sizes[0]))
      .map((row) => ({name: row.name, values: row.sizes})),
  ].filter((line) => line.values.every((value) => value !== null))
    .map((line, i) => ({...line, color: colors[i % colors.length], dash: dashes[i % dashes.length],
      values: line.values.map((value) => value - line.values[0])}));
  $('growth').hidden = false;
  const chart = $('chart');
  const values = lines.flatMap((line) => line.values);
  const low = Math.min(0, ...values), high = Math.max(1, ...values);
  const first = series.at_s[0], last = series.at_s.at(-1);
  let at = series.at_s.length - 1;

  function draw() {
    const box = chart.getBoundingClientRect();
    const [width, height] = [box.width || 800, box.height || 300];
    const [left, right, top, bottom] = [78, 12, 10, 28];
    const x = (time) => left + (width - left - right) * (time - first) / ((last - first) || 1);
    const y = (value) => height - bottom - (height - top - bottom) * (value - low) / ((high - low) || 1);
    chart.replaceChildren(svg('title', {}, `Growth over ${timeText(last - first)}`));
    const step = niceStep((high - low) / 6);
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
      chart.append(svg('line', {class: 'grid', x1: left, x2: width - right, y1: y(value), y2: y(value)}));
      chart.append(svg('text', {x: left - 6, y: y(value) + 4, 'text-anchor': 'end'}, sizeText(value, true)));
    }
    const every = niceTime((last - first) / 5);
    for (let time = Math.ceil(first / every) * every; time <= last; time += every)
      chart.append(svg('text', {x: x(time), y: height - 8,
        'text-anchor': x(time) < left + 20 ? 'start' : x(time) > width - right - 20 ? 'end' : 'middle'}, roundTimeText(time)));
    for (const line of lines)
      chart.append(svg('path', {stroke: line.color, 'stroke-dasharray': line.dash,
        d: line.values.map((value, i) => `${i ? 'L' : 'M'}${x(series.at_s[i]).toFixed(1)} ${y(value).toFixed(1)}`).join('')}));
    chart.append(svg('line', {class: 'cursor', x1: x(series.at_s[at]), x2: x(series.at_s[at]), y1: top, y2: height - bottom}));
    chart.onpointermove = (event) => {
      const time = first + (event.clientX - box.left - left) / (width - left - right) * (last - first);
      let nearest = 0;
      series.at_s.forEach((moment, i) => {
        if (Math.abs(moment - time) < Math.abs(series.at_s[nearest] - time)) nearest = i;
      });
      if (nearest !== at) { at = nearest; draw(); legend(); }
    };
  }
  function legend() {
    $('legend').replaceChildren(element('li', {}, element('span', {className: 'name'}, `At ${timeText(series.at_s[at])}:`)),
      ...lines.map((line) => {
        const stroke = svg('svg', {'aria-hidden': 'true', viewBox: '0 0 26 10'});
        stroke.append(svg('line', {x1: 0, x2: 26, y1: 5, y2: 5, stroke: line.color, 'stroke-width': 3,
          'stroke-dasharray': line.dash}));
        return element('li', {}, stroke, element('span', {className: 'name'}, line.name),
          element('span', {className: `value ${change(line.values[at])}`}, sizeText(line.values[at], true)));
      }));
  }
  draw();
  legend();
  window.addEventListener('resize', draw);
  $('points').append(
    element('thead', {}, element('tr', {}, ...['time', ...lines.map((line) => line.name)].map((name) => element('th', {scope: 'col'}, name)))),
    element('tbody', {}, ...series.at_s.map((time, i) => element('tr', {}, element('td', {}, timeText(time)),
      ...lines.map((line) => element('td', {}, sizeText(line.values[i], true)))))));
}

// A step of the size axis: 1, 2 or 5 of a power of 1024 or of ten of them.
function niceStep(size) {
  let unit = 1;
  while (unit * 1024 <= size) unit *= 1024;
  for (const factor of [1, 2, 5, 10, 20, 50, 100, 200, 500]) if (factor * unit >= size) return factor * unit;
  return 1024 * unit;
}

// A step of the time axis, in seconds: what a clock has marks for.
function niceTime(seconds) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
  return steps.find((step) => step >= seconds) ?? 86400 * Math.ceil(seconds / 86400);
}

function roundTimeText(seconds) {
  if (seconds % 60 || !seconds) return `${Math.round(10 * seconds) / 10} s`;
  if (seconds % 3600) return `${seconds / 60} min`;
  return seconds < 172800 || seconds % 86400 ? `${seconds / 3600} h` : `${seconds / 86400} d`;
}

// -- flame graph --------------------------------------------------------------------------------

const metrics = {
  size: {name: 'live bytes', of: (stack) => stack[SIZE], text: sizeText},
  count: {name: 'live blocks', of: (stack) => stack[COUNT], text: countText},
  allocated: {name: 'allocated bytes', of: (stack) => stack[ALLOCATED], text: sizeText},
  allocatedCount: {name: 'allocated blocks', of: (stack) => stack[ALLOCATED_COUNT], text: countText},
};
if (isDiff) {
  Object.assign(metrics, {
    grown: {name: 'growth in bytes', of: (stack) => Math.max(0, stack[SIZE_DIFF]), text: sizeText},
    grownCount: {name: 'growth in blocks', of: (stack) => Math.max(0, stack[COUNT_DIFF]), text: countText},
    shrunk: {name: 'decline in bytes', of: (stack) => Math.max(0, -stack[SIZE_DIFF]), text: sizeText},
  });
}

function hue(text) {
  let hash = 7;
  for (let i = 0; i < text.length; i++) hash = (hash * 31 + text.charCodeAt(i)) >>> 0;
  return hash % 360;
}

// The tree of all stacks, of those that weigh something.
function buildTree(metric, inverted) {
  const root = {name: 'all', frame: null, value: 0, children: new Map(), parent: null, depth: 0};
  for (const stack of data.stacks) {
    const weight = metric.of(stack);
    if (!(weight > 0)) continue;
    let path = stack.slice(FRAMES);
    if (stack[MORE]) path.push(OLDER);
    if (!inverted) path.reverse();
    let node = root;
    node.value += weight;
    for (const key of path) {
      let child = node.children.get(key);
      if (!child) {
        const frame = key === OLDER ? {file: '', func: OLDER, line: 0, source: ''} : frames[key];
        child = {name: frame.func, frame, value: 0, children: new Map(), parent: node, depth: node.depth + 1};
        node.children.set(key, child);
      }
      child.value += weight;
      node = child;
    }
  }
  return root;
}

const ROW = 20;
let tree, zoomed, flameMetric;

function place(frame) {
  return frame.file ? `${frame.func} (${frame.file}${frame.line ? ':' + frame.line : ''})` : frame.func;
}

function describe(node) {
  const share = tree.value ? (100 * node.value / tree.value).toFixed(1) : '0';
  const value = `${flameMetric.text(node.value)}, ${share} %`;
  if (!node.frame) return `all: ${value}`;
  return `${place(node.frame)}: ${value}${node.frame.source ? '   ' + node.frame.source : ''}`;
}

function drawFlame() {
  const flame = $('flame');
  const width = flame.clientWidth || 800;
  const wanted = $('search').value.trim().toLowerCase();
  const boxes = [];
  let deepest = 0, marked = 0;
  const add = (node, left, size, above) => {
    const text = node.frame ? `${node.frame.func} ${shortFile(node.frame.file)}${node.frame.line ? ':' + node.frame.line : ''}` : 'all';
    const hit = wanted && node.frame && `${node.frame.func} ${node.frame.file}`.toLowerCase().includes(wanted);
    const box = element('button', {type: 'button', textContent: size > 30 ? text : '', title: describe(node),
      className: (hit ? 'mark ' : '') + (above ? 'above' : '')});
    box.setAttribute('aria-label', describe(node));
    box.style.left = `${left}px`;
    box.style.width = `${Math.max(size, 1)}px`;
    box.style.top = `${node.depth * ROW}px`;
    box.style.background = node.frame
      ? `hsl(${hue(node.frame.file)} 55% var(--frame-light))` : 'var(--line)';
    box.onclick = () => { zoomed = node; drawFlame(); };
    box.onfocus = box.onmouseenter = () => { $('flame-info').textContent = describe(node); };
    boxes.push(box);
    deepest = Math.max(deepest, node.depth);
    marked += hit ? 1 : 0;
  };
  const ancestors = [];
  for (let node = zoomed.parent; node; node = node.parent) ancestors.unshift(node);
  for (const node of ancestors) add(node, 0, width, true);
  const visit = (node, left, size) => {
    add(node, left, size, false);
    const children = [...node.children.values()].sort((a, b) => b.value - a.value);
    for (const child of children) {
      const part = size * child.value / node.value;
      if (part < 1) break;
      visit(child, left, part);
      left += part;
    }
  };
  if (zoomed.value) visit(zoomed, 0, width);
  flame.style.height = `${(deepest + 1) * ROW}px`;
  flame.replaceChildren(...boxes);
  $('reset').disabled = zoomed === tree;
  $('flame-info').textContent = !zoomed.value ? `Nothing here has ${flameMetric.name}.`
    : wanted ? `${marked} frames match. ${describe(zoomed)}` : describe(zoomed);
}

function newTree() {
  flameMetric = metrics[$('metric').value];
  tree = zoomed = buildTree(flameMetric, $('inverted').checked);
  drawFlame();
}

function flameGraph() {
  for (const [key, metric] of Object.entries(metrics))
    $('metric').append(element('option', {value: key}, metric.name));
  const grows = isDiff && data.stacks.some((stack) => stack[SIZE_DIFF] > 0);
  $('metric').value = data.sort === 'count' ? 'count' : data.sort === 'churn' ? 'allocated'
    : grows ? (data.sort === 'count-diff' ? 'grownCount' : 'grown') : 'size';
  $('metric').onchange = $('inverted').onchange = newTree;
  $('search').oninput = drawFlame;
  $('reset').onclick = () => { zoomed = tree; drawFlame(); };
  $('flame').addEventListener('keydown', (event) => {
    if (event.key === 'Escape') { zoomed = zoomed.parent ?? zoomed; drawFlame(); }
  });
  window.addEventListener('resize', drawFlame);
  newTree();
}

// -- rows ---------------------------------------------------------------------------------------

const PAGE = 100;
const columns = [
  {name: 'place', of: (row) => row.name, text: null},
  {name: 'size', of: (row) => row.size, text: sizeText},
  ...(isDiff ? [{name: 'size change', of: (row) => row.sizeDiff, text: (n) => sizeText(n, true), signed: true}] : []),
  {name: 'count', of: (row) => row.count, text: countText},
  ...(isDiff ? [{name: 'count change', of: (row) => row.countDiff, text: (n) => countText(n, true), signed: true}] : []),
  {name: 'average', of: (row) => (row.count > 0 ? row.size / row.count : 0), text: (n) => sizeText(Math.round(n))},
  {name: 'allocated', of: (row) => row.allocated, text: sizeText},
];
const sortColumn = {size: 'size', count: 'count', average: 'average', churn: 'allocated',
  'size-diff': 'size change', 'count-diff': 'count change'};
let order = {column: columns.find((column) => column.name === sortColumn[data.sort]) ?? columns[1], down: true};
let shown = PAGE, opened = new Set();

// What there is to say of a row, where the report has something: by the place of the row.
const verdicts = remarks(data.verdicts), types = remarks(data.types);

function remarks(list) {
  const map = new Map();
  for (const [native, file, line, func, kind, text] of list)
    if (report.group_by !== 'traceback')
      map.set(`${report.group_by} ${rowKey(report.group_by, native, {file, line, func})}`, {kind, text});
  return map;
}

// Who keeps the live blocks of a row, where that was asked for: likewise.
const holders = new Map();
for (const [native, file, line, func, count, list] of data.held)
  if (report.group_by !== 'traceback')
    holders.set(`${report.group_by} ${rowKey(report.group_by, native, {file, line, func})}`, {count, list});

function rowKey(group, native, frame) {
  return `${native}|${frame.file}|` + (group === 'line' || group === 'caller' ? frame.line : group === 'function' ? frame.func : '');
}

function makeRows() {
  const group = $('group').value, rows = new Map();
  data.stacks.forEach((stack, number) => {
    const frame = frames[stack[FRAMES + (group === 'caller' ? stack[CALLER] : 0)]], native = stack[NATIVE];
    const key = group === 'traceback' ? number : rowKey(group, native, frame);
    let row = rows.get(key);
    if (!row) {
      row = {key: `${group} ${key}`, native, frame, size: 0, sizeDiff: 0, count: 0, countDiff: 0, allocated: 0, stacks: [],
        name: group === 'file' ? frame.file : group === 'function' ? `${frame.func} (${frame.file})` : `${frame.file}:${frame.line}`,
        detail: group === 'file' || group === 'function' ? '' : frame.func,
        source: group === 'file' || group === 'function' ? '' : frame.source};
      rows.set(key, row);
    }
    row.size += stack[SIZE];
    row.sizeDiff += stack[SIZE_DIFF];
    row.count += stack[COUNT];
    row.countDiff += stack[COUNT_DIFF];
    row.allocated += stack[ALLOCATED];
    row.stacks.push(stack);
  });
  return [...rows.values()];
}

// Differences by their absolute value, as tracemalloc sorts them.
function sortRows(rows) {
  const {column, down} = order;
  const value = (row) => (column.signed ? Math.abs(column.of(row)) : column.of(row));
  rows.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    const result = typeof x === 'string' ? x.localeCompare(y) : x - y;
    return (down ? -result : result) || b.size - a.size || a.name.localeCompare(b.name);
  });
}

function tracebacks(row) {
  const sorted = [...row.stacks].sort((a, b) => (isDiff ? b[SIZE_DIFF] - a[SIZE_DIFF] : 0) || b[SIZE] - a[SIZE]);
  const cell = element('td', {className: 'traceback', colSpan: columns.length});
  for (const stack of sorted.slice(0, 5)) {
    const list = element('ol', {});
    if (stack[MORE]) list.append(element('li', {}, OLDER));
    for (const number of stack.slice(FRAMES).reverse()) {
      const item = element('li', {}, place(frames[number]));
      if (frames[number].source) item.append(element('code', {}, frames[number].source));
      list.append(item);
    }
    const figures = `${sizeText(stack[SIZE])}${isDiff ? ` (${sizeText(stack[SIZE_DIFF], true)})` : ''} in ` +
      `${countText(stack[COUNT])} blocks, most recent call last`;
    cell.append(element('h3', {}, figures), list);
  }
  if (sorted.length > 5) cell.append(`${countText(sorted.length - 5)} more tracebacks`);
  return element('tr', {}, cell);
}

function heaviest(row) {
  const weight = (stack) => (isDiff ? stack[SIZE_DIFF] : stack[SIZE]);
  return row.stacks.reduce((best, one) => (weight(one) > weight(best) ? one : best));
}

// Who called the line of a row, or by caller what it called: [words, source], by its heaviest stack.
function calledFrom(row) {
  const group = $('group').value;
  const stack = heaviest(row);
  const caller = frames[stack[FRAMES + stack[CALLER]]], inner = frames[stack[FRAMES]];
  if (stack[CALLER_KIND] === 2)
    return [stack[MORE] ? 'all frames kept are of libraries; --frames shows more' : 'all its frames are of libraries', ''];
  if (group === 'caller' && stack[CALLER_KIND] === 1) return ['a task of an event loop, all of whose frames are of libraries', ''];
  if (stack[CALLER_KIND] > 1 || caller === inner || group === 'traceback') return null;
  if (group === 'caller') return [`allocated in ${place(inner)}`, inner.source];
  return [`called ${stack[CALLER_KIND] === 0 ? 'from' : 'in a task of an event loop, from'} ${place(caller)}`, caller.source];
}

function tableRow(row) {
  const open = opened.has(row.key);
  const toggle = element('button', {type: 'button', className: row.native ? 'native' : ''}, row.name);
  toggle.setAttribute('aria-expanded', String(open));
  toggle.onclick = () => {
    if (!opened.delete(row.key)) opened.add(row.key);
    drawRows();
  };
  const first = element('td', {}, toggle);
  if (row.detail) first.append(` ${row.detail}`);
  if (row.source) first.append(element('code', {}, row.source));
  const from = calledFrom(row);
  if (from) first.append(element('span', {className: 'from'}, from[0]), element('code', {}, from[1]));
  // Of a library's own thread; what Python did meanwhile is a hint.
  const [thread, meanwhile] = data.threads[heaviest(row)[THREAD]] ?? ['', ''];
  if (thread) first.append(element('span', {className: 'from'}, `thread: ${thread}`));
  if (meanwhile) first.append(element('span', {className: 'from'}, `meanwhile: ${meanwhile}`));
  const verdict = verdicts.get(row.key);
  if (verdict) first.append(element('span', {className: `verdict ${verdict.kind}`}, verdict.text));
  if (types.has(row.key)) first.append(element('span', {className: 'verdict'}, `live: ${types.get(row.key).text}`));
  const held = holders.get(row.key);
  for (const [path, count] of held ? held.list : [])
    first.append(element('span', {className: 'held'}, `held by: ${path} (${countText(count)} of ${countText(held.count)} blocks)`));
  const cells = columns.slice(1).map((column) => {
    const number = column.of(row);
    return element('td', {className: column.signed ? change(number) : ''}, column.text(number));
  });
  return open ? [element('tr', {}, first, ...cells), tracebacks(row)] : [element('tr', {}, first, ...cells)];
}

function drawRows() {
  const wanted = $('filter').value.trim().toLowerCase();
  const all = makeRows();
  const rows = all.filter((row) => !wanted || `${row.name} ${row.detail}`.toLowerCase().includes(wanted));
  sortRows(rows);
  $('rows').tHead.replaceChildren(element('tr', {}, ...columns.map((column) => {
    const current = column === order.column;
    const button = element('button', {type: 'button'}, column.name + (current ? (order.down ? ' ▼' : ' ▲') : ''));
    button.onclick = () => {
      order = {column, down: current ? !order.down : column.text !== null};
      drawRows();
    };
    const heading = element('th', {scope: 'col'}, button);
    heading.setAttribute('aria-sort', current ? (order.down ? 'descending' : 'ascending') : 'none');
    return heading;
  })));
  $('rows').tBodies[0].replaceChildren(...rows.slice(0, shown).flatMap(tableRow));
  $('row-count').textContent = wanted ? `${countText(rows.length)} of ${countText(all.length)} rows` : `${countText(all.length)} rows`;
  $('more').hidden = rows.length <= shown;
}

function table() {
  $('group').value = report.group_by;
  $('group').onchange = () => { shown = PAGE; opened = new Set(); drawRows(); };
  $('filter').oninput = () => { shown = PAGE; drawRows(); };
  $('more').onclick = () => { shown += PAGE; drawRows(); };
  drawRows();
}

// -- light and dark -----------------------------------------------------------------------------

function theme() {
  const set = (dark) => {
    document.documentElement.dataset.theme = dark ? 'dark' : 'light';
    $('theme').textContent = dark ? 'Light' : 'Dark';
    $('theme').setAttribute('aria-pressed', String(dark));
  };
  const preferred = window.matchMedia('(prefers-color-scheme: dark)');
  set(preferred.matches);
  preferred.addEventListener('change', (event) => set(event.matches));
  $('theme').onclick = () => set(document.documentElement.dataset.theme !== 'dark');
}

theme();
head();
growthChart();
flameGraph();
table();
document.documentElement.dataset.ready = 'yes';
})();
