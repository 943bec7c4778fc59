import { JobState, Tcoder } from "@tcoder/sdk";
import Hls, { ErrorDetails, Events } from "hls.js";

/** How a stream played. */
export interface Played {
  /** How it stopped: `ended`, or the error that stopped it. */
  end: string;
  /** What hls.js complained of besides, but for pauses where there is nothing more yet, and loads that it stopped itself. */
  complaints: string[];
  /** The state of the job when the picture began to move. */
  jobState: string;
  /** The numbers of the pictures' segments in the order that they came to the browser's decoder in. */
  taken: number[];
  /** The renditions that were shown, in order. */
  shown: string[];
  /** How many segments the stream has. */
  segments: number;
  /** What is in the browser's buffer at the end: both picture and sound are there. */
  buffered: [startSeconds: number, endSeconds: number][];
  positionSeconds: number;
  durationSeconds: number;
  /** How often the page read a playlist or a segment. */
  requests: number;
}

export interface PlayOptions {
  rate: number;
  /** Change to another rendition in the middle, as who chooses another quality does. */
  changing?: boolean;
}

/** Plays an HLS output of a job to its end, by presigned URLs, as hls.js does it by itself. */
async function play(baseUrl: string, jobId: string, options: PlayOptions): Promise<Played> {
  const client = new Tcoder({ baseUrl });
  const names = new SignedNames(client, jobId, "hls");

  return watch(`/${jobId}/hls/master.m3u8`, options, {
    urlOf: (url) => names.urlOf(url),
    stateOf: async () => JobState[(await client.getJob(jobId)).state],
  });
}

/** Plays an HLS output that the page's own server has in a folder to its end. */
async function playFolder(folder: string, options: PlayOptions): Promise<Played> {
  return watch(`/${folder}/master.m3u8`, options, {
    urlOf: (url) => Promise.resolve(url),
    stateOf: () => Promise.resolve("COMPLETED"),
  });
}

interface Origin {
  urlOf: (url: string) => Promise<string>;
  stateOf: () => Promise<string>;
}

async function watch(path: string, { rate, changing = false }: PlayOptions, { urlOf, stateOf }: Origin): Promise<Played> {
  const video = document.querySelector("video")!;
  const played = { complaints: [] as string[], taken: [] as number[], shown: [] as string[], jobState: "", segments: 0 };
  let requests = 0;
  const hls = new Hls({
    maxBufferLength: 60,
    enableWorker: false,
    xhrSetup: async (xhr, url) => {
      requests++;
      xhr.open("GET", await urlOf(url));
    },
  });
  const end = new Promise<string>((resolve) => {
    video.addEventListener("ended", () => resolve("ended"), { once: true });
    video.addEventListener("error", () => resolve(`the browser: ${video.error?.message}`), { once: true });
    hls.on(Events.ERROR, (_, { fatal, details, error }) => {
      if (fatal) {
        resolve(`hls.js: ${details}: ${error?.message}`);
      } else if (![ErrorDetails.BUFFER_STALLED_ERROR, ErrorDetails.INTERNAL_ABORTED].includes(details)) {
        played.complaints.push(`${details}: ${error?.message}`);
      }
    });
  });
  const began = new Promise<void>((resolve) => {
    const look = () => {
      if (video.currentTime > 0.1) {
        video.removeEventListener("timeupdate", look);
        resolve();
      }
    };
    video.addEventListener("timeupdate", look);
  });
  void began.then(async () => {
    played.jobState = await stateOf();
    globalThis.player.began = true;
  });
  hls.on(Events.FRAG_BUFFERED, (_, { frag }) => {
    if (frag.type === "main" && frag.sn !== "initSegment") {
      played.taken.push(frag.sn);
    }
  });
  hls.on(Events.FRAG_CHANGED, (_, { frag }) => {
    const rendition = `${hls.levels[frag.level]?.height}p`;
    if (rendition !== played.shown.at(-1)) {
      played.shown.push(rendition);
      if (changing && played.shown.length === 1) {
        hls.nextLevel = (frag.level + 1) % hls.levels.length;
      }
    }
  });
  hls.on(Events.LEVEL_UPDATED, (_, { details }) => (played.segments = details.fragments.length));
  hls.attachMedia(video);
  hls.loadSource(location.origin + path);
  video.playbackRate = rate;
  await video.play().catch(() => {}); // its error comes by the event
  const why = await end;
  const found = {
    ...played,
    end: why,
    buffered: Array.from({ length: video.buffered.length }, (_, i): [number, number] => [
      video.buffered.start(i),
      video.buffered.end(i),
    ]),
    positionSeconds: video.currentTime,
    durationSeconds: video.duration,
    requests,
  };
  hls.destroy();

  return found;
}

/** The presigned URLs of an output's files by their names. */
class SignedNames {
  readonly #client: Tcoder;
  readonly #jobId: string;
  readonly #output: string;
  readonly #urls = new Map<string, string>();

  constructor(client: Tcoder, jobId: string, output: string) {
    this.#client = client;
    this.#jobId = jobId;
    this.#output = output;
  }

  /** What to read for a URL that hls.js made of a playlist's own and a name in it. */
  async urlOf(url: string): Promise<string> {
    const folder = `/${this.#jobId}/${this.#output}/`;
    const { pathname } = new URL(url);
    const name = pathname.slice(pathname.indexOf(folder) + folder.length);
    if (!this.#urls.has(name)) {
      for await (const { object, url: signed } of this.#client.outputs(this.#jobId, { output: this.#output })) {
        this.#urls.set(object!.name, signed);
      }
    }
    const signed = this.#urls.get(name);
    if (signed === undefined) {
      throw new Error(`the job has no file ${name}`);
    }

    return signed;
  }
}

/** Whether the browser can play what the product makes by default. */
function supported(): boolean {
  return Hls.isSupported() && MediaSource.isTypeSupported('video/mp4; codecs="avc1.64001F,mp4a.40.2"');
}

declare global {
  /** How the test calls the page. */
  var player: {
    play: typeof play;
    playFolder: typeof playFolder;
    supported: typeof supported;
    /** Whether a picture has moved, and the page has seen what its job was doing then. */
    began: boolean;
  };
}

globalThis.player = { play, playFolder, supported, began: false };
