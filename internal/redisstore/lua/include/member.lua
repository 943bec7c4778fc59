-- In queues and keys a task is named by its job's id and its index, padded, so that equal scores sort by it.
local function member(id, index) return string.format('%s-%05d', id, index) end

local function parse_member(m)
  local n = #m
  if string.byte(m, n - 5) == 45 then return string.sub(m, 1, n - 6), string.sub(m, n - 4) + 0 end
  local id, index = string.match(m, '^(.*)%-(%d+)$') -- 100,000 or more
  return id, tonumber(index)
end
