// Checks a bundle of aeedge on this machine, and computes latents, scores and alarms of a CSV file.
//
//     node verify.mjs BUNDLE [ROWS.csv]
//
// Exit code: 0 all is right, 1 the bundle or the rows are not, 2 wrong usage.

import * as aeedge from './bundle.mjs';
import { product } from './npz.mjs';
import { readRows } from './rows.mjs';

const USAGE = 'usage: node verify.mjs BUNDLE [ROWS.csv]';
const BLOCK = 1024; // rows that are computed at once
const REPEATED = 0.02; // of the tolerance: how much the same input may differ from call to call
const LARGEST = 0.5; // tolerance beside the size of what it is of

/** Run the reference inputs of all variants, and compare what comes out with what is recorded. */
async function verify(bundle, say) {
  say(bundle.path);
  say(`  ${'manifest.json'.padEnd(21)} its own checksum is right`);
  for (const name of Object.keys(bundle.files).sort()) say(`  ${name.padEnd(21)} sha256 is right`);
  const reference = aeedge.golden(bundle);
  for (const variant of Object.keys(bundle.variants)) {
    for (const [what, compute] of Object.entries(outputs(bundle, variant, reference.input.data))) {
      const { said } = await checked(bundle, variant, what, reference, compute);
      say(`  ${variant.padEnd(5)} ${what.padEnd(15)} ${said}`);
    }
  }
  say(`verified with onnxruntime ${aeedge.runtimeVersion}`);
}

// How each output of a variant is computed. Reconstructions are those of the variant's own latents.
function outputs(bundle, variant, samples) {
  const latent = () => aeedge.encode(bundle, samples, variant);
  return {
    latent,
    ...(bundle.manifest.front_end && { features: () => aeedge.features(bundle, samples) }),
    ...(bundle.variants[variant].graphs.decoder && {
      reconstruction: async () => aeedge.decode(bundle, await latent(), variant),
    }),
    ...(aeedge.hasScore(bundle, variant) && { score: () => aeedge.score(bundle, samples, variant) }),
  };
}

async function checked(bundle, variant, what, reference, compute) {
  const where = `${bundle.path} (${variant})`;
  const expected = reference[`${variant}.${what}`].data;
  const rows = reference.input.shape[0];
  const limit = bundle.variants[variant].tolerance[what];
  const x = (reference[`${variant}.features`] ?? reference.input).data;
  // Features and residuals are compared in units of the scale, so that small ones count as much as others.
  const units = (values) => (['features', 'reconstruction'].includes(what) ? divided(values, bundle.scale) : values);
  const compared = (values) => units(what === 'reconstruction' ? values.map((value, i) => x[i] - value) : values);

  const size = Math.sqrt(units(expected).reduce((total, value) => total + value * value, 0) / expected.length);
  const isLarge = limit.atol + limit.rtol * size > LARGEST * size && size > 0;
  if (what !== 'score' && isLarge) {
    throw new aeedge.BundleError(`${where}: its tolerance of the ${what} is too large beside the ${what} itself`);
  }
  const [got, again] = [await compute(), await compute()];
  if (compare(compared(again), compared(got), rows, limit).share > REPEATED) {
    throw new aeedge.BundleError(`${where}: the ${what} of the same input differs from call to call: it is random`);
  }
  const worst = compare(compared(got), compared(expected), rows, limit);
  if (!(worst.share <= 1)) {
    const { row, error, allowed } = worst;
    throw new aeedge.BundleError(
      `${where}: on this machine the ${what} of reference row ${row} (from 0) differs by ${error.toPrecision(3)}, ` +
        `allowed are ${allowed.toPrecision(3)}; do not use this variant here`,
    );
  }
  const equal = Buffer.compare(bytesOf(got), bytesOf(expected)) === 0;
  const percent = Number((100 * worst.share).toPrecision(2));
  return { said: equal ? 'equal to the bit' : `within tolerance, uses ${percent} % of it` };
}

const divided = (values, scale) => Float64Array.from(values, (value, i) => value / scale[i % scale.length]);
const bytesOf = ({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength);

// The row that uses the most of its tolerance: its largest error may be atol + rtol times its largest expected value.
function compare(got, expected, rows, { rtol, atol }) {
  const size = expected.length / rows;
  let worst = { share: -1 };
  for (let row = 0; row < rows; row++) {
    let [error, magnitude] = [0, 0];
    for (let i = row * size; i < (row + 1) * size; i++) {
      if (Number.isFinite(expected[i])) magnitude = Math.max(magnitude, Math.abs(expected[i]));
      if (got[i] === expected[i] || (Number.isNaN(got[i]) && Number.isNaN(expected[i]))) continue; // also infinities
      const difference = Math.abs(got[i] - expected[i]);
      error = Math.max(error, Number.isNaN(difference) ? Infinity : difference);
    }
    const allowed = atol + rtol * magnitude;
    const share = error / Math.max(allowed, 1e-300);
    if (share > worst.share) worst = { share, row, error, allowed };
  }
  return worst;
}

/** Latents, scores and alarms of a file as a CSV, by the bundle's default variant. */
async function compute(bundle, file) {
  const { samples, count, starts, leftOut } = await readRows(bundle, file);
  if (leftOut) console.error(`${file}: ${leftOut} rows with missing values were left out`);
  const [size, latents] = [product(bundle.inputShape), product(bundle.latentShape)];
  const [hasScore, limit] = [aeedge.hasScore(bundle), aeedge.threshold(bundle)];
  const names = [
    ...(starts ? ['start'] : []),
    ...Array.from({ length: latents }, (_, i) => `latent_${i}`),
    ...(hasScore ? ['score'] : []),
    ...(hasScore && limit !== undefined ? ['alarm'] : []),
  ];
  process.stdout.write(`${names}\n`);
  for (let at = 0; at < count; at += BLOCK) {
    const block = samples.subarray(at * size, Math.min(at + BLOCK, count) * size);
    const latent = await aeedge.encode(bundle, block);
    const scores = hasScore ? await aeedge.score(bundle, block) : null;
    for (let row = 0; row < block.length / size; row++) {
      const cells = starts ? [starts[at + row]] : [];
      cells.push(...latent.subarray(row * latents, (row + 1) * latents).map(Number));
      if (scores) cells.push(scores[row]);
      if (scores && limit !== undefined) cells.push(Number(!(scores[row] <= limit))); // NaN alarms
      process.stdout.write(`${cells.map((cell) => (Number.isInteger(cell) ? cell : Number(cell.toPrecision(9))))}\n`);
    }
  }
}

const words = process.argv.slice(2);
const wantsHelp = words.length === 1 && ['--help', '-h'].includes(words[0]);
if (wantsHelp) {
  console.log(USAGE);
} else if (words.length < 1 || words.length > 2 || words[0].startsWith('-')) {
  console.error(USAGE);
  process.exitCode = 2;
} else {
  try {
    const [path, file] = words;
    const bundle = await aeedge.loadBundle(path);
    await verify(bundle, file ? console.error : console.log); // with rows, standard output is a CSV
    if (file) await compute(bundle, file);
  } catch (error) {
    console.error(`verify.mjs: ${error.message.replace(/\p{Cc}+/gu, ' ')}`); // one line, also of what others say
    process.exitCode = 1;
  }
}
