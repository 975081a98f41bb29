// A bundle of aeedge: checked when it is loaded, then samples to latents, reconstructions and scores.
// The format: docs/reference/bundle-format.md.
//
//     import { loadBundle, encode, score } from './bundle.mjs';
//     const bundle = await loadBundle('motor.aeedge');
//     const latents = await encode(bundle, new Float32Array([…])); // samples (n, ...bundle.inputShape), flat

import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { devNull } from 'node:os';
import { join } from 'node:path';

import { BundleError, product, readNpz } from './npz.mjs';

// Some builds send telemetry unless they are told otherwise, before they start.
process.env.ORT_DISABLE_TELEMETRY = '1';
const { default: ort } = await import('onnxruntime-node');

export { BundleError };
export const runtimeVersion = ort.env.versions.node;

const LARGEST_MANIFEST = 64 * 2 ** 20; // bytes
const TYPES = { float32: Float32Array, uint8: Uint8Array, int16: Int16Array };
const DESCR = { float32: '<f4', uint8: '|u1', int16: '<i2' };
const OPTIONS = {
  intraOpNumThreads: 1,
  logSeverityLevel: 4, // errors are thrown
  // Sums of int8 graphs are exact also on x86 without VNNI; files are ONNX, and have no weights outside.
  extra: {
    session: {
      x64quantprecision: '1',
      load_model_format: 'ONNX',
      model_external_initializers_file_folder_path: devNull,
    },
  },
};

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/**
 * Read a bundle, and compare all its files with the checksums.
 * @param {string} path its folder
 * @returns {Promise<object>} `manifest`; `variants`, name to {graphs, tolerance}; `inputShape`, `latentShape` and
 *     `featuresShape` of one sample (features are the sample itself without a front end); `dtype`; `scale` of
 *     residuals, flat, in the shape of features; `files`, name to content
 * @throws {BundleError}
 */
export async function loadBundle(path) {
  const place = join(path, 'manifest.json');
  const data = await readBytes(place);
  let bundle;
  let entries;
  try {
    bundle = { path, sessions: new Map(), files: {}, ...readManifest(data) };
    entries = filesOf(bundle);
  } catch (error) {
    const isSaid = error instanceof BundleError || error instanceof SyntaxError;
    const said = isSaid ? error.message : `a key is missing, or of another type than expected (${error.message})`;
    throw new BundleError(`${place}: ${said}; copy the bundle again`);
  }
  for (const [name, entry] of Object.entries(entries)) {
    const bytes = await readBytes(join(path, name), entry.bytes);
    if (sha256(bytes) !== entry.sha256) {
      throw new BundleError(`${join(path, name)}: its sha256 is not the manifest's; copy the bundle again`);
    }
    bundle.files[name] = bytes;
  }
  return bundle;
}

/** Samples, flat values of (n, ...inputShape), to latents (n, ...latentShape) as a Float32Array. */
export const encode = (bundle, samples, variant = bundle.defaultVariant) => run(bundle, 'encoder', samples, variant);

/** Latents to reconstructions (n, ...featuresShape). */
export const decode = (bundle, latents, variant = bundle.defaultVariant) => run(bundle, 'decoder', latents, variant);

/** Samples to what the network learnt from, (n, ...featuresShape): the samples themselves without a front end. */
export const features = (bundle, samples) =>
  bundle.manifest.front_end ? run(bundle, 'features', samples, bundle.defaultVariant) : samples;

/** Whether a variant has scores: it has a scorer, or a decoder. */
export const hasScore = (bundle, variant = bundle.defaultVariant) => 'score' in bundle.variants[variant].tolerance;

/** Samples to scores (n,); higher is more anomalous. */
export async function score(bundle, samples, variant = bundle.defaultVariant) {
  if (bundle.variants[variant].graphs.scorer) return run(bundle, 'scorer', samples, variant);
  const reconstruction = await decode(bundle, await encode(bundle, samples, variant), variant);
  const [x, { scale }] = [await features(bundle, samples), bundle];
  const scores = new Float32Array(x.length / scale.length);
  for (let row = 0; row < scores.length; row++) {
    let total = 0;
    for (let i = 0; i < scale.length; i++) {
      const at = row * scale.length + i;
      total += ((x[at] - reconstruction[at]) / scale[i]) ** 2;
    }
    scores[row] = total / scale.length;
  }
  return scores;
}

/** The score above which a variant alarms, or undefined where it is not calibrated. */
export function threshold(bundle, variant = bundle.defaultVariant) {
  const found = bundle.manifest.calibration?.thresholds[variant];
  return found === undefined ? undefined : Math.fround(found);
}

/** Reference inputs and outputs, as flat arrays: 'input', 'fp32.latent', … */
export function golden(bundle) {
  const wanted = { input: { descr: DESCR[bundle.dtype], row: bundle.inputShape } };
  const rows = { latent: bundle.latentShape, score: [] };
  for (const [variant, { tolerance }] of Object.entries(bundle.variants)) {
    for (const what of Object.keys(tolerance)) {
      wanted[`${variant}.${what}`] = { descr: '<f4', row: rows[what] ?? bundle.featuresShape };
    }
  }
  try {
    return readNpz(bundle.files['golden.npz'], wanted);
  } catch (error) {
    throw new BundleError(`${join(bundle.path, 'golden.npz')}: ${error.message}`);
  }
}

async function readBytes(path, expected) {
  let size;
  try {
    ({ size } = await stat(path));
    if (expected === undefined && size > LARGEST_MANIFEST) throw new BundleError('it is too large for a manifest');
    if (size === (expected ?? size)) return await readFile(path);
  } catch (error) {
    throw new BundleError(`${path}: it cannot be read (${error.code ?? error.message}); copy the bundle again`);
  }
  throw new BundleError(`${path}: it has ${size} bytes, expected ${expected}; copy the bundle again`);
}

function readManifest(data) {
  const manifest = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data));
  if (manifest?.format !== 'aeedge') throw new BundleError('it is no manifest of an aeedge bundle');
  const version = manifest.format_version;
  if (![1, 2, 3].includes(version)) {
    throw new BundleError(`its format version is ${version}, this program reads 1 to 3`);
  }
  checkSeal(data);
  const least = String(manifest.min_onnxruntime);
  if (isOlder(runtimeVersion, least)) throw new BundleError(`it needs onnxruntime ${least}, this is ${runtimeVersion}`);
  const { shape: inputShape, dtype } = manifest.input;
  if (!(dtype in TYPES)) throw new BundleError('its input is of an unknown dtype');
  const latentShape = manifest.latent.shape ?? [manifest.latent.size];
  const featuresShape = manifest.front_end?.shape ?? inputShape;
  for (const shape of [inputShape, latentShape, featuresShape]) {
    const isShape = shape.length > 0 && shape.every((size) => Number.isInteger(size) && size > 0);
    if (!isShape || product(shape) >= 2 ** 31) throw new BundleError('a shape in it is none');
  }
  const { kind, scale } = manifest.score;
  if (!['mse', 'mahalanobis', 'both'].includes(kind)) throw new BundleError('its score is of an unknown kind');
  const variants = {};
  for (const name of ['fp32', 'int8']) {
    if (manifest.variants[name]) variants[name] = readVariant(manifest, name, kind);
  }
  const defaultVariant = manifest.default_variant;
  if (!Object.hasOwn(variants, defaultVariant)) throw new BundleError('its default variant is none of its variants');
  return {
    manifest, inputShape, latentShape, featuresShape, dtype, variants, defaultVariant,
    scale: broadcast(scale, featuresShape),
  };
}

// The self-checksum is of the file's bytes, with zeros in its own place.
function checkSeal(data) {
  const key = '"manifest_sha256": "';
  const at = data.indexOf(key) + key.length;
  if (at < key.length) throw new BundleError('it has no manifest_sha256');
  const blank = Buffer.from(data);
  blank.fill('0', at, at + 64);
  if (sha256(blank) !== data.toString('latin1', at, at + 64)) {
    throw new BundleError('it was changed after it was written, for its own checksum differs');
  }
}

function readVariant(manifest, name, kind) {
  const of = manifest.variants[name];
  const { encoder, decoder, scorer } = of;
  if (!encoder) throw new BundleError(`its variant ${name} has no encoder`);
  if (kind !== 'mse' && !scorer) throw new BundleError(`its variant ${name} has no scorer`);
  const graphs = { encoder, ...(decoder && { decoder }), ...(scorer && (decoder || kind !== 'mse') && { scorer }) };
  const outputs = ['latent'];
  if (manifest.front_end) outputs.push('features');
  if (graphs.decoder) outputs.push('reconstruction');
  if (graphs.decoder || graphs.scorer) outputs.push('score');
  const tolerance = {};
  for (const what of outputs) {
    const { rtol, atol } = of.tolerance[what];
    if (!Number.isFinite(rtol) || !Number.isFinite(atol)) throw new BundleError(`its tolerance of the ${what} is none`);
    tolerance[what] = { rtol, atol };
  }
  return { graphs, tolerance };
}

// All files that the manifest lists. Their names follow from role and variant; it contains none.
function filesOf({ manifest, variants }) {
  const found = { 'golden.npz': manifest.golden };
  if (manifest.calibration) found['calibration.npz'] = manifest.calibration;
  if (manifest.front_end) found['features.onnx'] = manifest.front_end.features;
  for (const [variant, { graphs }] of Object.entries(variants)) {
    for (const [role, entry] of Object.entries(graphs)) found[fileName(role, variant)] = entry;
  }
  const wrong = Object.keys(found).find((name) => !(found[name]?.sha256?.length === 64 && found[name].bytes > 0));
  if (wrong) throw new BundleError(`it has no sha256 or size of ${wrong}`);
  return found;
}

const fileName = (role, variant) =>
  variant === 'fp32' || role === 'features' ? `${role}.onnx` : `${role}.${variant}.onnx`;

// A number or nested lists, repeated to a shape as numpy broadcasts: axes are matched from the last, those of 1 repeat.
function broadcast(node, shape) {
  const from = [];
  for (let inner = node; Array.isArray(inner); inner = inner[0]) from.push(inner.length);
  const values = [node].flat(Infinity);
  const lead = shape.length - from.length;
  const fits = from.every((size, axis) => size === 1 || size === shape[lead + axis]);
  if (lead < 0 || !fits || values.length !== product(from) || !values.every((v) => v > 0 && Number.isFinite(v))) {
    throw new BundleError('its score has a scale that does not fit, or is not above 0');
  }
  return Float32Array.from({ length: product(shape) }, (_, i) => {
    let [at, stride, left] = [0, 1, i];
    for (let axis = shape.length - 1; axis >= lead; axis--) {
      const size = from[axis - lead];
      at += (size === 1 ? 0 : left % shape[axis]) * stride;
      stride *= size;
      left = Math.floor(left / shape[axis]);
    }
    return values[at];
  });
}

function isOlder(version, least) {
  const [a, b] = [version, least].map((text) => text.match(/\d+/g)?.slice(0, 3).map(Number) ?? []);
  const at = [0, 1, 2].find((i) => (a[i] ?? 0) !== (b[i] ?? 0));
  return at !== undefined && (a[at] ?? 0) < (b[at] ?? 0);
}

async function run(bundle, role, values, variant) {
  const isDecoder = role === 'decoder';
  const row = isDecoder ? bundle.latentShape : bundle.inputShape;
  const rowOut = { encoder: bundle.latentShape, scorer: [] }[role] ?? bundle.featuresShape;
  const dtype = isDecoder ? 'float32' : bundle.dtype;
  const name = fileName(role, variant);
  try {
    if (!bundle.sessions.has(name)) {
      const session = await ort.InferenceSession.create(bundle.files[name], OPTIONS);
      checkGraph(session, dtype, row, rowOut);
      bundle.sessions.set(name, session);
    }
    const session = bundle.sessions.get(name);
    const rows = values.length / product(row);
    const input = new ort.Tensor(dtype, TYPES[dtype].from(values), [rows, ...row]);
    const outputs = await session.run({ [session.inputNames[0]]: input });
    const { data } = outputs[session.outputNames[0]];
    if (data.length !== rows * product(rowOut)) throw new BundleError('its output is not what the manifest says');
    return data;
  } catch (error) {
    throw new BundleError(`${join(bundle.path, name)}: ${error.message}`);
  }
}

function checkGraph({ inputMetadata, outputMetadata }, dtype, row, rowOut) {
  const is = (tensors, type, shape) =>
    tensors.length === 1 && tensors[0].type === type && String(tensors[0].shape.slice(1)) === String(shape);
  if (!is(inputMetadata, dtype, row) || !is(outputMetadata, 'float32', rowOut)) {
    throw new BundleError('its input or output is not what the manifest says');
  }
}
