// Samples of a CSV file for a bundle.
//
// The file is plain: commas, decimal points, no quotes, one row for each sample, flat in C order; of a signal one row
// for each point in time. With a header, columns are found by the bundle's names, if any, and others passed over.

import { readFile } from 'node:fs/promises';

import { BundleError, product } from './npz.mjs';

const RANGES = { uint8: [0, 255], int16: [-32768, 32767] };

/**
 * The samples of a file, missing values filled or their samples left out as the bundle says.
 * @returns {Promise<{samples: Float32Array, count: number, starts: number[]|undefined, leftOut: number}>} samples
 *     (count, ...inputShape), flat; of windows of a signal the first row of each, counted from 0
 * @throws {BundleError}
 */
export async function readRows(bundle, file) {
  const { signal, features } = bundle.manifest.input;
  const size = product(bundle.inputShape);
  if (!signal) return treated(bundle, file, await table(file, features, size));
  if (signal.calendar.length > 0) {
    throw new BundleError(`${file}: this program makes no calendar channels, which the bundle needs`);
  }
  const { channels, window, hop } = signal;
  const width = channels.length;
  if (String([window, width]) !== String(bundle.inputShape) || !(hop >= 1)) {
    throw new BundleError('the manifest has windows that are no samples');
  }
  const values = await table(file, channels, width);
  const starts = [];
  for (let start = 0; (start + window) * width <= values.length; start += hop) starts.push(start);
  if (starts.length === 0) throw new BundleError(`${file}: it is shorter than a window of ${window} rows`);
  const windows = starts.flatMap((start) => values.slice(start * width, (start + window) * width));
  return treated(bundle, file, windows, starts);
}

// A number, NaN for an empty cell, undefined for anything else.
function parse(cell) {
  if (cell === '' || cell.toLowerCase() === 'nan') return NaN;
  const number = Number(cell.replace(/inf(inity)?$/i, 'Infinity'));
  return Number.isNaN(number) ? undefined : number;
}

// All numbers of a table, row by row.
async function table(file, names, width) {
  let text;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw new BundleError(`${file}: it cannot be read (${error.code})`);
  }
  const lines = text
    .replace(/^\uFEFF/, '')
    .split('\n')
    .map((line, i) => ({ cells: line.split(',').map((cell) => cell.trim()), number: i + 1 }))
    .filter(({ cells }) => cells.length > 1 || cells[0] !== '');
  if (lines.length === 0) throw new BundleError(`${file}: it has no rows`);
  const first = lines[0].cells;
  const hasHeader = first.some((cell) => parse(cell) === undefined);
  const columns = columnsOf(file, first, hasHeader ? names : null, width);
  const rows = lines.slice(hasHeader ? 1 : 0);
  if (rows.length === 0) throw new BundleError(`${file}: it has no rows`);
  return rows.flatMap(({ cells, number }) => {
    const where = `${file}, line ${number}`;
    if (cells.length !== first.length) {
      throw new BundleError(`${where}: it has ${cells.length} columns, those before have ${first.length}`);
    }
    return columns.map((at) => {
      const value = parse(cells[at]);
      if (value === undefined) throw new BundleError(`${where}: '${cells[at]}' is no number`);
      return Math.fround(value);
    });
  });
}

function columnsOf(file, header, names, width) {
  if (names) {
    return names.map((name) => {
      const at = header.indexOf(name);
      if (at < 0) throw new BundleError(`${file}: it has no column '${name}', which the bundle needs`);
      return at;
    });
  }
  if (header.length !== width) {
    throw new BundleError(`${file}: it has ${header.length} columns, the bundle needs ${width}`);
  }
  return header.map((_, i) => i);
}

function treated(bundle, file, values, starts) {
  const { features, missing } = bundle.manifest.input;
  const size = product(bundle.inputShape);
  const codes = Array.from({ length: size }, () => new Set());
  for (const [name, list] of Object.entries(missing?.codes ?? {})) {
    const at = features ? features.indexOf(name) : -1;
    const place = at < 0 ? Number(name) : at;
    if (!codes[place]) throw new BundleError(`the manifest has codes for no value '${name}'`);
    codes[place] = new Set(list.map(Math.fround));
  }
  const found = { samples: [], count: 0, starts: starts && [], leftOut: 0 };
  for (let row = 0; row * size < values.length; row++) {
    const sample = values.slice(row * size, (row + 1) * size);
    const absent = sample.map((value, i) => Number.isNaN(value) || codes[i].has(value));
    if (missing?.policy === 'drop' && absent.includes(true)) {
      found.leftOut++;
      continue;
    }
    const whole = missing?.fill ? sample.map((value, i) => (absent[i] ? Math.fround(missing.fill[i]) : value)) : sample;
    const wrong = whole.findIndex((value) => !fits(value, bundle.dtype));
    if (wrong >= 0) {
      const is = Number.isNaN(whole[wrong]) ? 'missing' : `no ${bundle.dtype}`;
      throw new BundleError(`${file}: value ${wrong} of sample ${row} (both from 0) is ${is}`);
    }
    found.samples.push(whole);
    found.starts?.push(starts[row]);
    found.count++;
  }
  if (found.count === 0) throw new BundleError(`${file}: all its rows have missing values`);
  return { ...found, samples: Float32Array.from(found.samples.flat()) };
}

function fits(value, dtype) {
  if (dtype === 'float32') return Number.isFinite(value);
  const [low, high] = RANGES[dtype];
  return Number.isInteger(value) && value >= low && value <= high;
}
