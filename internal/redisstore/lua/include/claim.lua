-- Claims: they lease ready tasks to workers, whose turn it is (see turn.lua). The first lease of a job moves it to
-- RUNNING. A claim is a list: worker id, session, max, lease ms, request id, running limit. Of different limits the last holds.
-- $include(attempt.lua)
-- $include(serve.lua)
local find = string.find
local STARTS = pack(EVENT, EVENT_TYPES.STARTED, NOW)
local CHOSEN, TOUCHED, OWNERS, NEXT_TASK -- what claims are given of
local IDS, INDEXES, JOB_KEYS, SPECS = {}, {}, {}, {} -- of what was chosen
local ROWS = {} -- and the keys of the jobs in them
local STANDINGS, WANTS, REPLAYS, FIRSTS = {}, {}, {}, {} -- of requests: key, how many it may have, answer that comes again, same request before

-- standing_text is how the standing begins of a worker that may have tasks: attached in a session, and not draining.
local function standing_text(session) return session .. ' 0 1\n' end

-- judge_claims finds out who may have tasks, and whose answer comes again. It returns how many tasks are wanted.
local function judge_claims(requests)
  for i, r in ipairs(requests) do STANDINGS[i] = standing_key(r[1]) end
  read_all(STANDINGS)

  local wanted, limit, seen = 0, nil, {}
  for i, r in ipairs(requests) do
    local standing, start = READ[STANDINGS[i]], '\n' .. r[5] .. ' '
    local before = seen[start]
    if before and requests[before][1] ~= r[1] then -- another worker's
      start = r[1] .. start
      before = seen[start]
    end
    seen[start] = before or i
    if before then
      FIRSTS[i] = before
    elseif standing then
      local _, at = find(standing, '\n' .. r[5] .. ' ', 1, true)
      if at then
        REPLAYS[i] = sub(standing, at, (find(standing, '\n', at, true) or 0) - 1)
      elseif find(standing, standing_text(r[2]), 1, true) == 1 then
        wanted, limit = wanted + r[3], r[6]
        WANTS[i] = r[3]
      end
    end
  end
  if limit then set_limit(limit) end
  return wanted
end

-- choose chooses up to most tasks, and reads what a lease needs of them and wasn't read.
local function choose(most)
  CHOSEN, TOUCHED, OWNERS = serve(most)
  NEXT_TASK = 0
  local missing = {}
  for i, m in ipairs(CHOSEN) do
    local id, index = parse_member(m)
    local spec = spec_key(id)
    IDS[i], INDEXES[i], SPECS[i] = id, index, spec
    JOB_KEYS[i] = attempt_keys(missing, id, index, m)
    if READ[JOB_KEYS[i]] and index == 0 then missing[#missing] = nil end
    if not READ[spec] then missing[#missing + 1] = spec end
  end
  read_all(missing)
end

-- take leases the next task that was chosen, and returns it, the attempt and the lease's row; nil if there is none. One that
-- can't be read is passed by.
local function take(worker, lease, deadline)
  while CHOSEN[NEXT_TASK + 1] do
    NEXT_TASK = NEXT_TASK + 1
    local m, id, index, key = CHOSEN[NEXT_TASK], IDS[NEXT_TASK], INDEXES[NEXT_TASK], JOB_KEYS[NEXT_TASK]
    local raw = READ[key]
    if raw then
      local read, project, progress, state, run, sequence, base, open, lease_ms, left, stream, uploaded, started, playable, finished, weight,
        done, percent, behind = pcall(unpack_struct, HEAD, raw)
      local task, at
      if read then task, at = task_in(raw, behind, index, m) end
      if task then
        local s, last, n, _, share, told, kept, follow, task_behind
        read, s, last, n, _, share, told, kept, follow, _, task_behind = pcall(unpack_struct, HOT, task, at)
        if read and s == READY and (state == PENDING or state == RUNNING) then
          if sequence - base >= EVENTS_BEHIND then
            raw = put_by(id, raw, behind, base)
            base = sequence
            if index == 0 then task = raw end
          end
          n, sequence = n + 1, sequence + 1
          local events = task_event('TASK_LEASED', index, n)
          if state == PENDING then
            state, started, sequence, events = RUNNING, NOW, sequence + 1, STARTS .. events
            zrem(index_of(project, 'PENDING'), id)
            zadd(index_of(project, 'RUNNING'), '0', id)
          end
          keep_attempt(key, raw, behind, index, m, task, task_behind, events, project, progress, state, run, sequence, base, open,
            math.max(lease_ms, lease), left, stream, uploaded, started, playable, finished, weight, done, percent,
            LEASED, last, n, NOW, share, told, kept, follow, worker)
          note(id, sequence)
          local name = lease_name(worker, m, n)
          zadd(LEASES, deadline, name)
          zadd(HELD, '0', name)
          count_leases(project, 1)
          local row = starts(uploaded, index, n) and { m, deadline, raw, READ[SPECS[NEXT_TASK]] }
            or lease_row(m, deadline, id, index, false)
          append(ROWS, row, key)
          return m, n, row
        end
      end
      if not read then found_broken(id, OWNERS[NEXT_TASK]) end
    end
    for _, e in ipairs(TOUCHED) do
      if e.name == OWNERS[NEXT_TASK] then e.full = false end -- it doesn't run after all
    end
  end
end

-- still_held adds the rows of a request that comes again: of the leases of its first answer that are still held.
local function still_held(worker, leases, answer)
  for m, attempt in string.gmatch(leases, '(%S+) (%d+)') do
    local id, index = parse_member(m)
    local raw = read(job_key(id))
    local whole, behind = pcall(function() return raw and select(18, unpack_struct(HEAD, raw)) end)
    if index > 0 then read(task_key(m)) end
    local task, at
    if whole and raw then task, at = task_in(raw, behind, index, m) end
    if task then
      local read_, s, _, n, _, _, _, _, _, by = pcall(unpack_struct, HOT, task, at)
      if read_ and s == LEASED and by == worker and n == attempt + 0 then
        answer[#answer + 1] = lease_row(m, redis.call('ZSCORE', LEASES, lease_name(by, m, n)), id, index, false)
      end
    end
  end
end

-- claim gives a worker up to most tasks, and keeps which in its standing, in place of the older of two answers.
local function claim(r, most, standing, answer)
  local worker, lease_ms = r[1], r[4]
  local deadline = deadline_text(lease_ms)
  local given = r[5]
  for _ = 1, most do
    local m, n, row = take(worker, lease_ms, deadline)
    if not m then break end
    given = given .. ' ' .. m .. ' ' .. digits(n)
    answer[#answer + 1] = row
  end
  if not answer[4] then return end
  local raw, state = READ[standing], standing_text(r[2])
  local newest = sub(raw, #state + 1, find(raw, '\n', #state + 1, true) - 1)
  keep(standing, state .. given .. '\n' .. newest)
  -- While there are leases, the sweeper comes at least that often.
  due(NOW + math.floor(lease_ms / 3))
end

-- claim_all returns answers to claims. Nothing is written yet but whose turn is next: write_out does that.
local function claim_all(requests)
  choose(judge_claims(requests))
  local answers = {}
  for i, r in ipairs(requests) do
    -- A request that comes twice in one call has one answer.
    local answer = FIRSTS[i] and answers[FIRSTS[i]] or { '', 0, 0 }
    answers[i] = answer
    if REPLAYS[i] then
      still_held(r[1], REPLAYS[i], answer)
    elseif WANTS[i] then
      claim(r, WANTS[i], STANDINGS[i], answer)
    elseif not FIRSTS[i] then
      answer[3] = 1
    end
  end
  settle_served(TOUCHED)
  return answers
end

-- finish_rows gives the rows of leases their jobs as they are in the end: a job may have given more than one.
local function finish_rows()
  for i = 1, #ROWS, 2 do ROWS[i][3] = READ[ROWS[i + 1]] end
end
