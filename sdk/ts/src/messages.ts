/**
 * The messages of the API that are part of the SDK's own interface. Nothing
 * else of the generated code gets out.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { JobSpecSchema } from "@tcoder/proto/tcoder/v1/media_pb.js";
import type { UpdatePoolRequestSchema } from "@tcoder/proto/tcoder/v1/pool_pb.js";

export { ErrorReason } from "@tcoder/proto/tcoder/v1/error_pb.js";
export type { Failure } from "@tcoder/proto/tcoder/v1/error_pb.js";
export { JobEventType } from "@tcoder/proto/tcoder/v1/event_pb.js";
export type { JobEvent } from "@tcoder/proto/tcoder/v1/event_pb.js";
export { AttemptOutcome, JobState, Stage, TaskKind, TaskState, WaitReason } from "@tcoder/proto/tcoder/v1/job_pb.js";
export type {
  Attempt,
  Job,
  JobTimes,
  PlayableOutput,
  Progress,
  ReadableObject,
  RenditionProgress,
  Source,
  StageProgress,
  Task,
  Waiting,
} from "@tcoder/proto/tcoder/v1/job_pb.js";
export { AudioCodec, CopyPolicy, OutputKind, RateControl, StreamKind, VideoCodec } from "@tcoder/proto/tcoder/v1/media_pb.js";
export type {
  JobSpec,
  Output,
  OutputObject,
  OutputSpec,
  Plan,
  Preset,
  ProbeResult,
} from "@tcoder/proto/tcoder/v1/media_pb.js";
export { MachineState, PoolProblemKind, WorkerState } from "@tcoder/proto/tcoder/v1/pool_pb.js";
export type {
  GetPoolResponse as Pool,
  Machine,
  PoolProblem,
  PoolSettings,
  WatchPoolResponse as PoolUpdate,
  Worker,
} from "@tcoder/proto/tcoder/v1/pool_pb.js";
export { UploadState } from "@tcoder/proto/tcoder/v1/upload_pb.js";
export type { Upload, UploadedPart } from "@tcoder/proto/tcoder/v1/upload_pb.js";

/** What a job shall produce, with only the fields that matter: `{ preset: "hls", qualities: ["720p"] }`. */
export type JobSpecInit = MessageInitShape<typeof JobSpecSchema>;

/** What to change of the pool's settings; the others stay: `{ machineLimit: 20 }`. */
export type PoolChange = MessageInitShape<typeof UpdatePoolRequestSchema>;
