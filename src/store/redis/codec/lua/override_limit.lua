-- Sets or clears the limit of one user: the override that override.lua reads.
--
-- KEYS[1]  the override
-- ARGV[1]  nothing
-- ARGV[2]  u48 now, as in open.lua
--          u16 the limit, or NONE
--          u48 until
--
-- Returns  u16 the limit that was in force (or NONE), u48 until

local now, limit, till = struct.unpack('>I6I2I6', ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end
local old_limit, old_till = NONE, 0
local found = redis.call('GET', KEYS[1])
if found and #found == OVERRIDE_BYTES then
  local form, that, ends = struct.unpack('>BI2I6', found)
  if form == OVERRIDE_VERSION and ends > now then
    old_limit, old_till = that, ends
  end
end
if limit == NONE or till <= now then
  redis.call('DEL', KEYS[1])
else
  local left = string.format('%d', math.ceil(till - now))
  redis.call('SET', KEYS[1], struct.pack('>BI2I6', OVERRIDE_VERSION, limit, till), 'PX', left)
end
return struct.pack('>I2I6', old_limit, old_till)
