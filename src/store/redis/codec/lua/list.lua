-- Returns the user's roster unchanged; the reader leaves out what has expired since it was written.
--
-- KEYS[1]  the user's roster
-- KEYS[2]  the user's override, as in override.lua
-- ARGV[1]  nothing
-- ARGV[2]  u48 now, as in open.lua
-- ARGV[3]  as in override.lua
--
-- Returns  u48 now, u8 length of the override, the override (nothing if there is none), the roster
--          (nothing if there is none)

local now = struct.unpack('>I6', ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end
local override = KEYS[2] and redis.call('GET', KEYS[2]) or ARGV[3]
if not override or #override ~= OVERRIDE_BYTES then
  override = ''
end
return struct.pack('>I6B', now, #override) .. override .. (redis.call('GET', KEYS[1]) or '')
