// The tree's page: draws the rows in sight of a tree of any size, searches, shows one node.
// Data: in the page itself (#tree-data), or from the address in the body's data-source. All texts are put in
// as texts, never as markup.

const ROW = 28; // pixels, as in tree_page.css
const EXTRA = 8; // rows drawn above and below what is in sight
const MOST_FOUND = 500; // a longer list nobody reads; the count says how many there are
const MOST_BELOW = 60; // children named in the details
const TAUGHT = {
  boxes: ["boxes", "learnt from boxes"],
  labels: ["labels", "learnt from labels of whole pictures"],
  teacher: ["teacher", "learnt from another model's answers"],
  nothing: ["nothing", "the model saw nothing of it"],
};

const element = (id) => document.getElementById(id);
const rows = element("rows"), space = element("space"), search = element("search"), detail = element("detail");

/** An element with attributes and children; children are texts or elements. */
function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Arrays over the nodes: where a node's children begin, how many they are, depths. Siblings lie together. */
function layout(parents) {
  const n = parents.length;
  const first = new Int32Array(n).fill(-1), count = new Int32Array(n), depth = new Int32Array(n);
  let roots = 0;
  for (let i = 0; i < n; i++) {
    const p = parents[i];
    if (p < 0) { roots++; continue; }
    if (first[p] < 0) first[p] = i;
    count[p]++;
    depth[i] = depth[p] + 1;
  }
  return { first, count, depth, roots };
}

/** Nodes with the words in name, synonym or id; whole names first, then beginnings, then the rest. */
function find(haystacks, names, text, most) {
  const wanted = text.trim().toLowerCase();
  const ranks = [[], [], [], [], []];
  let total = 0;
  if (!wanted) return { nodes: [], total };
  for (let i = 0; i < haystacks.length; i++) {
    const at = haystacks[i].indexOf(wanted);
    if (at < 0) continue;
    total++;
    const name = names[i], inName = name.indexOf(wanted);
    let rank = 4;
    if (name === wanted) rank = 0;
    else if (inName === 0) rank = 1;
    else if (inName > 0) rank = name[inName - 1] === " " ? 2 : 3;
    if (ranks[rank].length < most) ranks[rank].push(i);
  }
  return { nodes: ranks.flat().slice(0, most), total };
}

class Page {
  constructor(data) {
    this.data = data;
    Object.assign(this, layout(data.parents));
    this.open = new Set();
    this.top = Array.from({ length: this.roots }, (_, i) => i);
    this.shown = this.top.slice(); // nodes, one a row
    this.found = null; // the same while searching
    this.selected = -1;
    this.names = data.names.map((name) => name.toLowerCase());
    this.haystacks = this.names.map((name, i) => {
      const words = data.synonyms ? data.synonyms[i].join("\n").toLowerCase() : "";
      return name + "\n" + words + "\n" + data.ids[i].toLowerCase() + "\n" + (data.synsets ? data.synsets[i] : "");
    });
    const nodes = data.ids.length.toLocaleString("en");
    element("facts").textContent = `${nodes} nodes, fingerprint ${data.fingerprint.slice(0, 12)}`;
    rows.addEventListener("scroll", () => this.draw());
    addEventListener("resize", () => this.draw());
    addEventListener("hashchange", () => this.follow());
    rows.addEventListener("keydown", (event) => this.key(event));
    space.addEventListener("click", (event) => this.click(event));
    search.addEventListener("input", () => this.search());
    search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "Enter") {
        event.preventDefault();
        if (this.list.length) this.select(this.list[0]);
        rows.focus();
      } else if (event.key === "Escape") this.endSearch();
    });
    document.addEventListener("keydown", (event) => {
      const typing = event.target instanceof HTMLInputElement;
      if (event.key === "/" && !typing) { event.preventDefault(); search.focus(); search.select(); }
    });
    element("close-all").addEventListener("click", () => {
      this.open.clear();
      this.shown = this.top.slice();
      this.endSearch();
    });
    for (const root of this.top.length <= 3 ? this.top : []) this.toggle(root, true);
    this.draw();
    if (!this.follow()) this.describe(-1);
  }

  get list() { return this.found || this.shown; }

  /** Open or close a node among the rows. */
  toggle(node, open = !this.open.has(node)) {
    if (!this.count[node] || open === this.open.has(node)) return;
    const at = this.shown.indexOf(node);
    if (open) {
      this.open.add(node);
      if (at >= 0) {
        const below = [];
        this.collect(node, below);
        this.shown = this.shown.slice(0, at + 1).concat(below, this.shown.slice(at + 1));
      }
    } else {
      this.open.delete(node);
      if (at >= 0) {
        let end = at + 1;
        while (end < this.shown.length && this.depth[this.shown[end]] > this.depth[node]) end++;
        this.shown = this.shown.slice(0, at + 1).concat(this.shown.slice(end));
      }
    }
  }

  /** What is open below a node, in order; a stack, because a tree may be a chain of thousands. */
  collect(node, into) {
    const waiting = [];
    const push = (of) => {
      for (let k = this.first[of] + this.count[of] - 1; k >= this.first[of]; k--) waiting.push(k);
    };
    push(node);
    while (waiting.length) {
      const k = waiting.pop();
      into.push(k);
      if (this.open.has(k)) push(k);
    }
  }

  path(node) {
    const path = [];
    for (let k = node; k >= 0; k = this.data.parents[k]) path.push(k);
    return path.reverse();
  }

  search() {
    const text = search.value;
    if (!text.trim()) return this.endSearch();
    const { nodes, total } = find(this.haystacks, this.names, text, MOST_FOUND);
    this.found = nodes;
    const more = total > nodes.length ? `, the first ${nodes.length} shown` : "";
    element("count").textContent = `${total.toLocaleString("en")} found${more}`;
    rows.scrollTop = 0;
    this.draw();
  }

  endSearch() {
    search.value = "";
    element("count").textContent = "";
    this.found = null;
    if (this.selected >= 0) this.reveal(this.selected);
    this.draw();
  }

  /** Open all above a node and bring it into sight. */
  reveal(node) {
    for (const above of this.path(node).slice(0, -1)) this.toggle(above, true);
    this.intoSight(node);
  }

  intoSight(node) {
    const at = this.list.indexOf(node) * ROW;
    if (at < 0) return;
    space.style.height = `${this.list.length * ROW}px`; // or it cannot scroll so far
    const height = rows.clientHeight;
    if (at < rows.scrollTop || at + ROW > rows.scrollTop + height) {
      rows.scrollTop = Math.max(0, at - height / 3);
    }
  }

  select(node, { reveal = false } = {}) {
    this.selected = node;
    if (reveal) { this.found = null; search.value = ""; element("count").textContent = ""; this.reveal(node); }
    else this.intoSight(node);
    this.describe(node);
    history.replaceState(null, "", `#${encodeURIComponent(this.data.ids[node])}`);
    this.draw();
  }

  /** Select the node that the address names. */
  follow() {
    let id = location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch { /* not an encoded text: taken as it is */ }
    const node = id ? this.data.ids.indexOf(id) : -1;
    if (node >= 0 && node !== this.selected) this.select(node, { reveal: true });
    return node >= 0;
  }

  click(event) {
    const row = event.target.closest(".row");
    if (!row) return;
    const node = Number(row.dataset.node);
    if (this.found) return this.select(node, { reveal: true });
    this.toggle(node);
    this.select(node);
  }

  key(event) {
    const list = this.list, at = list.indexOf(this.selected), node = this.selected;
    const page = Math.max(1, Math.floor(rows.clientHeight / ROW) - 1);
    const to = (k) => list.length && this.select(list[Math.min(list.length - 1, Math.max(0, k))]);
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: list.length - 1, PageDown: at + page, PageUp: at - page };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) to(moves[event.key]);
    else if (event.key === "Escape") this.endSearch();
    else if (node < 0) return;
    else if (event.key === "Enter" || event.key === " ") {
      if (this.found) this.select(node, { reveal: true });
      else { this.toggle(node); this.draw(); }
    } else if (this.found) return;
    else if (event.key === "ArrowRight") {
      if (this.open.has(node)) to(at + 1);
      else { this.toggle(node, true); this.draw(); }
    } else if (event.key === "ArrowLeft") {
      if (this.open.has(node)) { this.toggle(node, false); this.draw(); }
      else if (this.data.parents[node] >= 0) this.select(this.data.parents[node]);
    } else return;
    event.preventDefault();
  }

  draw() {
    const list = this.list;
    space.style.height = `${list.length * ROW}px`;
    const from = Math.max(0, Math.floor(rows.scrollTop / ROW) - EXTRA);
    const to = Math.min(list.length, Math.ceil((rows.scrollTop + rows.clientHeight) / ROW) + EXTRA);
    const drawn = [];
    for (let at = from; at < to; at++) drawn.push(this.row(list[at], at));
    space.replaceChildren(...drawn);
    const active = this.selected >= 0 && element(`node-${this.selected}`);
    if (active) rows.setAttribute("aria-activedescendant", active.id);
    else rows.removeAttribute("aria-activedescendant");
  }

  row(node, at) {
    const { data } = this;
    const depth = this.found ? 0 : this.depth[node];
    const open = this.open.has(node), some = this.count[node] > 0;
    const row = make("div", { class: "row", role: "treeitem", id: `node-${node}`, "data-node": node });
    row.setAttribute("aria-level", depth + 1);
    row.setAttribute("aria-selected", node === this.selected);
    if (some && !this.found) row.setAttribute("aria-expanded", open);
    row.style.top = `${at * ROW}px`;
    row.style.paddingLeft = `${Math.min(depth, 30) * 16}px`;
    row.append(make("span", { class: "twist", "aria-hidden": "true" }, some && !this.found ? (open ? "▾" : "▸") : "·"));
    row.append(make("span", { class: "name" }, data.names[node]));
    if (this.found) {
      const above = this.path(node).slice(-4, -1).map((k) => data.names[k]).join(" › ");
      row.append(make("span", { class: "faint name" }, above));
    } else if (some) row.append(make("span", { class: "faint mark" }, String(this.count[node])));
    const mark = this.mark(node);
    if (mark && data.taught[node] !== "nothing") row.append(mark);
    return row;
  }

  mark(node) {
    const kind = this.data.taught && TAUGHT[this.data.taught[node]];
    return kind ? make("span", { class: `taught taught-${kind[0]}`, title: kind[1] }, kind[0]) : null;
  }

  describe(node) {
    if (node < 0) {
      detail.replaceChildren(make("p", { class: "faint" }, "Choose a node: arrow keys open, close and move; / searches."));
      return;
    }
    const { data } = this;
    const parts = [make("h2", { id: "name" }, data.names[node])];
    const gloss = data.glosses && data.glosses[node];
    if (gloss) parts.push(make("p", { id: "gloss" }, gloss));
    const facts = make("dl", {});
    const fact = (what, value) => value && facts.append(make("dt", {}, what), make("dd", {}, value));
    fact("id", data.ids[node]);
    fact("index", String(node));
    if (data.synsets) fact("synset", data.synsets[node]);
    if (data.synonyms) fact("also", data.synonyms[node].join(", "));
    const nobody = this.count[node] ? "nobody: it holds others together" : "no list";
    if (data.sources) fact("label of", data.sources[node].join(", ") || nobody);
    if (data.taught && TAUGHT[data.taught[node]]) {
      const words = make("span", { id: "taught" }, this.mark(node), ` ${TAUGHT[data.taught[node]][1]}`);
      fact("the model", words);
    }
    parts.push(facts, make("h2", {}, "Path"));
    const path = make("ol", { id: "path" });
    this.path(node).forEach((k, level) => {
      const step = make("button", { type: "button", onclick: () => this.select(k, { reveal: true }) }, data.names[k]);
      step.style.marginLeft = `${Math.min(level, 12) * 10}px`;
      if (k === node) step.setAttribute("aria-current", "true");
      path.append(make("li", {}, step));
    });
    parts.push(path);
    if (this.count[node]) {
      parts.push(make("h2", {}, `Below it: ${this.count[node]}`));
      const below = make("div", { id: "below" });
      for (let k = this.first[node]; k < this.first[node] + Math.min(MOST_BELOW, this.count[node]); k++) {
        below.append(make("button", { type: "button", onclick: () => this.select(k, { reveal: true }) }, data.names[k]));
      }
      if (this.count[node] > MOST_BELOW) below.append(`... and ${this.count[node] - MOST_BELOW} more`);
      parts.push(below);
    }
    detail.replaceChildren(...parts);
  }
}

async function read() {
  const own = element("tree-data");
  if (own) return JSON.parse(own.textContent);
  let token = null;
  try { token = sessionStorage.getItem("yolo9000-token"); } catch { /* storage is off: no token is kept */ }
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(element("rows").dataset.source, { headers });
  const record = await answer.json();
  if (!answer.ok) throw new Error(record.error);
  return record;
}

read().then(
  (data) => { globalThis.treePage = new Page(data); },
  (error) => {
    element("facts").textContent = `The tree cannot be read: ${error.message}`;
    element("facts").className = "bad";
  },
);
