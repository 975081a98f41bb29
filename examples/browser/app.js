// The page: takes files, shows what was found of the bundle, and scores of the data.

import * as ort from "../node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { DataError, latin1, readArchive } from "./archive.js";
import { Bundle } from "./bundle.js";
import { drawLatents, drawScores, short } from "./plot.js";
import { samplesOf } from "./table.js";

ort.env.wasm.numThreads = 1; // more need headers that a plain server does not send

const LISTED = 10; // alarms
const TABLES = /\.(csv|tsv|txt)$/i;
const $ = (id) => document.getElementById(id);
let bundle = null;
let table = null; // {name, text}
let result = null;
let last = Promise.resolve();

// --- taking files

/** Files by path, of which one may be a table: whatever they are, they replace what was there. */
async function take(files) {
  await step(async () => {
    const inputs = new Map();
    for (const [path, file] of files) {
      const bytes = new Uint8Array(await file.arrayBuffer());
      const archive = path.endsWith(".npz") ? null : await readArchive(file.name, bytes);
      for (const [inside, data] of archive ?? [[path, bytes]]) inputs.set(inside, data);
    }
    const tables = [...inputs].filter(([path]) => TABLES.test(path));
    for (const [path] of tables) inputs.delete(path);
    if (tables.length > 1) throw new DataError(`Expected one CSV, got ${tables.length}; choose one.`);
    if (inputs.size) await openBundle(inputs);
    if (tables.length) {
      const [[path, bytes]] = tables;
      table = { name: path.split("/").pop(), text: textOf(path, bytes) };
    }
    if (table && bundle) await compute();
    else if (table) say(`${table.name} waits for a bundle.`);
  });
}

function textOf(name, bytes) {
  const utf16 = bytes[0] === 0xff && bytes[1] === 0xfe;
  if (!utf16 && latin1(bytes.subarray(0, 4096)).includes("\0")) throw new DataError(`${name} is no text.`);
  return new TextDecoder(utf16 ? "utf-16le" : "utf-8").decode(bytes);
}

/** Files of what was dropped, folders too, by path. */
async function dropped(transfer) {
  const found = new Map();
  const walk = async (entry, folder) => {
    if (!entry) return;
    if (entry.isFile) {
      found.set(folder + entry.name, await new Promise((resolve, reject) => entry.file(resolve, reject)));
      return;
    }
    const reader = entry.createReader();
    for (let some = await entries(reader); some.length; some = await entries(reader)) {
      for (const inside of some) await walk(inside, `${folder}${entry.name}/`);
    }
  };
  const entries = (reader) => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  // All at once: the list is empty after the first wait
  for (const entry of Array.from(transfer.items, (item) => item.webkitGetAsEntry())) await walk(entry, "");
  return found;
}

/** Run a step after those before it, and show its error; data-state of the body tells when it is done. */
function step(run) {
  last = last.then(async () => {
    document.body.dataset.state = "busy";
    $("error").hidden = true;
    try {
      await run();
      document.body.dataset.state = "ready";
    } catch (error) {
      const isKnown = error instanceof DataError;
      if (!isKnown) console.error(error);
      $("error").textContent = isKnown ? error.message : `This cannot be used: ${error.message ?? error}`;
      $("error").hidden = false;
      $("status").textContent = bundle ? "The bundle is ready; choose another CSV." : "No bundle.";
      document.body.dataset.state = "failed";
    }
  });
  return last;
}

async function say(text) {
  $("status").textContent = text;
  await new Promise((resolve) => setTimeout(resolve)); // so that it is drawn
}

// --- the bundle

async function openBundle(files) {
  bundle = null;
  $("bundle").hidden = $("data").hidden = true;
  await say("Checking the bundle …");
  const found = await Bundle.open(files, ort);
  await say("Running the reference samples …");
  const compared = await found.verify();
  showBundle(found, compared);
  const bad = compared.find((each) => !each.ok);
  if (bad) {
    throw new DataError(
      `This bundle cannot be used here: the ${bad.variant} ${bad.what} of reference sample ${bad.row} differs by ` +
        `${short(bad.error)}, more than the allowed ${short(bad.allowed)}.`,
    );
  }
  bundle = found;
  await say(`${found.manifest.name || "The bundle"} is ready${table ? "." : "; now a CSV."}`);
}

function showBundle(found, compared) {
  const { manifest, entries, variants } = found;
  const ok = compared.every((each) => each.ok);
  $("verdict").textContent = ok
    ? "✓ Every file is as it was written, and this browser computes what was recorded at export."
    : "✗ Every file is as it was written, but this browser computes something else than was recorded at export.";
  $("verdict").className = `verdict ${ok ? "good" : "bad"}`;
  const { input, latent, score, calibration } = manifest;
  showTiles($("facts"), {
    name: manifest.name || "none",
    sample: `${input.shape.join(" × ")} ${input.dtype}`,
    latents: (latent.shape ?? [latent.size]).join(" × "),
    variants: variants.join(", "),
    score: variants.some((variant) => found.hasScore(variant)) ? score.kind : "none: no decoder, no scorer",
    "false alarms": calibration ? `${short(100 * calibration.false_alarm_rate)} % at most` : "not calibrated",
  });
  const golden = compared.map(({ variant, what, error, allowed, ok, equal, count }) => [
    variant,
    what,
    number(short(error)),
    number(short(allowed)),
    number(`${equal.toLocaleString("en")} of ${count.toLocaleString("en")}`),
    { text: ok ? "✓ reproduced" : "✗ not reproduced", className: ok ? "good" : "bad" },
  ]);
  fill($("golden"), golden);
  $("files-summary").textContent =
    `manifest.json has its own checksum, ${entries.length} files have the sha256 it lists`;
  fill(
    $("hashes"),
    entries.map(([name, { bytes, sha256 }]) => [
      name,
      number(bytes.toLocaleString("en")),
      { text: sha256, className: "hash" },
    ]),
  );
  $("variant").replaceChildren(
    ...variants.map(
      (each) => new Option(each, each, each === manifest.default_variant, each === manifest.default_variant),
    ),
  );
  $("bundle").hidden = false;
}

// --- the data

async function compute() {
  $("data").hidden = true;
  await say(`Reading ${table.name} …`);
  const { rows, numbers, what, notes } = samplesOf(table.name, table.text, bundle.manifest.input);
  const variant = $("variant").value;
  await say(`Encoding ${numbers.length.toLocaleString("en")} ${what}s …`);
  const latents = await bundle.encode(rows, variant);
  const scores = bundle.hasScore(variant) ? await bundle.score(rows, variant) : null;
  const threshold = bundle.threshold(variant);
  const alarms = scores && threshold !== null ? Array.from(scores, (score) => !(score <= threshold)) : null;
  const pValues = scores && (await bundle.pValues(scores, variant));
  if (!scores) notes.push("This bundle has neither decoder nor scorer, so there are latents and no scores.");
  else if (!alarms)
    notes.push(
      "This bundle is not calibrated, so there are scores and no alarms; aeedge recalibrate adds a threshold.",
    );
  result = { latents, scores, threshold, alarms, pValues, numbers, what };
  showData(notes);
  await say(`${table.name}: ${numbers.length.toLocaleString("en")} ${what}s, variant ${variant}.`);
}

function showData(notes) {
  const { scores, threshold, alarms, numbers, what } = result;
  $("data").hidden = false;
  $("notes").replaceChildren(...notes.map((note) => made("li", note)));
  const count = alarms?.filter(Boolean).length;
  const counts = { [`${what}s`]: numbers.length.toLocaleString("en") };
  if (alarms) counts.alarms = `${count.toLocaleString("en")} (${short((100 * count) / numbers.length)} %)`;
  if (alarms) counts.threshold = short(threshold);
  if (scores) counts["highest score"] = short(scores.reduce((a, b) => Math.max(a, b), -Infinity));
  showTiles($("counts"), counts);
  showAlarms();
  URL.revokeObjectURL($("download").href);
  $("download").href = URL.createObjectURL(new Blob([resultAsCsv()], { type: "text/csv" }));
  draw();
}

function showAlarms() {
  const { scores, threshold, alarms, pValues, numbers, what } = result;
  const order = (alarms ?? []).flatMap((alarm, i) => (alarm ? [i] : [])).sort((a, b) => scores[b] - scores[a]);
  $("alarms-part").hidden = !order.length;
  $("alarms-title").textContent =
    order.length > LISTED ? `The ${LISTED} highest of ${order.length.toLocaleString("en")} alarms` : "Alarms";
  $("alarm-number").textContent = what === "window" ? "window from row (from 0)" : "row (from 0)";
  fill(
    $("alarms"),
    order
      .slice(0, LISTED)
      .map((i) =>
        [numbers[i].toLocaleString("en"), short(scores[i]), short(scores[i] / threshold), short(pValues[i])].map(
          number,
        ),
      ),
  );
}

function draw() {
  if (!result || $("data").hidden) return;
  const { scores, alarms, what } = result;
  $("scores").parentElement.hidden = !scores;
  $("pictures").classList.toggle("single", !scores);
  if (scores) drawScores($("scores"), result);
  drawLatents($("latents"), result);
  const keys = [["sample", what], ...(alarms ? [["alarm", "alarm"]] : [])];
  showLegend($("latents"), keys);
  showLegend($("scores"), alarms ? [...keys, ["threshold", "threshold"]] : keys);
}

/** Marks as they are drawn, with what they mean. */
function showLegend(figure, keys) {
  const marks = {
    sample: '<circle class="sample" cx="8" cy="8" r="3.5"/>',
    alarm: '<path class="alarm" d="M8 2.5l5 9h-10z"/>',
    threshold: '<line class="threshold" x1="0" x2="22" y1="8" y2="8"/>',
  };
  figure.querySelector("figcaption").innerHTML = keys
    .map(
      ([mark, name]) =>
        `<span><svg width="${mark === "threshold" ? 22 : 16}" height="16" aria-hidden="true">${marks[mark]}</svg>${name}</span>`,
    )
    .join("");
}

/** One line for each sample: its number, its latents, and what there is of score, p-value and alarm. */
function resultAsCsv() {
  const { latents, scores, alarms, pValues, numbers, what } = result;
  const k = latents.length / numbers.length;
  const columns = [[what === "window" ? "start" : "row", (i) => numbers[i]]];
  for (let j = 0; j < k; j++) columns.push([`latent_${j}`, (i) => latents[i * k + j]]);
  if (scores) columns.push(["score", (i) => scores[i]]);
  if (pValues) columns.push(["p_value", (i) => pValues[i]]);
  if (alarms) columns.push(["alarm", (i) => Number(alarms[i])]);
  const lines = Array.from(numbers, (_, i) => columns.map(([, value]) => value(i)).join(","));
  return `${[columns.map(([name]) => name).join(","), ...lines].join("\n")}\n`;
}

// --- parts of the page

function made(tag, text, className = "") {
  const found = document.createElement(tag);
  found.textContent = text;
  found.className = className;
  return found;
}

const number = (text) => ({ text, className: "number" });

function fill(body, rows) {
  body.replaceChildren(
    ...rows.map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells.map((cell) => made("td", cell.text ?? cell, cell.className ?? "")));
      return row;
    }),
  );
}

function showTiles(list, values) {
  list.replaceChildren(
    ...Object.entries(values).map(([name, value]) => {
      const tile = document.createElement("div");
      tile.append(made("dt", name), made("dd", value));
      return tile;
    }),
  );
}

// --- events

for (const id of ["folder", "files", "csv"]) {
  $(id).addEventListener("change", async ({ target }) => {
    const files = new Map(Array.from(target.files, (file) => [file.webkitRelativePath || file.name, file]));
    target.value = ""; // so that the same file can be chosen again
    if (files.size) await take(files);
  });
}
$("variant").addEventListener("change", () => step(compute));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", () => document.body.classList.remove("over"));
addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const files = await dropped(event.dataTransfer);
  if (files.size) await take(files);
});
addEventListener("resize", draw);
$("not-running").hidden = true;
$("running").hidden = false;
document.body.dataset.state = "ready";
