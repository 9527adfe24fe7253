// SPDX-License-Identifier: MIT
const data = JSON.parse(document.getElementById('data').textContent);
const report = data.report;
const ROW_HEIGHT = 20, LEAST_WIDTH = 2, FOUND_MAX = 50;

const nodes = data.nodes.map(([parent, path, type, members, own, ownCount, size, count]) => ({
  parent, path: visible(path), type: visible(type), members, own, ownCount, size, count, children: [], depth: 0,
}));
nodes.forEach((node, i) => {
  node.number = i;
  if (node.parent < 0) return;
  node.depth = nodes[node.parent].depth + 1;
  nodes[node.parent].children.push(node);
});

const shareText = (size, of) => `${(of ? (100 * size) / of : 0).toFixed(1)} %`;

// Of a path that goes on where its parent's ends, the rest.
function label(node) {
  if (!node.path) return node.members === 1 ? node.type : `${countText(node.members)} × ${node.type}`;
  const above = node.parent >= 0 ? nodes[node.parent].path : '';
  const rest = above && node.path.startsWith(above) && /^[.[: ]/.test(node.path.slice(above.length)) ? node.path.slice(above.length) : node.path;
  return node.type && node.type !== 'module' ? `${rest} (${node.type})` : rest;
}
const fullName = (node) => (node.path ? node.path + (node.type && node.type !== 'module' ? ` (${node.type})` : '') : label(node));

function head() {
  document.title = `pyleak: holders of process ${report.pid}`;
  $('title').textContent = `Process ${report.pid}: who keeps the memory`;
  $('subtitle').textContent = `Python ${report.python ?? '?'}` + (report.stop_ms ? `; it was stopped for ${report.stop_ms.toFixed(1)} ms` : '') +
    (report.gc.enabled === false ? '; the collector of cycles is off' : '');
  const tile = (name, value) => $('tiles').append(element('div', {}, element('dt', {}, name), element('dd', {}, value)));
  if (report.rss) tile('Resident size', sizeText(report.rss));
  tile('Objects', `${sizeText(report.total.size)} in ${countText(report.total.count)}`);
  if (report.garbage.size) tile('Garbage in cycles', sizeText(report.garbage.size));
  if (report.native.size) tile('Held by native code', sizeText(report.native.size));
  $('footer').textContent = `Made by ${data.writer}. Sizes are powers of 1024.`;
}

// -- the icicle ---------------------------------------------------------------------------------

let root = nodes[0], wanted = '';
const metric = () => $('metric').value;
const matches = (node) => wanted && (node.path || node.type).toLowerCase().includes(wanted);
const hue = (node) => {
  let hash = 7;
  for (const character of node.type || node.path) hash = (hash * 31 + character.codePointAt(0)) % 360;
  return hash;
};

function describe(node) {
  const all = nodes[0];
  return `${fullName(node)}: retains ${sizeText(node.size)} (${shareText(node.size, all.size)}) in ${countText(node.count)} objects, ` +
    `its own ${sizeText(node.own)}`;
}

function walkTo(node) {
  root = node;
  draw();
}

function draw() {
  const flame = $('flame'), width = flame.clientWidth || 1000, made = [];
  let deepest = 0;
  const place = (node, left, room, row) => {
    const button = element('button', {type: 'button', textContent: label(node), title: describe(node)});
    button.style.cssText = `left:${left}px;width:${Math.max(room - 0.5, 1)}px;top:${row * ROW_HEIGHT}px;` +
      `background:hsl(${hue(node)} 55% var(--frame-light))`;
    if (matches(node)) button.classList.add('mark');
    button.onclick = () => walkTo(node);
    button.onfocus = button.onmouseenter = () => { $('flame-info').textContent = describe(node); };
    made.push(button);
    deepest = Math.max(deepest, row);
    let at = left;
    for (const child of [...node.children].sort((a, b) => b[metric()] - a[metric()])) {
      const part = node[metric()] ? (room * child[metric()]) / node[metric()] : 0;
      if (part < LEAST_WIDTH) break;
      place(child, at, part, row + 1);
      at += part;
    }
  };
  place(root, 0, width, 0);
  flame.replaceChildren(...made);
  flame.style.height = `${(deepest + 1) * ROW_HEIGHT}px`;
  $('reset').disabled = root === nodes[0];
  $('flame-info').textContent = describe(root);
  const trail = [];
  for (let node = root; node; node = nodes[node.parent]) trail.unshift(node);
  $('trail').replaceChildren(...trail.flatMap((node, i) => {
    const button = element('button', {type: 'button', textContent: label(node)});
    button.onclick = () => walkTo(node);
    return i ? [' › ', button] : [button];
  }));
}

function search() {
  wanted = $('search').value.trim().toLowerCase();
  const found = wanted ? nodes.filter(matches).sort((a, b) => b.size - a.size) : [];
  $('hits').hidden = !wanted;
  $('hits-title').textContent = `Found: ${countText(found.length)}`;
  fill($('found'), ['what', 'retains', 'share', 'objects'], found.slice(0, FOUND_MAX).map((node) =>
    [link(fullName(node), node), sizeText(node.size), shareText(node.size, nodes[0].size), countText(node.count)]));
  draw();
}

// -- tables -------------------------------------------------------------------------------------

const byPath = new Map(nodes.filter((node) => node.path).map((node) => [node.path, node]));

function link(text, node) {
  if (!node) return text;
  const button = element('button', {type: 'button', textContent: text});
  button.onclick = () => {
    walkTo(node);
    $('flame').scrollIntoView({block: 'nearest'});
  };
  return button;
}

function fill(table, names, rows) {
  table.replaceChildren(element('thead', {}, element('tr', {}, ...names.map((name) => element('th', {scope: 'col'}, name)))),
    element('tbody', {}, ...rows.map((cells) => element('tr', {}, ...cells.map((cell) =>
      element('td', {}, ...(Array.isArray(cell) ? cell : [cell])))))));
}

const typeText = (type) => `${countText(type.count)} × ${visible(type.type)}: ${sizeText(type.size)}` +
  (type.sample && type.sample !== '<key>' ? `, such as ${visible(type.sample)}` : '');

function tables() {
  fill($('holders'), ['variable', 'retains', 'share', 'objects', 'its own'], report.holders.map((holder) => {
    const path = visible(holder.path);
    return [[link(`${path} (${visible(holder.type)})`, byPath.get(path)), ...holder.contents.slice(0, 3).map((type) =>
      element('code', {}, typeText(type)))], sizeText(holder.retained.size), shareText(holder.retained.size, report.total.size),
      countText(holder.retained.count), sizeText(holder.own)];
  }));
  if (report.groups.length) {
    $('groups-section').hidden = false;
    fill($('groups'), ['type', 'size', 'objects'], report.groups.map((group) => [[visible(group.type), ...group.held_by.map((by) =>
      element('code', {}, `${visible(by.path)} (${countText(by.count)})`))], sizeText(group.size), countText(group.count)]));
  }
  const others = [['garbage in cycles', report.garbage], ['native code', report.native]].filter(([, sum]) => sum.size);
  $('others-section').hidden = !others.length;
  fill($('others'), ['what', 'size', 'objects'], others.flatMap(([name, sum]) => [[name, sizeText(sum.size), countText(sum.count)],
    ...sum.types.map((type) => [[element('code', {}, typeText(type) + (type.kind === 'unowned' ? ': references that nobody owns' : '') +
      (type.library ? ` (${visible(type.library)})` : ''))], sizeText(type.size), countText(type.count)])]));
}

function start() {
  head();
  tables();
  draw();
  $('metric').onchange = draw;
  $('search').oninput = search;
  $('reset').onclick = () => walkTo(nodes[0]);
  $('theme').onclick = () => {
    const dark = document.documentElement.dataset.theme !== 'dark';
    document.documentElement.dataset.theme = dark ? 'dark' : 'light';
    $('theme').setAttribute('aria-pressed', String(dark));
  };
  if (matchMedia('(prefers-color-scheme: dark)').matches) $('theme').click();
  addEventListener('resize', draw);
  document.documentElement.dataset.ready = 'yes';
  // For a link to a variable: #search=NAME
  const asked = new URLSearchParams(location.hash.slice(1)).get('search');
  if (asked) {
    $('search').value = asked;
    search();
  }
}

start();
