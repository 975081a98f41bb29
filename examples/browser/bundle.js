// A bundle of aeedge, as docs/reference/bundle-format.md describes it: checked, verified and run.

import { DataError, latin1, product, readNpz } from "./archive.js";

const NEWEST_FORMAT = 3;
const LARGEST_MANIFEST = 64 * 2 ** 20;
const SEAL = '"manifest_sha256": "';
const ROLES = ["encoder", "decoder", "scorer"];
const TENSORS = { float32: Float32Array, uint8: Uint8Array, int16: Int16Array };
const REPEATED = 0.02; // of the tolerance: how much the same sample may differ from call to call
const LARGEST_TOLERANCE = 0.5; // of the magnitude of an output
const VALUES_AT_ONCE = 2 ** 18;

export class Bundle {
  /**
   * Check the files of a bundle: format, the manifest's own checksum, and each file's size and sha256.
   *
   * @param {Map<string, Uint8Array>} files by path; other files beside the bundle's are passed over.
   * @param ort the module onnxruntime-web, or onnxruntime-node.
   * @throws {DataError} no bundle, a newer format, a damaged or missing file.
   */
  static async open(files, ort) {
    if (!globalThis.crypto?.subtle) {
      throw new DataError(
        "This browser computes no checksums here: open the page under https:// or as http://localhost:8000/browser/.",
      );
    }
    const found = [...files.keys()].filter((path) => path.split("/").pop() === "manifest.json");
    if (found.length !== 1) {
      const got = found.length
        ? `${found.length} of them`
        : `none among ${files.size} ${files.size === 1 ? "file" : "files"}`;
      throw new DataError(`This is not one bundle: expected one manifest.json, got ${got}.`);
    }
    const folder = found[0].slice(0, -"manifest.json".length);
    const manifest = await readManifest(files.get(found[0]));
    checkRuntime(manifest.min_onnxruntime, ort);
    const bundle = new Bundle(manifest, ort);
    for (const [name, entry] of bundle.entries) {
      const bytes = files.get(folder + name);
      if (!bytes) throw new DataError(`${name} is missing: the manifest lists it; add it, or copy the bundle again.`);
      if (bytes.length !== entry.bytes) {
        throw new DataError(
          `${name} is damaged: expected ${entry.bytes} bytes, got ${bytes.length}; copy the bundle again.`,
        );
      }
      if ((await sha256(bytes)) !== entry.sha256) {
        throw new DataError(`${name} is damaged: its sha256 is not the one in the manifest; copy the bundle again.`);
      }
      bundle.files.set(name, bytes);
    }
    return bundle;
  }

  constructor(manifest, ort) {
    this.manifest = manifest;
    this.entries = listed(manifest);
    this.files = new Map();
    this.ort = ort;
    this.sessions = new Map();
    this.shape = manifest.input.shape;
    this.variants = Object.keys(manifest.variants).filter((name) => name === "fp32" || name === "int8");
    const rows = manifest.front_end ? manifest.front_end.shape : this.shape;
    this.scale = broadcast(manifest.score.scale, rows);
  }

  has(role, variant) {
    return this.files.has(fileName(role, variant));
  }

  /** What a variant computes, and the reference outputs tell. */
  outputs(variant) {
    const found = ["latent"];
    if (this.has("decoder", variant)) found.push("reconstruction");
    if (this.hasScore(variant)) found.push("score");
    if (this.manifest.front_end) found.push("features");
    return found;
  }

  /** Whether samples can be scored: by the scorer, or by encoder and decoder. */
  hasScore(variant) {
    return this.has("scorer", variant) || (this.has("decoder", variant) && this.manifest.score.kind === "mse");
  }

  /** Latents of `count` raw samples, flat: Float32Array of count · k. */
  encode(rows, variant) {
    return this.#run(fileName("encoder", variant), rows, this.manifest.input.dtype, this.shape);
  }

  /** Reconstructions of samples; with a front end, of their features. */
  async reconstruct(rows, variant) {
    const latents = await this.encode(rows, variant);
    const { size, shape } = this.manifest.latent;
    return this.#run(fileName("decoder", variant), latents, "float32", shape ?? [size]);
  }

  /** What the front end makes of samples. */
  features(rows) {
    return this.#run("features.onnx", rows, this.manifest.input.dtype, this.shape);
  }

  /** Anomaly scores, Float32Array of one for each sample. */
  async score(rows, variant) {
    if (this.has("scorer", variant)) {
      return this.#run(fileName("scorer", variant), rows, this.manifest.input.dtype, this.shape);
    }
    const residuals = this.#residuals(
      this.manifest.front_end ? await this.features(rows) : rows,
      await this.reconstruct(rows, variant),
    );
    const size = this.scale.length;
    const scores = new Float32Array(residuals.length / size);
    for (let i = 0; i < scores.length; i++) {
      let sum = 0;
      for (let j = 0; j < size; j++) sum += residuals[i * size + j] ** 2;
      scores[i] = sum / size;
    }
    return scores;
  }

  /** The threshold of a variant as float32; null where the bundle is not calibrated. */
  threshold(variant) {
    const found = this.manifest.calibration?.thresholds?.[variant];
    return found === undefined ? null : Math.fround(found);
  }

  /** Conformal p-values of scores; null where the bundle is not calibrated. */
  async pValues(scores, variant) {
    if (this.threshold(variant) === null) return null;
    const sorted = (await readNpz("calibration.npz", this.files.get("calibration.npz")))[`${variant}.score`].data;
    return Array.from(scores, (score) => {
      let [low, high] = [0, sorted.length]; // the first that is at least the score
      while (low < high) {
        const middle = (low + high) >> 1;
        if (sorted[middle] < score) low = middle + 1;
        else high = middle;
      }
      return Number.isNaN(score) ? NaN : (1 + sorted.length - low) / (sorted.length + 1);
    });
  }

  /**
   * Run the reference samples and compare with the recorded outputs, all at once and one by one.
   *
   * @returns a list of {variant, what, row, error, allowed, ok, equal, count}: the worst sample of each output, and how
   *   many of its values are equal to the bit.
   * @throws {DataError} the tolerances allow anything, or the network draws random numbers.
   */
  async verify() {
    const golden = await readNpz("golden.npz", this.files.get("golden.npz"));
    const found = [];
    for (const variant of this.variants) {
      for (const what of this.outputs(variant)) {
        const tolerance = this.manifest.variants[variant].tolerance?.[what];
        const [count, recorded] = [golden.input?.shape[0], golden[`${variant}.${what}`]];
        if (!tolerance || !(count > 0) || recorded?.shape[0] !== count) {
          throw new DataError(
            `The bundle does not say what the ${variant} ${what} should be, so it cannot be verified.`,
          );
        }
        found.push(await this.#compare(golden, variant, what, tolerance));
      }
    }
    return found;
  }

  async #compare(golden, variant, what, tolerance) {
    const { data: rows, shape } = golden.input;
    const recorded = golden[`${variant}.${what}`].data;
    const count = shape[0];
    const call = { latent: "encode", reconstruction: "reconstruct", score: "score", features: "features" }[what];
    const oneByOne = async () => {
      const size = product(this.shape);
      const parts = [];
      for (let i = 0; i < count; i++) parts.push(await this[call](rows.slice(i * size, (i + 1) * size), variant));
      return joined(parts);
    };
    const outputs = [await this[call](rows, variant), await oneByOne()];
    const base = golden[`${variant}.features`]?.data ?? rows;
    const comparable = (values) =>
      what === "reconstruction"
        ? this.#residuals(base, values)
        : what === "features"
          ? this.#residuals(values, null)
          : values;
    const expected = comparable(recorded);
    const allowed = (magnitude) => tolerance.atol + tolerance.rtol * magnitude;
    this.#checkTolerance(
      `${variant} ${what}`,
      what === "reconstruction" ? this.#residuals(recorded, null) : expected,
      allowed,
      what,
    );
    const again = worst(comparable(await oneByOne()), comparable(outputs[1]), count, allowed);
    if (!(again.error <= REPEATED * again.allowed)) {
      throw new DataError(
        `The ${variant} ${what} of one sample differs from call to call: the network draws random numbers.`,
      );
    }
    const all = outputs.map((values) => worst(comparable(values), expected, count, allowed));
    const found = all[1].error / all[1].allowed > all[0].error / all[0].allowed ? all[1] : all[0];
    const [a, b] = [new Uint32Array(outputs[0].buffer), new Uint32Array(recorded.buffer)];
    const equal = a.reduce((sum, bits, i) => sum + (bits === b[i]), 0);
    return { variant, what, ...found, ok: found.error <= found.allowed, equal, count: recorded.length };
  }

  #checkTolerance(name, values, allowed, what) {
    const magnitude = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
    if (what !== "score" && magnitude > 0 && allowed(magnitude) > LARGEST_TOLERANCE * magnitude) {
      throw new DataError(`The tolerance of the ${name} is too large beside its values, so it says nothing.`);
    }
  }

  /** (rows − others) / scale, or rows / scale. */
  #residuals(rows, others) {
    const found = new Float32Array(rows.length);
    const size = this.scale.length;
    for (let i = 0; i < rows.length; i++)
      found[i] = Math.fround(rows[i] - (others ? others[i] : 0)) / this.scale[i % size];
    return found;
  }

  async #run(name, values, dtype, shape) {
    const size = product(shape);
    const step = Math.max(1, Math.floor(VALUES_AT_ONCE / size));
    const parts = [];
    try {
      const session = await this.#session(name);
      for (let at = 0; at < values.length; at += step * size) {
        const part = TENSORS[dtype].from(values.subarray(at, at + step * size));
        const input = new this.ort.Tensor(dtype, part, [part.length / size, ...shape]);
        const outputs = await session.run({ [session.inputNames[0]]: input });
        parts.push(Float32Array.from(outputs[session.outputNames[0]].data));
      }
    } catch (error) {
      throw new DataError(
        `${name} cannot be run here: ${String(error.message ?? error)
          .split("\n")[0]
          .slice(0, 200)}.`,
      );
    }
    return joined(parts);
  }

  #session(name) {
    if (!this.sessions.has(name)) {
      this.sessions.set(name, this.ort.InferenceSession.create(this.files.get(name), { logSeverityLevel: 3 }));
    }
    return this.sessions.get(name);
  }
}

function joined(parts) {
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

/** The manifest, once its own checksum is right. */
async function readManifest(bytes) {
  const damaged = (why) => new DataError(`manifest.json is damaged: ${why}; copy the bundle again.`);
  if (bytes.length > LARGEST_MANIFEST) throw damaged("it is larger than 64 MiB");
  let manifest;
  try {
    manifest = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    throw damaged("it is not JSON");
  }
  if (manifest?.format !== "aeedge")
    throw new DataError("This is not a bundle of aeedge: manifest.json has another format.");
  if (!(manifest.format_version <= NEWEST_FORMAT)) {
    throw new DataError(
      `The bundle's format version is ${manifest.format_version}; this page reads up to ${NEWEST_FORMAT}.`,
    );
  }
  // The checksum is that of these bytes with its own digits replaced by zeros: numbers are never written anew.
  const at = latin1(bytes).indexOf(SEAL) + SEAL.length;
  const digits = latin1(bytes.subarray(at, at + 64));
  const blank = bytes.slice().fill(0x30, at, at + 64);
  if (at < SEAL.length || (await sha256(blank)) !== digits)
    throw damaged("its content does not match its own checksum");
  checkKeys(manifest);
  return manifest;
}

/** Refuse a manifest without what is needed here. */
function checkKeys({
  input,
  latent,
  variants,
  score,
  golden,
  min_onnxruntime: oldest,
  front_end: frontEnd,
  calibration,
}) {
  const isCount = (value) => Number.isInteger(value) && value > 0;
  const isShape = (value) => Array.isArray(value) && value.length > 0 && value.every(isCount);
  const isFile = (value) => typeof value?.sha256 === "string" && isCount(value.bytes);
  const right = {
    "input.shape": isShape(input?.shape),
    "input.dtype": Object.hasOwn(TENSORS, input?.dtype),
    "latent.size":
      isCount(latent?.size) && (!latent.shape || (isShape(latent.shape) && product(latent.shape) === latent.size)),
    variants:
      ["fp32", "int8"].some((name) => variants?.[name]) &&
      Object.values(variants).every((each) => isFile(each?.encoder)),
    score: typeof score?.kind === "string" && [score.scale].flat(Infinity).every((value) => value > 0),
    golden: isFile(golden),
    front_end: !frontEnd || (isShape(frontEnd.shape) && isFile(frontEnd.features)),
    calibration: !calibration || isFile(calibration),
    min_onnxruntime: typeof oldest === "string",
  };
  const wrong = Object.keys(right).find((key) => !right[key]);
  if (wrong)
    throw new DataError(`manifest.json is not as the format describes it: see ${wrong}; export the bundle again.`);
}

/** Name and entry of each file that a manifest lists. */
function listed(manifest) {
  const found = [];
  for (const [variant, entry] of Object.entries(manifest.variants)) {
    if (variant !== "fp32" && variant !== "int8") continue; // of a later aeedge
    for (const role of ROLES) if (entry[role]) found.push([fileName(role, variant), entry[role]]);
  }
  if (manifest.front_end) found.push(["features.onnx", manifest.front_end.features]);
  found.push(["golden.npz", manifest.golden]);
  if (manifest.calibration) found.push(["calibration.npz", manifest.calibration]);
  return found;
}

const fileName = (role, variant) => (variant === "fp32" ? `${role}.onnx` : `${role}.${variant}.onnx`);

function checkRuntime(oldest, ort) {
  const parts = (version) => version.split(".").map(Number);
  const [here, needed] = [parts(ort.env.versions.common), parts(oldest)];
  const at = needed.findIndex((part, i) => part !== here[i]);
  if (at >= 0 && needed[at] > here[at]) {
    throw new DataError(`The bundle needs onnxruntime ${oldest} or newer; this page has ${ort.env.versions.common}.`);
  }
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A number or nested lists as one number for each value of a sample, by numpy's rules. */
function broadcast(value, shape) {
  const own = [];
  for (let part = value; Array.isArray(part); part = part[0]) own.push(part.length);
  const flat = [value].flat(Infinity);
  const padded = [...Array(shape.length - own.length).fill(1), ...own];
  return Float32Array.from({ length: product(shape) }, (_, i) => {
    let [at, step] = [0, 1];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += step * (padded[axis] === 1 ? 0 : i % shape[axis]);
      step *= padded[axis];
      i = Math.floor(i / shape[axis]);
    }
    return flat[at];
  });
}

/** The sample that comes nearest to what is allowed, or exceeds it by the most. */
function worst(got, recorded, count, allowed) {
  const size = recorded.length / count;
  let found = { row: 0, error: 0, allowed: 0 };
  let most = -1;
  for (let row = 0; row < count; row++) {
    let [error, magnitude] = [0, 0];
    for (let i = row * size; i < (row + 1) * size; i++) {
      const difference = Object.is(got[i], recorded[i]) ? 0 : Math.abs(got[i] - recorded[i]);
      error = Math.max(error, Number.isNaN(difference) ? Infinity : difference);
      if (Number.isFinite(recorded[i])) magnitude = Math.max(magnitude, Math.abs(recorded[i]));
    }
    if (error / Math.max(allowed(magnitude), 1e-300) > most) {
      most = error / Math.max(allowed(magnitude), 1e-300);
      found = { row, error, allowed: allowed(magnitude) };
    }
  }
  return found;
}
