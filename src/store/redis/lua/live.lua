-- What a renewal begins with: the session is live, as nearly always, and renewed where it stands. Else open.lua follows.

local now, lease = struct.unpack('>I6I6', ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end
local expires = touch(KEYS[1], ARGV[1], now, lease)
if expires then
  return expires
end

