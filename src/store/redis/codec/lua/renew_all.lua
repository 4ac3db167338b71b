-- These streams were seen running: a renewal of each that can be renewed where it stands.
--
-- KEYS     the users' rosters, one for each session; the same may be there several times
-- ARGV[1]  u48 now, as in open.lua, then each session's u48 lease
-- ARGV[2]  and so on: the sessions' keys
--
-- Returns  a list of integers: until when the session counts; or 0, nothing was done, and renew.lua has to be asked

local unpack = struct.unpack
local now = unpack('>I6', ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end
local answers = {}
for index, name in ipairs(KEYS) do
  -- What is wrong with one roster is no other's concern.
  local fine, till = pcall(touch, name, ARGV[index + 1], now, unpack('>I6', ARGV[1], MILLIS * index + 1))
  answers[index] = fine and till or 0
end
return answers
