// Arrays of a numpy archive (.npz): a ZIP file of .npy files, stored or deflated.

import { inflateRawSync } from 'node:zlib';

const MOST_ROWS = 4096;
const MOST_HEADER = 1024; // bytes
const TYPES = { '<f4': Float32Array, '|u1': Uint8Array, '<i2': Int16Array };
const HEADER = /^\{'descr': '([^']{2,4})', 'fortran_order': (True|False), 'shape': \(([\d, ]{0,200})\), \} *\n$/;

/** The bundle is damaged, does not fit this machine, or is not reproduced on it; or the rows do not fit the bundle. */
export class BundleError extends Error {}

export const product = (shape) => shape.reduce((a, b) => a * b, 1);

/**
 * The wanted arrays of an archive, in C order; others are passed over.
 * @param {Buffer} zip
 * @param {Object<string, {descr: string, row: number[]}>} wanted dtype and shape of a row, by name
 * @returns {Object<string, {shape: number[], data: Float32Array|Uint8Array|Int16Array}>} all of as many rows
 */
export function readNpz(zip, wanted) {
  const entries = zipEntries(zip);
  const arrays = {};
  for (const [name, { descr, row }] of Object.entries(wanted)) {
    const entry = entries.get(`${name}.npy`);
    if (!entry) throw new BundleError(`it lacks '${name}'`);
    const most = 10 + MOST_HEADER + MOST_ROWS * product(row) * TYPES[descr].BYTES_PER_ELEMENT;
    try {
      arrays[name] = npyArray(unpacked(zip, entry, most), descr, row);
    } catch (error) {
      throw new BundleError(`'${name}' in it cannot be read: ${error.message}`);
    }
  }
  if (new Set(Object.values(arrays).map((array) => array.shape[0])).size !== 1) {
    throw new BundleError('it has arrays of different numbers of rows');
  }
  return arrays;
}

// Entries of the central directory. The sizes in front of the files themselves are no use: numpy leaves them blank.
function zipEntries(zip) {
  const end = zip.lastIndexOf('PK\x05\x06', undefined, 'latin1');
  if (end < 0) throw new BundleError('it is no ZIP archive');
  try {
    const entries = new Map();
    let at = zip.readUInt32LE(end + 16);
    for (let left = zip.readUInt16LE(end + 10); left > 0; left--) {
      if (zip.readUInt32LE(at) !== 0x02014b50) throw new BundleError('its directory is damaged');
      const [name, extra, comment] = [28, 30, 32].map((offset) => zip.readUInt16LE(at + offset));
      entries.set(zip.toString('utf8', at + 46, at + 46 + name), {
        method: zip.readUInt16LE(at + 10),
        packed: zip.readUInt32LE(at + 20),
        size: zip.readUInt32LE(at + 24),
        at: zip.readUInt32LE(at + 42),
      });
      at += 46 + name + extra + comment;
    }
    return entries;
  } catch (error) {
    throw new BundleError(error instanceof RangeError ? 'it ends too early' : error.message);
  }
}

function unpacked(zip, { method, packed, size, at }, most) {
  const start = at + 30 + zip.readUInt16LE(at + 26) + zip.readUInt16LE(at + 28);
  if (start + packed > zip.length || size > most) throw new BundleError('it is of another size than expected');
  const data = zip.subarray(start, start + packed);
  if (method === 0) return data;
  if (method !== 8) throw new BundleError('it is compressed in an unknown way');
  return inflateRawSync(data, { maxOutputLength: size });
}

function npyArray(npy, descr, row) {
  const size = npy.readUInt16LE(8);
  const header = npy.toString('latin1', 10, 10 + Math.min(size, MOST_HEADER)).match(HEADER);
  if (npy.toString('latin1', 0, 8) !== '\x93NUMPY\x01\x00' || !header) {
    throw new BundleError("it is no array of numbers in numpy's format 1.0");
  }
  const shape = (header[3].match(/\d+/g) ?? []).map(Number);
  const fits = header[1] === descr && shape[0] >= 1 && shape[0] <= MOST_ROWS && String(shape.slice(1)) === String(row);
  if (!fits) throw new BundleError('it is of another dtype or shape than the manifest says');
  const type = TYPES[descr];
  const bytes = npy.subarray(10 + size);
  if (bytes.length !== product(shape) * type.BYTES_PER_ELEMENT) {
    throw new BundleError('it is of another size than expected');
  }
  const data = new type(new Uint8Array(bytes).buffer); // a copy, for bytes need not be aligned
  return { shape, data: header[2] === 'True' ? cOrder(data, shape) : data };
}

// Values of an array in Fortran order, the first index the fastest, in C order.
function cOrder(data, shape) {
  const found = new data.constructor(data.length);
  const index = shape.map(() => 0);
  for (const value of data) {
    found[shape.reduce((at, size, axis) => at * size + index[axis], 0)] = value;
    for (let axis = 0; axis < shape.length && ++index[axis] === shape[axis]; axis++) index[axis] = 0;
  }
  return found;
}
