import { isReason, JobState, reasonName, Tcoder, type Update } from "@tcoder/sdk";

/** What the page in the browser found. */
export interface Found {
  state: string;
  failure: string;
  /** What onProgress was told. */
  progress: number[];
  percent: number;
  /** Sequences of the events, and that of the final job. */
  sequences: number[];
  lastSequence: number;
  entry: string;
  /** The text of the entry's file. */
  playlist: string;
}

/** What a page of the product does: upload a file, watch its job, read the results. */
async function transcode(baseUrl: string, path: string, repeat: number): Promise<Found> {
  const client = new Tcoder({ baseUrl });
  const bytes = await (await fetch(path)).blob();
  const file = new File(Array<Blob>(repeat).fill(bytes), "clip.mp4", { type: "video/mp4" });
  const progress: number[] = [];
  const { job } = await client.upload(file, {
    contentType: file.type,
    spec: { preset: "hls", qualities: ["240p"] },
    onProgress: (doneBytes) => progress.push(doneBytes),
  });
  const sequences: number[] = [];
  let last: Update["job"] = job;
  for await (const { job: now, event } of client.watch(job.id, { afterSequence: job.sequence })) {
    last = now;
    if (event !== undefined) {
      sequences.push(Number(event.sequence));
    }
  }
  const entry = last.outputs[0]?.entry ?? "";
  let playlist = "";
  if (last.state === JobState.COMPLETED) {
    for await (const { object, url } of client.outputs(last.id)) {
      if (object?.name === entry) {
        playlist = await (await fetch(url)).text();
      }
    }
  }

  return {
    state: JobState[last.state],
    failure: last.failure === undefined ? "" : reasonName(last.failure.reason),
    progress,
    percent: last.progress?.percent ?? 0,
    sequences,
    lastSequence: Number(last.sequence),
    entry,
    playlist,
  };
}

let uploading = new AbortController();

/** Uploads until it is told to stop, and gives the name of the error. */
async function uploadUntilAborted(baseUrl: string): Promise<string> {
  uploading = new AbortController();
  const { signal } = uploading;
  const options = { filename: "clip.mp4", signal };

  return new Tcoder({ baseUrl }).upload(new Blob(["x"]), options).then(
    () => "",
    (err: Error) => err.name,
  );
}

function abort(): void {
  uploading.abort();
}

/** The reasons of the errors that a page gets. */
async function reasons(baseUrl: string): Promise<string[]> {
  const client = new Tcoder({ baseUrl, retry: { firstPatienceMs: 1 } });
  const failures = [client.getJob("nosuchjob"), client.upload(new Blob(["x"]), { filename: "a/b.mp4" })];
  const settled = await Promise.allSettled(failures);

  return settled.map((result) => {
    if (result.status === "fulfilled") {
      return "";
    }
    const err: unknown = result.reason;

    return isReason(err, "UNREACHABLE") ? `UNREACHABLE: ${err.remedy}` : String((err as { reason?: string }).reason);
  });
}

declare global {
  /** How the test calls the page. */
  var page: {
    transcode: typeof transcode;
    uploadUntilAborted: typeof uploadUntilAborted;
    abort: typeof abort;
    reasons: typeof reasons;
  };
}

globalThis.page = { transcode, uploadUntilAborted, abort, reasons };
