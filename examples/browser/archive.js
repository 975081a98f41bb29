// Archives in memory: the files in a .zip, .tar or .tar.gz, and the arrays of an .npz.

const LARGEST = 2 ** 30; // bytes of one file when unpacked

/** What a file holds cannot be used; the message is one sentence for people. */
export class DataError extends Error {}

/** Files of an archive by path: Map of string to Uint8Array. Null where the bytes are of no archive. */
export async function readArchive(name, bytes) {
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    return readArchive(name, await inflate(bytes, "gzip", LARGEST, name));
  }
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) return readZip(name, bytes);
  if (latin1(bytes.subarray(257, 262)) === "ustar") return readTar(bytes);
  return null;
}

/** Files of a .zip, stored or deflated, by path. */
export async function readZip(name, bytes) {
  const damaged = () => new DataError(`${name}: it cannot be unpacked, so it is damaged; copy it again.`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw damaged();
  const files = new Map();
  try {
    let at = view.getUint32(end + 16, true);
    for (let left = view.getUint16(end + 10, true); left > 0; left--) {
      if (view.getUint32(at, true) !== 0x02014b50) throw damaged();
      const [method, packed, size] = [
        view.getUint16(at + 10, true),
        view.getUint32(at + 20, true),
        view.getUint32(at + 24, true),
      ];
      const lengths = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
      const local = view.getUint32(at + 42, true);
      const path = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + lengths[0]));
      const begin = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
      const data = bytes.subarray(begin, begin + packed);
      if (data.length !== packed || size > LARGEST || (method !== 0 && method !== 8)) throw damaged();
      if (!path.endsWith("/")) files.set(path, method ? await inflate(data, "deflate-raw", size, name) : data);
      at += 46 + lengths[0] + lengths[1] + lengths[2];
    }
  } catch (error) {
    throw error instanceof RangeError ? damaged() : error;
  }
  return files;
}

function readTar(bytes) {
  const files = new Map();
  const text = (at, length) => latin1(bytes.subarray(at, at + length)).replace(/\0.*$/s, "");
  for (let at = 0; at + 512 <= bytes.length && bytes[at];) {
    const size = parseInt(text(at + 124, 12), 8) || 0;
    const folder = text(at + 345, 155);
    if ("0\0".includes(String.fromCharCode(bytes[at + 156]))) {
      files.set((folder ? `${folder}/` : "") + text(at, 100), bytes.subarray(at + 512, at + 512 + size));
    }
    at += 512 + 512 * Math.ceil(size / 512);
  }
  return files;
}

/** Unpack bytes, and no more than `most` of them. */
async function inflate(bytes, format, most, name) {
  const parts = [];
  let size = 0;
  try {
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format)).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      size += part.value.length;
      if (size > most) throw new RangeError("larger than it says");
      parts.push(part.value);
    }
  } catch {
    throw new DataError(`${name}: it cannot be unpacked, so it is damaged; copy it again.`);
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const ARRAYS = { "<f4": Float32Array, "|u1": Uint8Array, "<i2": Int16Array, "<i8": BigInt64Array };

/** Arrays of an .npz by name: {shape, data}; those of a dtype that no bundle needs are passed over. */
export async function readNpz(name, bytes) {
  const arrays = {};
  for (const [path, file] of await readZip(name, bytes)) {
    const size = file[8] + 256 * file[9];
    const header = latin1(file.subarray(10, 10 + size)).match(
      /^\{'descr': '(.{2,4})', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n$/,
    );
    if (!header || !(header[1] in ARRAYS)) continue;
    const shape = header[2]
      .split(",")
      .map((part) => part.trim())
      .filter(Boolean)
      .map(Number);
    const data = new ARRAYS[header[1]](file.slice(10 + size).buffer);
    if (data.length !== product(shape)) throw new DataError(`${name}: ${path} has another size than it says.`);
    arrays[path.replace(/\.npy$/, "")] = { shape, data };
  }
  return arrays;
}

/** Bytes as text of as many characters. */
export function latin1(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

export const product = (numbers) => numbers.reduce((a, b) => a * b, 1);
