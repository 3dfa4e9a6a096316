// The page of an evaluation. Data: in the page itself (#report-data), see yolo9000/report.py. All texts are put in
// as texts, never as markup.

const MOST_CURVES = 8; // colours that can be told apart
const CHUNK = 300; // rows drawn at a time
const MOST_OPEN = 30; // levels opened at once where each node has one below it
const MISTAKES = ["missed", "aside", "again", "invented"];
const WORDS = {
  right: "right", above: "true, less exact", below: "more exact than the truth", aside: "confused",
  missed: "missed", again: "once more", invented: "nothing there", uncounted: "does not count",
};

const element = (id) => document.getElementById(id);
const data = JSON.parse(element("report-data").textContent);
const share = (value) => (value === undefined || value === null || value < 0 ? "-" : value.toFixed(3));
const count = (value) => value.toLocaleString("en");

/** An element with attributes and children; children are texts or elements, missing ones are left out. */
function make(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function section(id, title, ...children) {
  element(id).replaceChildren(make("h2", {}, title), ...children.filter(Boolean));
}

/** The first rows of a long list, and a button for more. */
function inChunks(list, rows, row) {
  let drawn = 0;
  const more = make("button", { type: "button" });
  const next = () => {
    more.remove();
    for (const end = Math.min(drawn + CHUNK, rows.length); drawn < end; drawn++) list.append(row(rows[drawn]));
    if (drawn < rows.length) {
      more.textContent = `${count(rows.length - drawn)} more`;
      list.append(more);
    }
  };
  more.addEventListener("click", next);
  next();
}

/** What became of a class's boxes, in words. */
function became(row) {
  return Object.keys(WORDS).filter((what) => row.became[what]).map((what) => `${count(row.became[what])} ${WORDS[what]}`).join(", ");
}

class Curves {
  constructor() {
    this.chosen = data.curves.slice();
    this.drawing = draw("svg", { viewBox: "0 0 460 340", role: "img", "aria-label": "Precision against recall at IoU 0.5" });
    this.keys = make("div", { id: "keys", role: "status" });
    this.list = make("ul", { class: "list", "aria-label": "Classes" });
    this.filter = make("input", { type: "search", placeholder: "class", "aria-label": "Find a class", oninput: () => this.offer() });
    const known = data.classes.filter((row) => row.curve.length);
    this.rows = known.slice().sort((a, b) => b.boxes - a.boxes);
    section("curves", "Precision against recall",
      make("p", { class: "faint" }, "IoU 0.5; the precision is the best at that recall or a higher one, as COCO reads it."),
      data.curves.length
        ? make("div", { class: "chart" },
          make("div", {}, this.drawing, this.keys),
          make("div", { class: "choose" }, this.filter, this.list))
        : make("p", { class: "empty" }, "No boxes in the data: nothing to draw."));
    this.offer();
    this.redraw();
  }

  toggle(row) {
    const at = this.chosen.indexOf(row);
    if (at >= 0) this.chosen.splice(at, 1);
    else {
      if (this.chosen.length >= MOST_CURVES) this.chosen.splice(data.curves.length, 1);
      this.chosen.push(row);
    }
    this.offer();
    this.redraw();
  }

  offer() {
    const wanted = this.filter.value.trim().toLowerCase();
    const rows = this.rows.filter((row) => !wanted || `${row.name}\n${row.id}`.toLowerCase().includes(wanted));
    this.list.replaceChildren();
    inChunks(this.list, rows, (row) => make("li", {}, make("button",
      { type: "button", "aria-pressed": String(this.chosen.includes(row)), title: became(row), onclick: () => this.toggle(row) },
      make("span", {}, row.name), make("span", { class: "number faint" }, `${share(row.AP50)}  ${count(row.boxes)}`))));
  }

  redraw() {
    const x = (recall) => 40 + recall * 405, y = (precision) => 300 - precision * 285;
    const parts = [];
    for (let k = 0; k <= 10; k += 2) {
      parts.push(draw("line", { class: k ? "grid" : "axis", x1: x(0), x2: x(1), y1: y(k / 10), y2: y(k / 10) }),
        draw("line", { class: k ? "grid" : "axis", x1: x(k / 10), x2: x(k / 10), y1: y(0), y2: y(1) }),
        draw("text", { x: x(k / 10), y: 316, "text-anchor": "middle" }, (k / 10).toFixed(1)),
        draw("text", { x: 34, y: y(k / 10) + 4, "text-anchor": "end" }, (k / 10).toFixed(1)));
    }
    parts.push(draw("text", { x: 242, y: 334, "text-anchor": "middle" }, "recall"), draw("text", { x: 6, y: 10 }, "precision"));
    const keys = [];
    this.chosen.forEach((row, k) => {
      const points = row.curve.map((value, i) => `${x(i / 100).toFixed(1)},${y(value / 1000).toFixed(1)}`).join(" ");
      parts.push(draw("polyline", { class: `series s${k}`, points }));
      keys.push(make("div", { class: `key s${k}` }, `${row.name}: AP50 ${share(row.AP50)}`));
    });
    this.drawing.replaceChildren(...parts);
    this.keys.replaceChildren(...keys);
  }
}

class Tree {
  constructor(curves) {
    this.curves = curves;
    this.below = new Map();
    data.nodes.forEach((row, k) => {
      if (!this.below.has(row.parent)) this.below.set(row.parent, []);
      this.below.get(row.parent).push(k);
    });
    this.order = make("select", { "aria-label": "Order", onchange: () => this.redraw() },
      make("option", { value: "boxes" }, "most boxes first"), make("option", { value: "worst" }, "worst first"),
      make("option", { value: "name" }, "by name"));
    const flat = data.nodes.every((row) => row.parent < 0);
    this.rows = make("ul", { id: "rows" });
    section("tree", flat ? "Average precision of each class" : "Average precision along the tree",
      make("p", { class: "faint" }, flat
        ? "AP50, and the number of boxes."
        : "A box counts for every node above it too: AP50, AP (IoU 0.5 to 0.95), boxes at or below the node."),
      data.nodes.length ? make("div", { class: "tools" }, this.order) : make("p", { class: "empty" }, "No boxes in the data."),
      data.nodes.length ? make("div", { class: "heads", "aria-hidden": "true" }, ...["", "", "AP50", flat ? "" : "AP", "boxes", ""].map((word) => make("span", { class: "number" }, word))) : null,
      this.rows);
    this.redraw();
  }

  sorted(nodes) {
    const rows = data.nodes, by = {
      boxes: (a, b) => rows[b].boxes - rows[a].boxes || a - b,
      worst: (a, b) => rows[a].AP50 - rows[b].AP50 || rows[b].boxes - rows[a].boxes,
      name: (a, b) => rows[a].name.localeCompare(rows[b].name) || a - b,
    };
    return nodes.slice().sort(by[this.order.value]);
  }

  redraw() {
    this.rows.replaceChildren();
    const top = this.sorted(this.below.get(-1) || []);
    inChunks(this.rows, top, (k) => this.item(k, top.length <= 3 ? MOST_OPEN : 0));
  }

  item(k, open) {
    const below = this.below.get(k);
    if (!below) return make("li", { class: "leaf" }, this.line(k));
    const list = make("ul", {}), item = make("details", {}, make("summary", {}, this.line(k)), list);
    const grow = () => { if (!list.firstChild) inChunks(list, this.sorted(below), (child) => this.item(child, below.length === 1 ? open - 1 : 0)); };
    item.addEventListener("toggle", () => item.open && grow());
    if (open > 0) { item.open = true; grow(); }
    return make("li", {}, item);
  }

  line(k) {
    const row = data.nodes[k], fillBar = make("i", {});
    fillBar.style.width = `${Math.max(0, row.AP50) * 100}%`;
    const choose = (event) => { event.preventDefault(); this.curves.toggle(row); element("curves").scrollIntoView(); };
    return make("div", { class: "node", title: row.id },
      make("span", { class: "name" }, row.name),
      make("span", { class: "bar" }, fillBar),
      make("span", { class: "number" }, share(row.AP50)),
      make("span", { class: "number faint" }, row.AP === undefined ? "" : share(row.AP)),
      make("span", { class: "number faint" }, count(row.boxes)),
      row.curve.length ? make("button", { type: "button", "aria-label": `Curve of ${row.name}`, onclick: choose }, "curve") : make("span", {}));
  }
}

function confusions() {
  const { pairs, distances, missed, invented, again, left_out: left } = data.confusions;
  const parts = [];
  if (data.boxed) {
    parts.push(make("p", {}, `Boxes at IoU 0.5: ${count(missed)} missed, ${count(invented)} answers where nothing is, ${count(again)} answers for a box that has one.`));
  }
  if (!data.flat && Object.keys(distances).length) {
    const legend = Object.keys(data.relations).map((what) => make("span", { class: `what-${what}`, title: data.relations[what] }, `■ ${WORDS[what]}`));
    parts.push(make("p", { class: "tools" }, ...legend));
  }
  for (const [kind, rows] of data.flat ? [] : Object.entries(distances)) {
    const total = (row) => Object.keys(data.relations).reduce((sum, what) => sum + (row[what] || 0), 0);
    const most = Math.max(...rows.map(total));
    const chart = make("div", { class: "distances" });
    for (const row of rows) {
      const bar = make("span", { class: "bar" });
      for (const what of Object.keys(data.relations)) {
        if (!row[what]) continue;
        const piece = make("i", { class: `what-${what}`, title: `${count(row[what])} ${WORDS[what]}` });
        piece.style.width = `${(row[what] / most) * 100}%`;
        bar.append(piece);
      }
      chart.append(make("span", { class: "number" }, `${row.distance}`), bar, make("span", { class: "number" }, count(total(row))));
    }
    parts.push(make("h3", {}, `How far the answer is from the truth, ${kind}`),
      make("p", { class: "faint" }, "Edges of the tree between them, by way of the lowest node above both; 0 is right."), chart);
  }
  const only = make("select", { "aria-label": "Which" }, make("option", { value: "aside" }, "confused"),
    make("option", { value: "above" }, "true, less exact"), make("option", { value: "below" }, "more exact than the truth"), make("option", { value: "" }, "all"));
  const body = make("tbody", {});
  const redraw = () => {
    body.replaceChildren();
    const rows = pairs.filter((row) => !only.value || row.relation === only.value);
    inChunks(body, rows, (row) => make("tr", {}, make("td", {}, row.truth), make("td", {}, row.answer),
      make("td", { class: `what-${row.relation}` }, WORDS[row.relation]),
      data.flat ? null : make("td", { class: "number" }, String(row.distance)), make("td", { class: "number" }, count(row.count))));
    if (!rows.length) body.append(make("tr", {}, make("td", { colspan: "5", class: "faint" }, "none")));
  };
  only.addEventListener("change", redraw);
  redraw();
  parts.push(make("div", { class: "tools" }, only),
    make("div", { class: "scroll" }, make("table", { id: "pairs" }, make("thead", {}, make("tr", {}, make("th", {}, "truth"), make("th", {}, "answer"), make("th", {}, ""),
      data.flat ? null : make("th", { class: "number" }, "distance"), make("th", { class: "number" }, "times"))), body)));
  if (left) parts.push(make("p", { class: "faint" }, `... and ${count(left)} rarer pairs`));
  section("confusions", "What is confused with what", ...parts);
}

function picture(entry) {
  const [width, height] = entry.size, overlay = draw("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none" });
  const list = make("ul", {});
  const add = (one, kind) => {
    const [left, top, right, bottom] = one.box, mistake = MISTAKES.includes(one.what);
    const box = draw("rect", { class: `${kind}${mistake ? " mistake" : ""}`, x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) });
    overlay.append(box);
    const score = one.score === undefined ? "" : ` ${one.score.toFixed(2)}`;
    const item = make("li", { class: kind, tabindex: "0" }, `${kind === "truth" ? "there: " : "answer: "}${one.name}${score} `, make("span", { class: `what-${one.what}` }, WORDS[one.what]));
    for (const [event, on] of [["pointerenter", true], ["focus", true], ["pointerleave", false], ["blur", false]]) {
      item.addEventListener(event, () => box.classList.toggle("active", on));
    }
    list.append(item);
  };
  const boxed = entry.truth instanceof Array; // else a label of the whole picture
  for (const one of boxed ? entry.truth : []) add(one, "truth");
  for (const one of boxed ? entry.answers : []) add(one, "answer");
  const caption = make("figcaption", {}, make("strong", {}, entry.name));
  if (boxed) {
    caption.append(` ${count(entry.mistakes)} mistake${entry.mistakes === 1 ? "" : "s"}`, list);
    if (entry.left_out) caption.append(make("span", { class: "faint" }, `${count(entry.left_out)} boxes not drawn`));
  } else {
    const answer = entry.answer === null ? "no answer" : `answer: ${entry.answer}`;
    const far = entry.answer === null || data.flat ? "" : `, ${entry.distance} edges apart`;
    caption.append(make("ul", {}, make("li", {}, `there: ${entry.truth}`), make("li", { class: "what-aside" }, answer + far)));
  }
  const shown = entry.image
    ? make("img", { src: entry.image, alt: "", width, height, loading: "lazy" })
    : make("p", { class: "faint" }, "cannot be shown");
  return make("figure", {}, make("div", { class: "frame" }, shown, entry.image ? overlay : null), caption);
}

function pictures() {
  const parts = [], tick = (what, word) => make("label", {}, make("input", {
    type: "checkbox", checked: "", onchange: (event) => element("worst").classList.toggle(`no-${what}`, !event.target.checked),
  }), ` ${word}`);
  if (data.boxed) {
    parts.push(make("p", { class: "faint" }, `${count(data.mistaken)} of ${count(data.boxed)} pictures with boxes have mistakes: boxes missed, and answers confused, repeated or invented. Most first.`));
    if (data.worst.length) {
      parts.push(make("div", { class: "tools" }, tick("truth", "truth (solid)"), tick("answers", "answers (dashed)")),
        make("div", { class: "pictures" }, ...data.worst.map(picture)));
    }
  }
  if (data.labelled.pictures) {
    parts.push(make("h3", {}, "Pictures with labels only"),
      make("p", { class: "faint" }, `${count(data.labelled.mistaken)} of ${count(data.labelled.pictures)} are confused or have no answer; the farthest apart first.`),
      make("div", { class: "pictures" }, ...data.labelled.worst.map(picture)));
  }
  if (!parts.length) parts.push(make("p", { class: "empty" }, "No pictures."));
  section("worst", "The worst pictures", ...parts);
}

function figures() {
  const facts = make("dl", { class: "facts" });
  for (const [key, value] of data.facts) facts.append(make("dt", {}, key), make("dd", {}, value));
  section("figures", "Figures", make("pre", { tabindex: "0" }, data.figures), facts);
}

figures();
globalThis.report = { curves: new Curves() };
globalThis.report.tree = new Tree(globalThis.report.curves);
confusions();
pictures();
