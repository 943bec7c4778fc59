// Builds dist/: one module with the generated code inside, its types, and with
// --tests the compiled tests. Run it by `npm run build`.
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");

rmSync(dist, { recursive: true, force: true });
await buildModule();
buildTypes();
if (process.argv.includes("--tests")) {
  await buildTests();
}

async function buildModule() {
  await build({
    entryPoints: [join(here, "src/index.ts")],
    outfile: join(dist, "index.js"),
    bundle: true,
    format: "esm",
    target: "es2022",
    sourcemap: true,
    // The runtime stays outside, so that an app that has it doesn't get it twice.
    external: ["@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web"],
    logLevel: "warning",
  });
}

/** Writes the declarations of src/ and, beside them, those of the generated code, which nobody else publishes. */
function buildTypes() {
  const emitted = join(dist, ".types");
  const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  execFileSync(process.execPath, [tsc, "-p", join(here, "tsconfig.build.json"), "--outDir", emitted], {
    stdio: "inherit",
  });
  place(join(emitted, "sdk/ts/src"), dist);
  place(join(emitted, "gen/ts/src/tcoder/v1"), join(dist, "proto"));
  rmSync(emitted, { recursive: true });
}

function place(from, to) {
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(from)) {
    const text = readFileSync(join(from, name), "utf8");
    writeFileSync(join(to, name), text.replaceAll('"@tcoder/proto/tcoder/v1/', '"./proto/'));
  }
}

/** Bundles each test, and the pages that browser tests serve, which have all they need inside. */
async function buildTests() {
  const common = { bundle: true, format: "esm", target: "es2022", sourcemap: true, logLevel: "warning" };
  const tests = readdirSync(join(here, "test")).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...common,
    entryPoints: [...tests, "play-folders.ts"].map((name) => join(here, "test", name)),
    outdir: join(dist, "test"),
    platform: "node",
    // The SDK under test is what users get: dist/index.js.
    external: ["@bufbuild/protobuf", "@connectrpc/*", "@tcoder/sdk", "playwright-core"],
  });
  await build({
    ...common,
    entryPoints: ["page", "player"].map((name) => join(here, "test", `${name}.ts`)),
    outdir: join(dist, "test"),
    platform: "browser",
  });
}
