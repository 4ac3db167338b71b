-- What a renewal begins with: the question, as in open.lua. Behind this comes touch.lua, and only if that does nothing open.lua.

local name, key = KEYS[1], ARGV[1]
local now, lease = struct.unpack('>I6I6', ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end

