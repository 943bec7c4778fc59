-- HELD: what each worker holds, as "<worker> <member>", in the order of these.
-- $include(keys.lua)

-- held_by lists what a worker holds.
local function held_by(worker)
  local list = {}
  local from = worker .. ' '
  for _, held in ipairs(redis.call('ZRANGEBYLEX', HELD, '[' .. from, '(' .. from .. '\255')) do
    local m = string.sub(held, #from + 1)
    -- Another worker's id may begin like this one's.
    if not string.find(m, ' ', 1, true) then list[#list + 1] = m end
  end
  return list
end
