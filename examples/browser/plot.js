// Two pictures as SVG: scores over samples with the threshold, and latents in two dimensions.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 300;
const MARGIN = { left: 64, right: 12, top: 12, bottom: 44 };
const MOST_POINTS = 4000; // that are drawn
const ROWS_OF_DIRECTIONS = 500; // and iterations, that principal directions are found with
const ITERATIONS = 60;

/** Scores over the number of the sample; alarms are triangles, the threshold a dashed line. */
export function drawScores(figure, { scores, numbers, alarms, threshold, what }) {
  const finite = Array.from(scores).filter(Number.isFinite);
  const sorted = finite.slice().sort((a, b) => a - b);
  const isLog =
    sorted[0] > 0 && (threshold === null || threshold > 0) && sorted.at(-1) > 20 * sorted[sorted.length >> 1];
  const ys = threshold === null ? finite : [...finite, threshold];
  const plot = new Plot(figure, numbers, ys, { isLog, fromZero: !isLog });
  const name = what === "window" ? "first row of the window (from 0)" : "row of the CSV (from 0)";
  plot.axes(name, `anomaly score${isLog ? " (logarithmic)" : ""}`);
  const points = Array.from(scores, (score, i) => [numbers[i], score, alarms?.[i] ?? false]);
  plot.points(thinned(points, plot.width));
  if (threshold !== null) plot.threshold(threshold);
  const count = alarms?.filter(Boolean).length ?? 0;
  const said = threshold === null ? "no threshold" : `threshold ${short(threshold)}, ${count} alarms`;
  plot.label(`Anomaly scores of ${scores.length} ${what}s: ${said}.`);
}

/** Latents: one over the number of the sample, two as they are, more along the first two principal directions. */
export function drawLatents(figure, { latents, numbers, alarms, what }) {
  const k = latents.length / numbers.length;
  const { points, labels } = flattened(latents, numbers, alarms, k);
  const plot = new Plot(
    figure,
    points.map((p) => p[0]),
    points.map((p) => p[1]),
    {},
  );
  plot.axes(...labels);
  const alarmed = points.filter((p) => p[2]);
  const step = Math.max(1, Math.ceil(points.length / MOST_POINTS));
  plot.points([...points.filter((p, i) => !p[2] && i % step === 0), ...alarmed.slice(-MOST_POINTS)]);
  plot.label(`${k} ${k === 1 ? "latent" : "latents"} of ${numbers.length} ${what}s: ${labels.join(" against ")}.`);
}

function flattened(latents, numbers, alarms, k) {
  const at = (i) => latents.subarray(i * k, (i + 1) * k);
  const all = Array.from(numbers, (_, i) => i);
  const isAlarm = (i) => alarms?.[i] ?? false;
  if (k === 1)
    return { points: all.map((i) => [numbers[i], latents[i], isAlarm(i)]), labels: ["sample (from 0)", "latent 0"] };
  if (k === 2) return { points: all.map((i) => [...at(i), isAlarm(i)]), labels: ["latent 0", "latent 1"] };
  const normal = all.filter((i) => !isAlarm(i));
  const used = normal.length > 2 ? normal : all;
  const step = Math.ceil(used.length / ROWS_OF_DIRECTIONS);
  const { mean, directions, shares } = principal(used.filter((_, i) => i % step === 0).map(at), k);
  const along = (i) =>
    directions.map((direction) =>
      dot(
        direction,
        at(i).map((value, j) => value - mean[j]),
      ),
    );
  const labels = ["1st", "2nd"].map(
    (nth, i) => `${nth} principal direction (${Math.round(100 * shares[i])} % of the variance)`,
  );
  return { points: all.map((i) => [...along(i), isAlarm(i)]), labels };
}

/** The first two principal directions of rows, by power iteration, with their shares of the variance. */
function principal(rows, k) {
  const mean = new Float64Array(k);
  for (const row of rows) row.forEach((value, j) => (mean[j] += value / rows.length));
  const centred = rows.map((row) => Float64Array.from(row, (value, j) => value - mean[j]));
  const total = centred.reduce((sum, row) => sum + dot(row, row), 0) || 1;
  const [directions, shares] = [[], []];
  for (let nth = 0; nth < 2; nth++) {
    let direction = Float64Array.from({ length: k }, (_, j) => 1 + ((j * 7919 + nth * 104729) % 13));
    let variance = 0;
    for (let i = 0; i < ITERATIONS; i++) {
      const next = new Float64Array(k);
      for (const row of centred) {
        const along = dot(row, direction);
        for (let j = 0; j < k; j++) next[j] += along * row[j];
      }
      for (const other of directions) {
        const along = dot(next, other);
        for (let j = 0; j < k; j++) next[j] -= along * other[j];
      }
      const length = Math.sqrt(dot(next, next));
      if (!(length > 0)) break;
      direction = next.map((value) => value / length);
      variance = length;
    }
    directions.push(direction);
    shares.push(variance / total);
  }
  return { mean, directions, shares };
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** Of many points the lowest and the highest in each column of pixels, and an alarm. */
function thinned(points, width) {
  if (points.length <= MOST_POINTS) return points;
  const [first, last] = [points[0][0], points.at(-1)[0]];
  const columns = new Map();
  for (const point of points) {
    const key = Math.round(((point[0] - first) / (last - first)) * width);
    const column = columns.get(key) ?? { low: point, high: point, alarm: null };
    if (point[1] < column.low[1]) column.low = point;
    if (point[1] > column.high[1]) column.high = point;
    if (point[2]) column.alarm = point;
    columns.set(key, column);
  }
  const kept = [...columns.values()].flatMap(({ low, high, alarm }) => [low, high, alarm]);
  return [...new Set(kept.filter(Boolean))];
}

class Plot {
  constructor(figure, xs, ys, { isLog = false, fromZero = false }) {
    this.width = Math.max(260, Math.floor(figure.clientWidth));
    this.isLog = isLog;
    this.svg = element("svg", {
      viewBox: `0 0 ${this.width} ${HEIGHT}`,
      width: this.width,
      height: HEIGHT,
      role: "img",
    });
    figure.querySelector("svg")?.remove();
    figure.prepend(this.svg);
    this.x = padded(xs, false);
    this.y = isLog ? padded(ys, true) : padded(fromZero ? [...ys, 0] : ys, false);
    if (fromZero && this.y[0] < 0 && !ys.some((y) => y < 0)) this.y[0] = 0;
  }

  px(x) {
    return MARGIN.left + ((x - this.x[0]) / (this.x[1] - this.x[0])) * (this.width - MARGIN.left - MARGIN.right);
  }

  py(y) {
    const [low, high, at] = this.isLog ? [...this.y, y].map(Math.log10) : [...this.y, y];
    return HEIGHT - MARGIN.bottom - ((at - low) / (high - low)) * (HEIGHT - MARGIN.bottom - MARGIN.top);
  }

  label(text) {
    this.svg.setAttribute("aria-label", text);
  }

  axes(xName, yName) {
    const [bottom, right] = [HEIGHT - MARGIN.bottom, this.width - MARGIN.right];
    for (const [y, text] of this.isLog ? powers(...this.y) : ticks(...this.y, 5)) {
      this.svg.append(element("line", { class: "grid", x1: MARGIN.left, x2: right, y1: this.py(y), y2: this.py(y) }));
      this.#text(text, MARGIN.left - 8, this.py(y) + 4, "end");
    }
    for (const [x, text] of ticks(...this.x, this.width < 500 ? 4 : 7)) {
      this.svg.append(element("line", { class: "tick", x1: this.px(x), x2: this.px(x), y1: bottom, y2: bottom + 5 }));
      this.#text(text, this.px(x), bottom + 18, "middle");
    }
    this.svg.append(element("line", { class: "axis", x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }));
    this.#text(xName, (MARGIN.left + right) / 2, HEIGHT - 6, "middle");
    const name = this.#text(yName, 0, 0, "middle");
    name.setAttribute("transform", `translate(12 ${(MARGIN.top + bottom) / 2}) rotate(-90)`);
    this.#fit(name, bottom - MARGIN.top);
  }

  #text(text, x, y, anchor) {
    const made = element("text", { x, y, "text-anchor": anchor });
    made.textContent = text;
    this.svg.append(made);
    if (anchor === "middle" && y === HEIGHT - 6) this.#fit(made, this.width - MARGIN.left - MARGIN.right);
    return made;
  }

  /** Leave out what is in brackets where a name is too long. */
  #fit(text, most) {
    if (text.getComputedTextLength() > most) text.textContent = text.textContent.replace(/ \(.*\)$/, "");
  }

  /** Points [x, y, whether it is an alarm]; those that are no number stand at the top. */
  points(points) {
    for (const isAlarm of [false, true]) {
      const path = [];
      for (const [x, y, alarm] of points) {
        if (alarm !== isAlarm) continue;
        const [cx, cy] = [this.px(x), Number.isFinite(y) ? this.py(y) : MARGIN.top];
        const shape = alarm ? `m0 -5.5l5 9h-10z` : `m-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0 -5 0`;
        path.push(`M${cx.toFixed(1)} ${cy.toFixed(1)}${shape}`);
      }
      if (path.length) this.svg.append(element("path", { class: isAlarm ? "alarm" : "sample", d: path.join("") }));
    }
  }

  threshold(value) {
    const y = this.py(value);
    this.svg.append(
      element("line", { class: "threshold", x1: MARGIN.left, x2: this.width - MARGIN.right, y1: y, y2: y }),
    );
  }
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** The range of values, a little wider. */
function padded(values, isLog) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return isLog ? [1, 10] : [0, 1];
  if (isLog) return [low / 1.3, high * 1.3];
  const pad = 0.04 * (high - low) || 0.5 * Math.abs(high) || 0.5;
  return [low - pad, high + pad];
}

/** Round numbers from low to high, three or more, each with its text. */
function ticks(low, high, count) {
  let [step, found] = [0, []];
  for (let most = count; found.length < 3; most++) {
    const raw = (high - low) / most;
    const power = 10 ** Math.floor(Math.log10(raw));
    step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * (1 - 1e-9));
    found = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  }
  const size = Math.max(Math.abs(low), Math.abs(high));
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const text = (value) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return found.map((value) => [value, size >= 1e6 || size < 1e-3 ? short(value) : text(value + 0)]);
}

/** Powers of ten, each with its text; with twos and fives where there are few. */
function powers(low, high) {
  const factors = Math.log10(high / low) < 2 ? [1, 2, 5] : [1];
  const found = [];
  for (let n = Math.floor(Math.log10(low)); n <= Math.log10(high); n++) {
    for (const factor of factors) found.push(factor * 10 ** n);
  }
  const inside = found.filter((value) => value >= low && value <= high);
  const step = Math.ceil(inside.length / 7);
  return inside.filter((_, i) => i % step === 0).map((value) => [value, short(value)]);
}

/** A number for people, with three digits or as many as it has before its point. */
export function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3)
    return value
      .toExponential(2)
      .replace(/\.?0+e/, "e")
      .replace("e+", "e");
  return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
}
