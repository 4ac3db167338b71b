-- Returns the user's roster unchanged; the reader leaves out what has expired since it was written.
--
-- KEYS[1]  the user's roster
-- ARGV[1]  nothing
-- ARGV[2]  u48 now, as in open.lua
--
-- Returns  u48 now, the roster (nothing if there is none)

local now = struct.unpack('>I6', ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end
return struct.pack('>I6', now) .. (redis.call('GET', KEYS[1]) or '')
