-- Handles many sightings: renews each session that can be renewed in place.
--
-- KEYS     the users' rosters, one for each session; the same one may occur several times. In a
--          cluster only the first
-- ARGV[1]  u48 now, as in open.lua, then each session's u48 lease
-- ARGV[2]  and following: the sessions' keys; in a cluster then the rosters but for the first
--
-- Returns  a list of integers: when the session's lease ends; or 0 if nothing was done, and
--          renew.lua has to be called

local unpack = struct.unpack
local now = unpack('>I6', ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end
local answers = {}
local sessions = #ARGV[1] / MILLIS - 1
for index = 1, sessions do
  local name = KEYS[index] or ARGV[sessions + index]
  -- An error in one roster doesn't affect the others. One that has moved to another master is an
  -- error too.
  local fine, till = pcall(touch, name, ARGV[index + 1], now, unpack('>I6', ARGV[1], MILLIS * index + 1))
  answers[index] = fine and till or 0
end
return answers
