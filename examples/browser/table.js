// A CSV as samples of a model: columns by name, missing values as the manifest says, recordings cut into windows.

import { DataError, product } from "./archive.js";

const MISSING = new Set(["", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "--", "?", "."]);
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const LIMITS = { uint8: [0, 255], int16: [-32768, 32767] };
const EPOCHS = [
  [5e8, 4e9, 1],
  [5e11, 4e12, 1e-3],
  [5e14, 4e15, 1e-6],
  [5e17, 4e18, 1e-9],
]; // numbers since 1970
const LARGEST = 3.4028234663852886e38; // of float32
const LONG_STEP = 1.5; // usual steps from one sample to the next, from which on some are missing
const DAY = 86400;
const MONDAY = 4 * DAY; // after 1 January 1970, a Thursday

/**
 * Samples of a CSV for a model.
 *
 * @param {string} name of the file, for messages.
 * @param {string} text its content.
 * @param input of the manifest.
 * @returns {rows, numbers, what, notes}: flat values of the model's type; for each sample the number of its row, or of a
 *   window's first row, counted from 0; what a sample is; and what else there is to say.
 * @throws {DataError} other columns, a cell that is no number, a missing value, no rows.
 */
export function samplesOf(name, text, input) {
  const table = readTable(name, text, input.signal?.channels ?? input.features ?? []);
  const { order, notes } = columnOrder(name, table, input);
  const values = numbersOf(name, table, order, input.dtype);
  const count = table.rows.length;
  const found = input.signal
    ? windowsOf(name, table, values, input, notes)
    : { rows: Float32Array.from(values), numbers: Array.from({ length: count }, (_, row) => row), width: order.length };
  const kept = withoutMissing(found, input, notes, (sample, at) => {
    const column = order[at % found.width];
    const place = placeOf(name, table, found.numbers[sample] + Math.floor(at / found.width), column);
    return new DataError(`${place}: expected a number, got a missing value; fill it in, or leave the row out.`);
  });
  if (!kept.numbers.length) throw new DataError(`${name}: every sample has a missing value, so none can be scored.`);
  return { ...kept, what: input.signal ? "window" : "row", notes };
}

// --- text to cells

/** Names (null without), rows of cells, the line of each (from 1), the decimal mark, and the cells of a layout. */
function readTable(name, text, wanted) {
  const lines = text.replace(/^\ufeff/, "").split(/\r\n|\n|\r/);
  let best = null;
  for (const delimiter of [",", ";", "\t", "|", " "]) {
    const sample = records(name, lines.slice(0, 100), delimiter);
    for (const decimal of [".", ","]) {
      const fit = fitOf(sample, delimiter, decimal);
      if (!best || fit > best.fit) best = { fit, delimiter, decimal };
    }
  }
  let found = records(name, lines, best.delimiter);
  if (!found.length) throw new DataError(`${name} has no rows.`);
  const number = (cell) => toNumber(cell, best.decimal);
  const first = found[0].cells.map((cell) => cell.trim());
  const isNumeric = (cell) => number(cell) !== null && !Number.isNaN(number(cell));
  const body = found.slice(1, 100);
  const isText = (cell, i) => number(cell) === null && body.some((row) => isNumeric(row.cells[i] ?? ""));
  let names = null;
  if ((wanted.length && wanted.every((each) => first.includes(each))) || first.some(isText)) {
    names = first;
    found = found.slice(1);
    const units = found.length > 1 && !found[0].cells.some(isNumeric) && found[1].cells.some(isNumeric);
    if (units) found = found.slice(1);
  } else {
    const above = lines[found[0].line - 2] ?? ""; // names in a comment, as numpy.savetxt writes them
    const cells = above
      .replace(/^[#\s]+/, "")
      .split(best.delimiter)
      .map((cell) => cell.trim());
    if (above.startsWith("#") && cells.length === first.length && !cells.some(isNumeric)) names = cells;
  }
  const width = names ? Math.max(names.length, found[0]?.cells.length ?? 0) : first.length;
  if (names?.length === width - 1) names = ["", ...names]; // row names, as R writes them
  if (names?.at(-1) === "" && found.every((row) => row.cells.length === width - 1)) names.pop();
  const count = names?.length ?? width;
  for (const { cells, line } of found) {
    if (cells.length === count + 1 && !cells.at(-1).trim()) cells.pop();
    if (cells.length !== count) {
      throw new DataError(`${name}, line ${line}: expected ${count} cells, got ${cells.length}.`);
    }
  }
  if (!found.length) throw new DataError(`${name} has no rows below its header.`);
  const twice = names?.find((each, i) => each && names.indexOf(each) !== i);
  if (twice) throw new DataError(`${name}: the column '${twice}' stands twice in the header; rename one.`);
  return { names, number, width: count, rows: found };
}

/** Cells of each line; blank lines and those that begin with # are passed over. */
function records(name, lines, delimiter) {
  const found = [];
  for (let i = 0; i < lines.length; i++) {
    const line = i + 1;
    let text = lines[i];
    if (!text.trim() || text.trimStart().startsWith("#")) continue;
    while ((text.match(/"/g)?.length ?? 0) % 2 && i + 1 < lines.length) text += `\n${lines[++i]}`;
    found.push({ line, cells: cellsOf(text, delimiter) });
  }
  return found;
}

function cellsOf(text, delimiter) {
  if (delimiter === " ") return text.trim().split(/\s+/);
  if (!text.includes('"')) return text.split(delimiter);
  const cells = [""];
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '"' && quoted && text[i + 1] === '"') cells[cells.length - 1] += text[++i];
    else if (text[i] === '"') quoted = !quoted;
    else if (text[i] === delimiter && !quoted) cells.push("");
    else cells[cells.length - 1] += text[i];
  }
  return cells;
}

/** How well rows fit a delimiter and a decimal mark: one width, numbers, more than one column. */
function fitOf(rows, delimiter, decimal) {
  const body = rows.length > 1 ? rows.slice(1) : rows;
  if (!body.length) return 0;
  const cells = body.flatMap((row) => row.cells.slice(0, 1000));
  if (decimal === "," && (delimiter === "," || !cells.some((cell) => /^\s*[+-]?\d*,\d+\s*$/.test(cell)))) return 0;
  const width = body[0].cells.length;
  const same = body.filter((row) => row.cells.length === width).length / body.length;
  const numbers = cells.filter((cell) => toNumber(cell, decimal) !== null).length / cells.length;
  return same + numbers + (width > 1 ? same : 0);
}

/** The number in a cell, NaN where the value is missing, null where it is something else. */
function toNumber(cell, decimal) {
  const text = cell.trim();
  if (MISSING.has(text.toLowerCase())) return NaN;
  const plain = decimal === "," ? text.replace(",", ".") : text;
  if (NUMBER.test(plain) && !(decimal === "," && text.includes("."))) return Number(plain);
  const words = { true: 1, false: 0, inf: Infinity, "+inf": Infinity, "-inf": -Infinity, infinity: Infinity };
  return words[text.toLowerCase()] ?? null;
}

// --- cells to numbers

/** Which columns are the model's values, in its order. */
function columnOrder(name, table, input) {
  const wanted = input.signal?.channels ?? input.features;
  const size = wanted?.length ?? product(input.shape);
  const { names, width } = table;
  const time = timeColumn(table, input);
  const all = Array.from({ length: width }, (_, i) => i).filter((i) => i !== time);
  if (wanted && names) {
    const absent = wanted.filter((each) => !names.includes(each));
    if (!absent.length) {
      const extra = all.filter((i) => names[i] && !wanted.includes(names[i])).map((i) => names[i]);
      const notes = extra.length ? [`Columns that the model does not use: ${shortened(extra)}.`] : [];
      return { order: wanted.map((each) => names.indexOf(each)), notes };
    }
    const plain = wanted.every((each) => /^(?:x|ch|channel[ _]?)?\d+$/.test(each)); // names that nobody gave
    if (!(absent.length === wanted.length && all.length === size && (plain || !input.signal))) {
      throw new DataError(`${name}: expected a column '${absent[0]}', got ${shortened(names)}; rename or add it.`);
    }
    return { order: all, notes: ["No column has the name of one that the model knows; columns are taken in order."] };
  }
  const { columns, width: trained } = input.dialect ?? {};
  if (!names && columns && trained === width) return { order: columns, notes: [] };
  const named = names ? all.filter((i) => names[i] && !names[i].startsWith("Unnamed: ")) : all;
  const order = all.length !== size && named.length === size ? named : all;
  if (order.length !== size) {
    throw new DataError(`${name}: expected ${size} columns, as the model takes, got ${order.length}.`);
  }
  return { order, notes: [] };
}

function timeColumn({ names, width }, { signal }) {
  if (!signal?.time) return -1;
  if (names) return names.indexOf(signal.time);
  return width === signal.channels.length + 1 && Number(signal.time) < width ? Number(signal.time) : -1;
}

function numbersOf(name, table, order, dtype) {
  const values = new Float64Array(table.rows.length * order.length);
  const [low, high] = LIMITS[dtype] ?? [-LARGEST, LARGEST];
  const kind = dtype in LIMITS ? `a whole number from ${low} to ${high}` : "a finite number that fits 32 bits";
  table.rows.forEach(({ cells }, row) => {
    order.forEach((column, i) => {
      const value = table.number(cells[column]);
      const fits =
        Number.isNaN(value) ||
        (value !== null && value >= low && value <= high && (!(dtype in LIMITS) || Number.isInteger(value)));
      if (!fits) {
        const got = cells[column].trim().slice(0, 40);
        throw new DataError(`${placeOf(name, table, row, column)}: expected ${kind}, got '${got}'.`);
      }
      values[row * order.length + i] = value;
    });
  });
  return values;
}

/** Samples with missing values replaced or left out, as the manifest says; `fault` makes the error for one. */
function withoutMissing({ rows, numbers }, input, notes, fault) {
  const { policy, codes = {}, fill } = input.missing ?? {};
  const size = rows.length / numbers.length;
  const codesAt = Array.from({ length: size }, (_, i) => (codes[input.features?.[i] ?? i] ?? []).map(Math.fround));
  const kept = [];
  let filled = 0;
  for (let sample = 0; sample < numbers.length; sample++) {
    let missing = false;
    for (let i = 0; i < size; i++) {
      const at = sample * size + i;
      if (!Number.isNaN(rows[at]) && !codesAt[i].includes(rows[at])) continue;
      if (policy !== "median" && policy !== "drop") throw fault(sample, i);
      missing = true;
      if (policy === "drop") continue;
      rows[at] = fill[i];
      filled++;
    }
    if (!missing || policy === "median") kept.push(sample);
  }
  const dropped = numbers.length - kept.length;
  if (filled) notes.push(`Missing values were replaced by medians: ${filled.toLocaleString("en")}.`);
  if (!dropped) return { rows, numbers };
  notes.push(`Samples with missing values were left out: ${dropped.toLocaleString("en")}.`);
  const left = new Float32Array(kept.length * size);
  kept.forEach((sample, i) => left.set(rows.subarray(sample * size, (sample + 1) * size), i * size));
  return { rows: left, numbers: kept.map((sample) => numbers[sample]) };
}

const placeOf = (name, { rows, names }, row, column) =>
  `${name}, line ${rows[row].line}, column ${names ? `'${names[column]}'` : column + 1}`;

const shortened = (names) =>
  names
    .slice(0, 6)
    .map((each) => `'${each}'`)
    .join(", ") + (names.length > 6 ? ", …" : "");

// --- recordings

/** Windows at the hop of the training; none crosses a gap in time. */
function windowsOf(name, table, values, input, notes) {
  const { channels, window, hop, calendar = [] } = input.signal;
  const [count, size, width] = [table.rows.length, channels.length, channels.length + 2 * calendar.length];
  const times = timesOf(name, table, input);
  const samples = new Float32Array(count * width);
  for (let row = 0; row < count; row++) {
    samples.set(values.subarray(row * size, (row + 1) * size), row * width);
    calendar.forEach((period, i) => {
      const [length, start] = period === "day" ? [DAY, 0] : [7 * DAY, MONDAY];
      const since = times.seconds[row] - start;
      const phase = (2 * Math.PI * (since - length * Math.floor(since / length))) / length;
      samples.set([Math.sin(phase), Math.cos(phase)], row * width + size + 2 * i);
    });
  }
  const starts = [];
  const gaps = [0, ...times.gaps, count];
  for (let i = 0; i + 1 < gaps.length; i++) {
    for (let at = gaps[i]; at + window <= gaps[i + 1]; at += hop) starts.push(at);
  }
  if (!starts.length)
    throw new DataError(`${name}: expected ${window} rows without a gap in time, as a window has, got fewer.`);
  const rows = new Float32Array(starts.length * window * width);
  starts.forEach((at, i) => rows.set(samples.subarray(at * width, (at + window) * width), i * window * width));
  notes.push(`${starts.length.toLocaleString("en")} windows of ${window} rows, hop ${hop}.`);
  if (times.gaps.length) notes.push(`Gaps in time, which no window crosses: ${times.gaps.length}.`);
  if (input.signal.time && !times.seconds)
    notes.push(`No column '${input.signal.time}' with times: gaps are not seen.`);
  return { rows, numbers: starts, width };
}

/** Seconds of each row, null where the table has none, and the rows before which some are missing. */
function timesOf(name, table, input) {
  const { calendar = [], time, rate, longest_step: longest } = input.signal;
  const column = timeColumn(table, input);
  if (column < 0) {
    if (!calendar.length) return { seconds: null, gaps: [] };
    throw new DataError(`${name}: expected a column '${time ?? "time"}', for the model takes the time of day or week.`);
  }
  const cells = table.rows.map(({ cells }) => cells[column].trim());
  const asNumber = table.number(cells[0]) !== null;
  const unit = EPOCHS.find(([low, high]) => cells[0] >= low && cells[0] <= high)?.[2];
  const seconds = cells.map((cell, row) => {
    const found = asNumber ? table.number(cell) * (unit ?? 1) : dateOf(cell);
    if (Number.isFinite(found)) return found;
    throw new DataError(
      `${placeOf(name, table, row, column)}: expected a time such as 2026-01-31T12:00:00Z, got '${cell.slice(0, 40)}'.`,
    );
  });
  if (calendar.length && asNumber && !unit) {
    throw new DataError(
      `${name}: expected dates in the column '${time}', for the model takes the time of day or week.`,
    );
  }
  const steps = seconds.slice(1).map((each, i) => each - seconds[i]);
  const usual = steps.filter((step) => step > 0).sort((a, b) => a - b)[Math.floor(steps.length / 2)];
  const most = longest ?? LONG_STEP * (rate ? 1 / rate : usual) * (1 + 1e-6);
  return { seconds, gaps: steps.flatMap((step, i) => (step > most || step < 0 ? [i + 1] : [])) };
}

/** ISO 8601, in UTC where it names no zone. */
function dateOf(text) {
  const found = text.match(/^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:\.\d+)?)?)?\s*(Z|[+-]\d\d:?\d\d)?$/);
  if (!found) return NaN;
  const zone = (found[4] ?? "Z").replace(/(\d\d)(\d\d)$/, "$1:$2");
  return Date.parse(`${found[1]}T${found[2] ?? "00:00"}${found[3] ?? ":00"}${zone}`) / 1000;
}
