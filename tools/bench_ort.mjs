// bench_ort.mjs - time ONNX Runtime: node bench_ort.mjs FOLDER [MODEL.onnx THREADS BATCH SECONDS]
//
// FOLDER has node_modules with onnxruntime-node. Prints the median of the runs in milliseconds; with "start" for SECONDS,
// what making the session took and what the first run took; without a model, the version.
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { performance } from "node:perf_hooks";

const WARM_UP = 2;
const LEAST_RUNS = 3;
const [folder, model, ...numbers] = process.argv.slice(2);
const load = createRequire(resolve(folder, "package.json"));

// Numbers from -1 to 1 for the session's only input, which takes images of 3 x 224 x 224.
function madeUpImages(ort, batch) {
    const values = new Float32Array(batch * 3 * 224 * 224);
    for (let i = 0; i < values.length; i++) values[i] = ((i * 7919) % 2048) / 1024 - 1;
    return new ort.Tensor("float32", values, [batch, 3, 224, 224]);
}

async function timeRun(session, inputs) {
    const start = performance.now();
    await session.run(inputs);
    return performance.now() - start;
}

function makeSession(ort, threads) {
    return ort.InferenceSession.create(model, { intraOpNumThreads: threads, interOpNumThreads: 1 });
}

async function startTimes(threads, batch) {
    const ort = load("onnxruntime-node");
    const start = performance.now();
    const session = await makeSession(ort, threads);
    const made = performance.now() - start;
    const first = await timeRun(session, { [session.inputNames[0]]: madeUpImages(ort, batch) });
    return `${made.toFixed(2)} ${first.toFixed(2)}`;
}

async function medianTime(threads, batch, seconds) {
    const ort = load("onnxruntime-node");
    const session = await makeSession(ort, threads);
    const inputs = { [session.inputNames[0]]: madeUpImages(ort, batch) };
    for (let i = 0; i < WARM_UP; i++) await timeRun(session, inputs);
    const times = [];
    const end = performance.now() + 1000 * seconds;
    while (times.length < LEAST_RUNS || performance.now() < end) times.push(await timeRun(session, inputs));
    times.sort((a, b) => a - b);
    return (times[(times.length - 1) >> 1] + times[times.length >> 1]) / 2;
}

if (numbers[2] === "start") console.log(await startTimes(Number(numbers[0]), Number(numbers[1])));
else if (model) console.log((await medianTime(...numbers.map(Number))).toFixed(4));
else console.log(load("onnxruntime-node/package.json").version);
process.exit(0); // its threads would keep the process
