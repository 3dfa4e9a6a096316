// From candidate boxes and their conditionals to detections, as Python chooses them: yolo9000/descent.py (rule
// "threshold"), cuts.py (vocabulary), suppression.py and detector.py. Pure functions; a test holds the two
// equal. Sums that Python makes in float32 are rounded to float32 here.

const f = Math.fround;
const NONE = -Infinity;

/** A tree's arrays from its parents; siblings lie side by side, parents before children. */
export function treeOf(parents) {
  const n = parents.length;
  const first = new Int32Array(n).fill(-1), end = new Int32Array(n).fill(-1);
  let roots = 0;
  for (let i = 0; i < n; i++) {
    const p = parents[i];
    if (p < 0) roots++;
    else {
      if (first[p] < 0) first[p] = i;
      end[p] = i + 1;
    }
  }
  return { parents, first, end, roots };
}

/** Nodes from the root down to `node`. */
export function pathOf(tree, node) {
  const path = [];
  for (let k = node; k >= 0; k = tree.parents[k]) path.push(k);
  return path.reverse();
}

/** The numbers of an answer's candidates: {boxes, objectness, logs: Float32Array (M*C), nodes: C, ...}. */
export function readCandidates(record) {
  const text = atob(record.log_conditionals);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const view = new DataView(bytes.buffer), logs = new Float32Array(bytes.length / 4);
  for (let i = 0; i < logs.length; i++) logs[i] = view.getFloat32(4 * i, true);
  return { ...record, logs };
}

/** The paper's rule at one box: the most probable child while Pr(node) exceeds the threshold; at least the
 * best root. logs: (C,) log conditionals. Returns {node, logPath}. */
export function walk(tree, logs, threshold) {
  const least = threshold > 0 ? f(Math.log(threshold)) : NONE;
  let start = 0, end = tree.roots, reached = f(0), node = -1;
  const logPath = [];
  while (start >= 0 && start < end) {
    let best = start;
    for (let k = start + 1; k < end; k++) if (logs[k] > logs[best]) best = k;
    const next = f(reached + logs[best]);
    const passed = next > least;
    if (!passed && node >= 0) break;
    node = best;
    reached = next;
    logPath.push(next);
    if (!passed) break;
    start = tree.first[best];
    end = tree.end[best];
  }
  return { node, logPath };
}

/** Listed nodes, ascending, and for each the place of the next listed one above it, -1 without one. */
export function cutOf(tree, listed) {
  const nodes = [...new Set(listed)].sort((a, b) => a - b);
  const place = new Map(nodes.map((node, i) => [node, i]));
  const above = nodes.map((node) => {
    for (let k = tree.parents[node]; k >= 0; k = tree.parents[k]) if (place.has(k)) return place.get(k);
    return -1;
  });
  return { nodes, above };
}

/** Log Pr of every node on the path to `node`, root first. */
export function logPathOf(tree, logs, node) {
  let sum = f(0);
  return pathOf(tree, node).map((k, i) => (sum = i ? f(sum + logs[k]) : logs[k]));
}

/** Only listed nodes are answered, as deep as Pr(node | listed) exceeds the threshold. node: -1 if none is
 * possible. */
export function inVocabulary(tree, cut, logs, threshold) {
  const values = cut.nodes.map((node) => logPathOf(tree, logs, node).at(-1));
  let most = NONE;
  cut.above.forEach((up, i) => { if (up < 0 && values[i] > most) most = values[i]; });
  if (most === NONE) return { node: -1, logPath: [], logGiven: NONE };
  let sum = 0;
  cut.above.forEach((up, i) => { if (up < 0) sum += Math.exp(values[i] - most); });
  const total = f(most + Math.log(sum));
  const least = threshold > 0 ? f(Math.log(threshold)) : NONE;
  const bestBelow = (up) => {
    let best = -1;
    cut.above.forEach((of, i) => { if (of === up && (best < 0 || values[i] > values[best])) best = i; });
    return best;
  };
  let at = bestBelow(-1);
  for (;;) {
    const next = bestBelow(at);
    if (next < 0 || !(f(values[next] - total) > least)) break;
    at = next;
  }
  const node = cut.nodes[at];
  const logGiven = Math.min(0, f(values[at] - total));
  return { node, logPath: logPathOf(tree, logs, node), logGiven };
}

/** Overlap of two boxes [left, top, right, bottom], 0 where the union has no area. */
export function iou(a, b) {
  const w = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]));
  const h = Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const common = w * h;
  const union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common;
  return union > 0 ? common / union : 0;
}

/** Of overlapping boxes the best stay. found: [{box, score, node, path, evidence}]; modes and rules as in
 * suppression.py. Returns those that stay, best first. */
export function suppress(found, mode, most) {
  const order = found.map((one, i) => [one, i]).sort((a, b) => b[0].score - a[0].score || a[1] - b[1]);
  const all = order.map(([one]) => one);
  if (mode === "none" || all.length < 2) return all;
  const isAbove = (a, b) => a.path.length <= b.path.length && a.path.every((k, i) => k === b.path[i]);
  const rivals = (a, b) => {
    if (mode === "agnostic") return true;
    if (mode === "class") return a.node === b.node;
    return isAbove(a, b) || isAbove(b, a);
  };
  const waiting = all.map(() => true), standing = all.map(() => true);
  const overlapped = (i) => all.flatMap((one, k) =>
    k !== i && waiting[k] && rivals(all[i], one) && iou(all[i].box, one.box) > most ? [k] : []);
  for (let i = 0; i < all.length; i++) {
    if (!waiting[i]) continue;
    let best = i, rival = overlapped(best);
    while (mode === "related") {
      const depth = all[best].path.length;
      const lower = rival.filter((k) => all[k].path.length > depth && all[k].evidence[depth] >= all[best].score);
      if (!lower.length) break;
      waiting[best] = standing[best] = false;
      best = lower[0];
      rival = overlapped(best);
    }
    waiting[best] = false;
    for (const k of rival) waiting[k] = standing[k] = false;
  }
  return all.filter((_, i) => standing[i]);
}

/** Detections of one picture, best first: {box, objectness, score, node, path, conditionals, probabilities}.
 *
 * picture: {width, height}; candidates: of readCandidates; choice: {threshold, treeThreshold, nms, nmsIou,
 * clip, most, vocabulary: nodes or null}. A threshold below the candidates' floor is the floor. */
export function decide(tree, picture, candidates, choice) {
  const { width, height } = picture;
  const threshold = Math.max(f(choice.threshold), f(candidates.floor));
  const cut = choice.vocabulary && choice.vocabulary.length ? cutOf(tree, choice.vocabulary) : null;
  const found = [];
  candidates.objectness.forEach((objectness, i) => {
    if (!(objectness > threshold)) return;
    const box = candidates.boxes_xyxy[i];
    const inside = box[0] < width && box[1] < height && box[2] > 0 && box[3] > 0;
    if (choice.clip && !inside) return;
    const logs = candidates.logs.subarray(i * candidates.nodes, (i + 1) * candidates.nodes);
    const { node, logPath, logGiven } = cut
      ? inVocabulary(tree, cut, logs, choice.treeThreshold)
      : walk(tree, logs, choice.treeThreshold);
    if (node < 0) return;
    const path = pathOf(tree, node);
    const probabilities = logPath.map((value) => f(Math.exp(value)));
    const evidence = [objectness, ...probabilities.map((value) => f(objectness * value))];
    found.push({
      box, objectness, node, path, probabilities, evidence, score: evidence.at(-1),
      conditionals: path.map((k) => Math.exp(logs[k])),
      given: cut ? Math.exp(logGiven) : null,
    });
  });
  const kept = suppress(found, choice.nms, choice.nmsIou).slice(0, choice.most);
  if (choice.clip) {
    for (const one of kept) {
      const [left, top, right, bottom] = one.box;
      const within = (value, end) => Math.min(Math.max(value, 0), end);
      one.box = [within(left, width), within(top, height), within(right, width), within(bottom, height)];
    }
  }
  return kept;
}
