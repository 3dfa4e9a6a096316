// The detector's page: brings a picture in, asks the server once, and from then on chooses again by itself.
// What is chosen is decision.js's; drawing is view.js's; the names that may be answered are names.js's.

import { decide, readCandidates, treeOf } from "./decision.js";
import { NamePicker } from "./names.js";
import { View, words } from "./view.js";

// Boxes below this objectness are not even sent; "daring" ends here, or where the server had to stop.
const FLOOR = 0.05;
const SUREST = 0.95; // of objectness; beyond, nearly nothing is left of any model's answers
const STEPS = 1000; // of the sliders

const element = (id) => document.getElementById(id);
const status = element("status"), depth = element("depth"), daring = element("daring");

let tree = null; // {parents, first, end, roots} and the columns of the server
let view = null;
let picker = null;
let answer = null; // {width, height, candidates} of the picture in sight
let choice = null;
let asking = null; // the AbortController of the request under way
let address = null; // of the picture in sight
let due = false;

function say(text, bad = false) {
  status.textContent = text;
  status.className = bad ? "bad" : "";
}

function token() {
  try { return sessionStorage.getItem("yolo9000-token"); } catch { return null; }
}

/** A request to this server; errors carry its reason. */
async function ask(path, settings = {}) {
  const headers = { ...settings.headers };
  if (token()) headers.Authorization = `Bearer ${token()}`;
  const found = await fetch(path, { ...settings, headers });
  element("token-form").classList.toggle("hidden", found.status !== 401);
  let record = {};
  try { record = await found.json(); } catch { /* no JSON: the status must do */ }
  if (!found.ok) throw new Error(record.error || `the server answers ${found.status}`);
  return record;
}

async function start() {
  try {
    const columns = await ask("/v1/tree/columns");
    tree = { ...treeOf(columns.parents), ...columns };
    view = new View(tree, element("boxes"), element("list"), element("detail"));
    picker = new NamePicker(tree, element("only"), element("matches"), element("chosen"), again);
    element("facts").textContent =
      `${words(columns.ids.length, "name")}, model ${columns.model.slice(0, 12)}, tree ${columns.fingerprint.slice(0, 12)}`;
  } catch (error) {
    say(`The names cannot be read: ${error.message}`, true);
  }
}

/** Look at a picture: a File or Blob. */
async function look(blob) {
  if (!tree) return say("The names are not here yet.", true);
  if (asking) asking.abort();
  const mine = asking = new AbortController();
  answer = null;
  show(blob);
  view.clear();
  say("Looking ...");
  try {
    const path = `/v1/detect?rule=threshold&mapped=false&candidates=${FLOOR}`;
    const record = await ask(path, { method: "POST", body: blob, signal: mine.signal });
    const [found] = record.pictures;
    answer = { ...found, candidates: readCandidates(found.candidates) };
    const own = answer.candidates.options;
    choice = {
      threshold: own.threshold, treeThreshold: own.tree_threshold, nms: own.nms, nmsIou: own.nms_iou,
      clip: own.clip, most: own.max_detections,
    };
    setSliders();
    again();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
  }
}

function show(blob) {
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(blob);
  element("picture").src = address;
  element("view").classList.remove("hidden");
  element("drop").classList.add("hidden");
}

// Names: Pr(node) above t = 1 - share^2 goes on down, so that the slider is fine where models are sure.
const depthOf = (threshold) => Math.round(STEPS * Math.sqrt(1 - threshold));
const treeThresholdOf = (value) => 1 - (value / STEPS) ** 2;
const lowest = () => answer.candidates.floor;
const highest = () => Math.max(SUREST, lowest());

function setSliders() {
  depth.value = depthOf(choice.treeThreshold);
  const span = highest() - lowest();
  daring.value = span ? Math.round((STEPS * (highest() - choice.threshold)) / span) : STEPS;
}

/** Choose and draw again, at most once a frame. */
function again() {
  if (due || !answer) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    if (!answer) return;
    const vocabulary = picker.nodes;
    const found = decide(tree, answer, answer.candidates, { ...choice, vocabulary });
    view.draw(found, answer);
    element("depth-value").textContent = `Pr above ${choice.treeThreshold.toFixed(2)}`;
    element("daring-value").textContent = `objectness above ${Math.max(choice.threshold, lowest()).toFixed(2)}`;
    say(`${words(found.length, "object")} on ${answer.width} x ${answer.height} pixels`);
  });
}

depth.addEventListener("input", () => {
  if (!choice) return;
  choice.treeThreshold = treeThresholdOf(Number(depth.value));
  again();
});
daring.addEventListener("input", () => {
  if (!choice) return;
  choice.threshold = highest() - ((highest() - lowest()) * Number(daring.value)) / STEPS;
  again();
});

// -- where pictures come from --

const pictureOf = (items) => [...(items || [])].find((item) => item.type.startsWith("image/"));

element("choose").addEventListener("click", () => element("file").click());
for (const id of ["file", "capture"]) {
  element(id).addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // the same file may be chosen again
    if (file) look(file);
  });
}
document.addEventListener("paste", (event) => {
  const file = pictureOf(event.clipboardData && event.clipboardData.files);
  if (file) look(file);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const file = pictureOf(event.dataTransfer.files);
  if (file) look(file);
  else say("That is no picture file.", true);
});

let stream = null;

function endCamera() {
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = null;
  element("live").classList.add("hidden");
}

element("camera").addEventListener("click", async () => {
  // Browsers give the live camera to pages of this machine and of https only; else the telephone's own
  // camera program is asked.
  if (!navigator.mediaDevices || !navigator.mediaDevices.getUserMedia) return element("capture").click();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    element("video").srcObject = stream;
    element("live").classList.remove("hidden");
    await element("video").play();
    element("take").focus();
  } catch (error) {
    endCamera();
    say(`No camera: ${error.message}`, true);
  }
});
element("stop").addEventListener("click", endCamera);
element("take").addEventListener("click", () => {
  const video = element("video"), canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  endCamera();
  canvas.toBlob((blob) => (blob ? look(blob) : say("The camera gave no picture.", true)), "image/jpeg", 0.92);
});

element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  try { sessionStorage.setItem("yolo9000-token", element("token").value.trim()); } catch { /* kept nowhere */ }
  element("token").value = "";
  say("");
  start();
});

start();
