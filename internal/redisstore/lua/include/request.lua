-- A script of a verb that is called often takes many requests at a time. Each
-- is one packed argument; its keys, as many for each, come after the common
-- ones, one request's after the other's. Each gets its own answer, as if they
-- had come one by one: a refusal is an answer and harms no other request. An
-- answer is a list, or a line of values with spaces between, which costs less:
-- the code is empty or the reason of a refusal, so most lines begin with a space.
-- $include(binary.lua)

-- read_requests returns the requests: lists of arguments.
local function read_requests()
  local requests = {}
  for i = 2, #ARGV do requests[i - 1] = { cmsgpack.unpack(ARGV[i]) } end
  return requests
end
