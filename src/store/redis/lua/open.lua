-- What every script that changes a roster begins with: the time, the roster as it stands now, and the session that is asked about.
--
-- KEYS[1]  the user's roster
-- ARGV[1]  the session's key
-- ARGV[2]  the question, packed: u48 now, u48 lease, and what the operation wants to know beside that. Times are in milliseconds, all
--          integers big-endian. A `now` of 0 asks Redis's own clock; tests alone give another.
-- Put before this when the script is loaded: LONGEST, the longest lease; MEMORY, how long an end is remembered; KEEP, for how long
-- a key is kept after it was written, longer than either; and KEEP_TEXT, the same as commands want it.
--
-- A roster is one string:
--   head        u8 version, u16 number of sessions, u8 number of tombstones, u48 when the key expires at the earliest,
--               u48 no tombstone ends before this
--   sessions    in the order in which they came to their slots, each
--               u16 bytes, u48 expires, u48 renewed (0: not since its start), key, u48 started, u8 flags, [u32 ticket], facts
--   tombstones  each u16 bytes, u48 until, key, u8 cause, [key of the session that took the slot]
--   key         u8 kind (bits 0 to 3) and form, u8 bytes of what follows less one, the id in that form
--   flags       bits 0 and 1 the door, bit 2 whether there is a ticket
--   facts       each u8 tag (bits 0 to 3) and form, u8 bytes of the value less one, the value in that form
-- record.rs makes and reads all this; here records are compared, cut and moved. Numbers are kept few and calls fewer: they are what
-- a script costs. `now` may have a fraction; what is packed has none.

local call, pack, sub, unpack = redis.call, struct.pack, string.sub, struct.unpack
local key = ARGV[1]
local now, lease = unpack('>I6I6', ARGV[2])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end

local roster = call('GET', KEYS[1]) or '\130\0\0\0\0\0\0\0\0\0\255\255\255\255\255\255'
local version, seats, graves, kept, first = unpack('>BI2BI6I6', roster)
if version ~= 130 then
  return redis.error_reply('FOREIGN what is at this key was not written by this version of streamgate')
end

-- `seat` is where the session's record begins, `expires` and `bytes` are that record's; `tombs` is where the tombstones begin.
-- A key that expires later than one that is written now was written by a clock that has since stepped back: so was every tombstone that
-- ends too far ahead. Sessions may also have been renewed since, where they are.
local changed = false
local mentioned = string.find(roster, key, 25, true) -- else neither it nor its tombstone is there
local seat, expires, bytes, tombs
local passes = 0
repeat
  seat, tombs = nil, 17
  local stale = kept > now + KEEP or first <= now
  local farthest, key_end = now + LONGEST, 13 + #key
  for _ = 1, seats do
    local length, ends, renewed = unpack('>I2I6I6', roster, tombs)
    if ends <= now or ends > farthest or renewed > now then
      stale = true
    end
    if mentioned and not seat and sub(roster, tombs + 14, tombs + key_end) == key then
      seat, expires, bytes = tombs, ends, length
    end
    tombs = tombs + length
  end

  if stale then
    passes = passes + 1
    if passes > 2 then
      -- It has been put right and is not: these are no records of ours.
      return redis.error_reply('FOREIGN what is at this key is no roster')
    end
    -- Drops what has expired, and cuts what ends further ahead than anything may, or lies ahead and should be past.
    local records, at, sitting, buried = {}, 17, 0, 0
    first = 2 ^ 48 - 1
    for index = 1, seats + graves do
      local length, ends = unpack('>I2I6', roster, at)
      if ends > now then
        local record
        if index <= seats then
          local renewed, _, id_bytes = unpack('>I6BB', roster, at + 8)
          local tail = at + 17 + id_bytes
          ends = math.min(ends, farthest)
          record = pack('>I2I6I6', length, ends, math.min(renewed, now)) .. sub(roster, at + 14, tail - 1)
            .. pack('>I6', math.min(unpack('>I6', roster, tail), now)) .. sub(roster, tail + 6, at + length - 1)
          sitting = sitting + 1
        else
          ends = math.min(ends, now + MEMORY)
          record = pack('>I2I6', length, ends) .. sub(roster, at + 8, at + length - 1)
          buried, first = buried + 1, math.min(first, ends)
        end
        records[#records + 1] = record
      end
      at = at + length
    end
    roster, seats, graves = sub(roster, 1, 16) .. table.concat(records), sitting, buried
    kept, changed = 0, true
  end
until not stale

-- `grave` is where the session's tombstone begins, `cause` is what that says. No session has both.
local grave, cause
if mentioned and graves > 0 then
  local at = tombs
  for _ = 1, graves do
    local length = unpack('>I2', roster, at)
    if sub(roster, at + 8, at + 7 + #key) == key then
      grave, cause = at, sub(roster, at + 8 + #key, at + length - 1)
      break
    end
    at = at + length
  end
end

-- What the operation leaves for close.lua.
local answer -- what the script returns
local patch -- if only the session at `seat` is renewed: its times, packed
local plain -- if news of that session is taken over too: the roster without
local front, middle = nil, '' -- what the roster is to hold instead of what it holds, in two parts; nil if it is to stay as it is
local burials -- keys and causes in turn: the ends that are to be remembered, of which there are no tombstones yet
local grows = false -- whether this is a start, which a full Redis may refuse even where it takes no more room
