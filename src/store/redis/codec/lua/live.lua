-- The beginning of a renewal: the question, as in open.lua. touch.lua follows, and open.lua only if
-- touch.lua does nothing.

local name, key = KEYS[1], ARGV[1]
local now, lease = struct.unpack('>I6I6', ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end

