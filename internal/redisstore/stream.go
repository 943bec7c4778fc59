package redisstore

import (
	"context"
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// commit is a commit of a stream; see lua/include/stream.lua.
type commit struct {
	Output   string                 `json:"o"`
	Part     int                    `json:"p,omitempty"`
	Task     int                    `json:"t"`
	Attempt  int                    `json:"a"`
	Uploaded media.UploadedSegments `json:"u"`
}

// shown is how far a rendition is that was published.
type shown struct {
	Output   string        `json:"o"`
	Name     string        `json:"n"`
	Playable time.Duration `json:"d"`
}

// CommitSegments implements [pipeline.StreamStore].
func (s *Store) CommitSegments(ctx context.Context, c pipeline.SegmentCommit) (pipeline.Verdict, error) {
	job, index, ok := splitTaskID(c.Ref.TaskID)
	if !ok {
		return pipeline.VerdictStale, nil
	}

	args := []any{job, index, c.Ref.Attempt, c.WorkerID}

	for _, u := range c.Uploaded {
		raw, err := encode(commit{Task: index, Attempt: c.Ref.Attempt, Output: c.Output, Part: c.Part, Uploaded: u})
		if err != nil {
			return "", err
		}

		args = append(args, u.Rendition.Name, u.First, len(u.Segments), raw)
	}

	reply, err := s.callRows(ctx, 1, "commit_segments", nil, args...)
	if err != nil {
		return "", err
	}

	return pipeline.Verdict(asString(reply[0])), nil
}

// ReadStream implements [pipeline.StreamStore].
func (s *Store) ReadStream(ctx context.Context, id string, run int, after int64) (pipeline.Stream, error) {
	k := []string{s.keys.job(id), s.keys.stream(id), s.keys.plan(id)}

	reply, err := s.callRows(ctx, 6, "read_stream", k, id, run, after)
	if err != nil {
		return pipeline.Stream{}, err
	}

	read := pipeline.Stream{
		State: pipeline.JobState(asString(reply[0])), Run: int(asInt(reply[1])), Project: asString(reply[2]),
		Playable: asInt(reply[3]) == 1, Version: asInt(reply[4]),
	}

	if raw := asString(reply[5]); raw != "" {
		read.Plan = new(media.Plan)
		if err := decode(raw, read.Plan); err != nil {
			return pipeline.Stream{}, err
		}
	}

	for _, raw := range reply[6:] {
		var c commit
		if err := decode(asString(raw), &c); err != nil {
			return pipeline.Stream{}, err
		}

		read.Commits = append(read.Commits, pipeline.Commit(c))
	}

	return read, nil
}

// StreamPublished implements [pipeline.StreamStore].
func (s *Store) StreamPublished(ctx context.Context, p pipeline.Publication) (bool, error) {
	list := make([]shown, 0, len(p.Renditions))
	for _, r := range p.Renditions {
		list = append(list, shown{Output: r.Output, Name: r.Name, Playable: r.Playable})
	}

	raw, err := encode(list)
	if err != nil {
		return false, err
	}

	playable := 0
	if p.Playable {
		playable = 1
	}

	reply, err := s.callRows(ctx, 1, "stream_published", []string{s.keys.stream(p.JobID)}, p.JobID, p.Run, p.Version, playable, raw)
	if err != nil {
		return false, err
	}

	return asInt(reply[0]) == 1, nil
}

func decodeShown(raw string) ([]pipeline.RenditionProgress, error) {
	var list []shown
	if err := decode(raw, &list); err != nil {
		return nil, err
	}

	var rs []pipeline.RenditionProgress
	for _, r := range list {
		rs = append(rs, pipeline.RenditionProgress{Output: r.Output, Name: r.Name, Playable: r.Playable})
	}

	return rs, nil
}
