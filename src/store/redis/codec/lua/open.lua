-- The beginning of every script that changes a roster: finds the time, the current roster, and the
-- session in question.
--
-- KEYS[1]  the user's roster
-- ARGV[1]  the session's key
-- ARGV[2]  the question, packed: u48 now, u48 lease, then the operation's own fields. Times are in
--          milliseconds, all integers big-endian. A `now` of 0 means Redis's own clock; only tests
--          pass another.
-- Names in capitals are constants, which script.rs replaces by their values. A flag is set if
-- `flags % (2 * FLAG) >= FLAG`.
--
-- Needs nothing before it. Leaves, for the operation and for close.lua:
--   byte, call, pack, sub, unpack      functions
--   key, now, lease                    of the question
--   roster, seats, graves, begin, tombs, latest, written, first, kept, changed
--   spent, since, forgot_at, forgot_until, unknown_notes
--   seat, expires, bytes               of the session; nil if it is not live
--   ahead                              whether it started before the clock stepped back, as far as
--                                      is known
--   grave, grave_bytes, grave_flags, why, by   of its tombstone; nil if there is none
--   answer, patch, plain, front, middle, burials, grows   which the operation sets; see the end of
--                                      this file
--
-- A roster is one string:
--   head        u8 version, u16 number of sessions, u8 number of tombstones, u48 when it was last
--               written as a whole, u32 how long the key is kept from then on, u48 no tombstone
--               ends before this, u16 length of the notes
--   notes       data of the user rather than a session, each u8 tag, u8 length of the value minus
--               one, the value
--               1 the budget: u16 displacements not refilled, u48 when the current refill began
--               2 forgotten ends: u48 when the last was forgotten, u48 until when one might matter
--   sessions    in the order they took their slots, each
--               u16 length, u48 expires, u48 renewed (0: not since its start), key, u48 started,
--               u8 flags, [u32 ticket], facts
--   tombstones  each u16 length, u48 until, u48 asked, key, u8 flags, [key of the session that took
--               the slot], facts of that session, message for the viewer (facts with tag 5, which
--               together are one text)
--   key         u8 kind (bits 0 to 3) and form, u8 length of the id minus one, the id in that form
--   flags       of a session: bits 0 and 1 the door, 4 whether there is a ticket, 8 derived,
--               16 played, 32 provisional, 64 paid
--               of a tombstone: bits 0 and 1 the cause (1 released, 2 displaced, 3 operator),
--               4 whether it was live, 8 derived
--   facts       each u8 tag (bits 0 to 3) and form, u8 length of the value minus one, the value in
--               that form
-- record.rs encodes and decodes all this; the scripts compare, cut and move records. They keep
-- unknown tags and flags: a session's as long as the session, a roster's as long as the roster.
-- They use few numbers and fewer calls, which make up a script's cost. `now` may have a fraction;
-- packed times have none.

local byte, call, pack, sub, unpack = string.byte, redis.call, struct.pack, string.sub, struct.unpack
local key = ARGV[1]
local now, lease = unpack('>I6I6', ARGV[2])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end

local roster = call('GET', KEYS[1]) or EMPTY
local version, seats, graves, written, keep, first, noted = unpack('>BI2BI6I4I6I2', roster)
if version ~= VERSION and version ~= ALSO_READ then
  return redis.error_reply('FOREIGN what is at this key was not written by this version of streamgate')
end
local kept, changed = written + keep, version ~= VERSION -- another version is rewritten in ours
local begin = HEAD + 1 + noted -- where the sessions begin

-- The notes, as of now.
local spent, since, forgot_at, forgot_until, unknown_notes = 0, 0, 0, 0, ''
if noted > 0 then
  local at = HEAD + 1
  while at < begin do
    local tag, last = byte(roster, at), at + 2 + byte(roster, at + 1)
    if tag == BUDGET then
      spent, since = unpack('>I2I6', roster, at + 2)
    elseif tag == FORGOTTEN then
      forgot_at, forgot_until = unpack('>I6I6', roster, at + 2)
    else
      unknown_notes = unknown_notes .. sub(roster, at, last)
    end
    at = last + 1
  end
  if since > now then
    since, changed = now, true
  end
  local refilled = math.min(math.floor((now - since) / REFILL), spent)
  if refilled > 0 then
    spent, since, changed = spent - refilled, since + refilled * REFILL, true
  end
  if forgot_at > now then
    forgot_at, forgot_until, changed = now, now + forgot_until - forgot_at, true
  end
  if forgot_until ~= 0 and forgot_until <= now then
    forgot_at, forgot_until, changed = 0, 0, true
  end
end

-- `seat` is the offset of the session's record, `expires` and `bytes` belong to it; `tombs` is the
-- offset of the tombstones; `latest` is when the last lease ends: an end recorded now is
-- remembered until after that, whichever instance granted it. A time later than now was written
-- before the clock stepped back.
local mentioned = string.find(roster, key, begin + KEY_AT, true) -- else it has no record
local seat, expires, bytes, tombs, latest
local passes, ahead = 0, false
repeat
  seat, tombs, latest = nil, begin, now
  local stale = written > now or first <= now
  local key_end = (KEY_AT - 1) + #key
  for _ = 1, seats do
    local length, ends, renewed = unpack('>I2I6I6', roster, tombs)
    if ends <= now or renewed > now then
      stale = true
    end
    if ends > latest then
      latest = ends
    end
    if mentioned and not seat and sub(roster, tombs + KEY_AT, tombs + key_end) == key then
      seat, expires, bytes = tombs, ends, length
    end
    tombs = tombs + length
  end

  if stale then
    passes = passes + 1
    if passes > 2 then
      -- Settling it once didn't help: these are not our records.
      return redis.error_reply('FOREIGN the data at this key is not a roster')
    end
    -- Drops expired records, and moves back those written later than now, so that nothing lasts
    -- longer than was granted.
    local records, at, sitting, buried = {}, begin, 0, 0
    first, kept = NEVER, now
    for index = 1, seats + graves do
      local length, ends, seen = unpack('>I2I6I6', roster, at)
      if ends > now then
        local record = sub(roster, at, at + length - 1)
        if index <= seats then
          local tail = (KEY_AT + 4) + byte(record, KEY_AT + 2)
          local started = unpack('>I6', record, tail)
          local last = seen == 0 and started or seen
          if last > now then
            ends = now + ends - last
            ahead = ahead or (started > now and sub(record, KEY_AT + 1, KEY_AT + #key) == key)
            record = pack('>I2I6I6', length, ends, seen == 0 and 0 or now) .. sub(record, KEY_AT + 1, tail - 1)
              .. pack('>I6', math.min(started, now)) .. sub(record, tail + MILLIS)
          end
          sitting = sitting + 1
        else
          if seen > now then
            ends = now + ends - seen
            record = pack('>I2I6I6', length, ends, now) .. sub(record, KEY_AT + 1)
          end
          buried, first = buried + 1, math.min(first, math.floor(ends))
        end
        kept = math.max(kept, ends)
        records[#records + 1] = record
      end
      at = at + length
    end
    roster, seats, graves = sub(roster, 1, begin - 1) .. table.concat(records), sitting, buried
    written, changed = 0, true
  end
until not stale

-- `grave` is the offset of the session's tombstone, `why` is its cause, `by` the key of the session
-- that took the slot. A session has a seat or a grave, never both.
local grave, grave_bytes, grave_flags, why, by
if mentioned and graves > 0 then
  local at = tombs
  for _ = 1, graves do
    local length = unpack('>I2', roster, at)
    if sub(roster, at + KEY_AT, at + (KEY_AT - 1) + #key) == key then
      grave, grave_bytes, grave_flags = at, length, byte(roster, at + KEY_AT + #key)
      why, by = grave_flags % CAUSES, ''
      if why == DISPLACED then
        by = sub(roster, at + (KEY_AT + 1) + #key, at + (KEY_AT + 3) + #key + byte(roster, at + (KEY_AT + 2) + #key))
      end
      break
    end
    at = at + length
  end
end

-- What the operation sets for close.lua.
local answer -- the script's result
local patch -- if only the session at `seat` is renewed: its packed times
local plain -- if new facts of that session are taken over too: the roster without them
local front, middle = nil, '' -- the roster's new content, in two parts; nil if it stays unchanged
local burials -- new ends without tombstones yet: key, flags, the rest, and until when, in turn
local grows = false -- whether this is a start, which a full Redis may always refuse
